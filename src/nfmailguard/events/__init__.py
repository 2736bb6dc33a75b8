"""What the core has recorded, as events for people and programs."""

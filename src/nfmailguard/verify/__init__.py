"""A profile beside a real box: what two profiles do otherwise, and whether a box does what a profile says."""

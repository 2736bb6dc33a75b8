"""The drivers: where packets come from and go to."""

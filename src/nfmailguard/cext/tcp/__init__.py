"""TCP: what a receiver would take, in which order."""

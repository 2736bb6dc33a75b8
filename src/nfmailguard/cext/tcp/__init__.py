"""TCP: which bytes a receiver would accept, and in which order."""

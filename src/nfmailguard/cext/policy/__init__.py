"""The compiled policy, and what is found."""

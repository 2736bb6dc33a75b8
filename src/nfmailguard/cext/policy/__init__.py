"""The compiled policy, and the reporting of findings."""

"""The mail account that the lab's servers know."""

__all__ = ["PASSWORD", "USER"]

USER, PASSWORD = "alice", "by-the-looking-glass"

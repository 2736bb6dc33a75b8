"""The one account of the lab's servers."""

__all__ = ["PASSWORD", "USER"]

USER, PASSWORD = "alice", "by-the-looking-glass"

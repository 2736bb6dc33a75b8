"""All memory that peers can make us use."""

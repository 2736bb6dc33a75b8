"""All memory whose use peers can cause."""

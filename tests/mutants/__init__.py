"""Mutations: each takes one rule of docs/streams.md out of the core; a test of that rule has to notice."""

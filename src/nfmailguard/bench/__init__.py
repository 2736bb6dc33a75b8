"""Benchmarks: what inspection costs, in paired comparisons with simpler programs and with similar ones."""

"""Benchmarks: what inspection costs, in pairs, beside what does less and beside the peers."""

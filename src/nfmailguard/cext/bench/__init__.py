"""For benchmarks: generated packets and mail as a load."""

"""The core, in Cython: no Python object is created per packet."""

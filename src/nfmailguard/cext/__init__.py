"""The core: Cython, one module a room, no Python object per packet."""

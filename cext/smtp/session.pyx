# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The session of a flow: its state at the beginning. Does not know what changes it."""

from libc.string cimport memset


cdef void session_open(Session *session, Grammar *grammar) noexcept nogil:
    memset(session, 0, sizeof(Session))
    session.state = grammar.state_connect

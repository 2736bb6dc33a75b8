# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The session of a flow, at its beginning. Does not know what moves it."""

from libc.string cimport memset


cdef void session_open(Session *session, Grammar *grammar) noexcept nogil:
    memset(session, 0, sizeof(Session))
    session.state = grammar.state_connect

# What a target promises, and where its violation goes.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

# One execution; always 0, as libFuzzer wants it.
ctypedef int (*Target)(const uint8_t *data, size_t size) noexcept nogil

# The rule that was broken, with what was seen and two numbers. While fuzzing it ends the process,
# unless the rule is among the ignored; in a replay it is kept. The execution goes on.
cdef void violation(const char *rule, const char *what, long a, long b) noexcept nogil
# Whether a rule was broken in this execution: what follows from it is no news.
cdef bint violated() noexcept nogil

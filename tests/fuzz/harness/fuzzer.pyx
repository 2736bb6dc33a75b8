# cython: language_level=3, boundscheck=False, wraparound=False
"""Running a target: one input at a time, or as many as libFuzzer makes up.

Promises: an execution touches no Python object where its target touches none. A broken
rule ends the process while fuzzing, as a sanitizer's error does, and is returned by
``replay``. Does not know what a target does.
"""

from libc.stdio cimport fprintf, snprintf, stderr
from libc.stdlib cimport abort, calloc, free
from libc.string cimport memcmp, strlen

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <stdlib.h>
    /* Preloaded while fuzzing, absent in an ordinary build. */
    extern int LLVMFuzzerRunDriver(int *count, char ***arguments, int (*target)(const uint8_t *, size_t))
        __attribute__((weak));
    static int fuzzer_is_there(void) { return LLVMFuzzerRunDriver != NULL; }
    """
    int LLVMFuzzerRunDriver(int *count, char ***arguments, Target target) noexcept nogil
    int fuzzer_is_there() noexcept nogil

cdef enum:
    MOST_IGNORED = 32

cdef bytes ignored_words = b""             # keeps what `ignored` points to
cdef list ignored_list = []
cdef const char *ignored[MOST_IGNORED]
cdef int ignored_count = 0
cdef bint fuzzing = False
cdef bint broken = False
cdef char message[512]


cdef bint violated() noexcept nogil:
    return broken


cdef void violation(const char *rule, const char *what, long a, long b) noexcept nogil:
    global broken
    cdef int i
    if broken:
        return
    broken = True
    snprintf(message, sizeof(message), "%s: %s (%ld, %ld)", rule, what, a, b)
    if not fuzzing:
        return
    for i in range(ignored_count):
        if memcmp(rule, ignored[i], strlen(ignored[i])) == 0:
            return
    fprintf(stderr, "VIOLATION: %s\n", message)
    abort()


cdef Target running = NULL


cdef int execute(const uint8_t *data, size_t size) noexcept nogil:
    global broken
    broken = False
    return running(data, size)


def replay(size_t target, const uint8_t[::1] data):
    """Runs one input through the target at this address; what it broke, or None."""
    global running, fuzzing
    running = <Target> target
    fuzzing = False
    with nogil:
        execute(&data[0] if data.shape[0] else NULL, data.shape[0])
    return (<bytes> message).decode() if broken else None


def fuzz(size_t target, list arguments, list ignore, bint hold_gil=False):
    """Hands the target to libFuzzer with its command line; ends the process.

    ``ignore``: beginnings of rules whose violation only ends the execution. ``hold_gil``
    for a target that uses Python objects.
    """
    global running, fuzzing, ignored_list, ignored_count
    cdef list words = [argument.encode() for argument in arguments]
    cdef int count = len(words)
    cdef char **argv
    if not fuzzer_is_there():
        raise RuntimeError("libFuzzer is not in this process: tests/fuzz/run.py builds and starts one")
    if len(ignore) > MOST_IGNORED:
        raise ValueError("too many rules to ignore")
    ignored_list = [rule.encode() for rule in ignore]
    for ignored_count in range(len(ignored_list)):
        ignored[ignored_count] = ignored_list[ignored_count]
    ignored_count = len(ignored_list)
    argv = <char **> calloc(count + 1, sizeof(char *))
    if argv == NULL:
        raise MemoryError
    for i in range(count):
        argv[i] = words[i]
    running = <Target> target
    fuzzing = True
    if hold_gil:
        LLVMFuzzerRunDriver(&count, &argv, execute)
    else:
        with nogil:
            LLVMFuzzerRunDriver(&count, &argv, execute)
    free(argv)

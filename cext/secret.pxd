# Secrets: what a client says that no event may show.
from libc.stdint cimport uint8_t, uint32_t

from nfmailguard.cext.smtp cimport Dialogue, Scene

# Whether what stands behind a verb is a secret; `number` is the verb's, where it is known.
cdef bint is_secret(Scene *scene, const uint8_t *verb, uint32_t length, uint8_t number) noexcept nogil
# A command line is complete: whether the client's next lines may be secrets.
cdef void note_secret(Scene *scene, Dialogue *dialogue) noexcept nogil

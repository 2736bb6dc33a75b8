# Secrets: what a client says that no event may show.
from libc.stdint cimport uint8_t, uint32_t

from nfmailguard.cext.smtp cimport Dialogue, Scene

# Where in a verb a secret may begin: behind AUTH in any spelling; 0 where there is none. `number`: the verb's.
cdef uint32_t secret_at(Scene *scene, const uint8_t *verb, uint32_t length, uint8_t number) noexcept nogil
# A command line is complete: whether the client's next lines may be secrets.
cdef void note_secret(Scene *scene, Dialogue *dialogue) noexcept nogil

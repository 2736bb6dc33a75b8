# Secrets: what a client says that no event may show.
from libc.stdint cimport uint8_t, uint32_t

from nfmailguard.cext.smtp cimport Dialogue, Scene

# How many octets of a verb an event may show. `number`: the verb's.
cdef uint32_t shown_of_verb(Scene *scene, const uint8_t *verb, uint32_t length, uint8_t number) noexcept nogil
# Whether what stands behind the verb may be shown.
cdef bint shows_argument(Scene *scene, uint8_t number) noexcept nogil
# Puts what of the dialogue's command line an event may show into `out`, which holds a line; how many octets.
cdef uint32_t shown_of_line(Scene *scene, Dialogue *dialogue, uint8_t *out) noexcept nogil
# Whether an event shows less of the command line's argument than the client said.
cdef bint cut_short(Dialogue *dialogue) noexcept nogil
# A bare LF in a command line has become a space.
cdef void note_glued(Scene *scene, Dialogue *dialogue) noexcept nogil
# Makes stars of what is secret in a text whose verb shows its argument; `cut`: it went on.
cdef void hide_secrets(uint8_t *text, uint32_t length, bint cut) noexcept nogil
# Whether the octet that is being read may be a part of a secret.
cdef bint in_secret(Scene *scene, Dialogue *dialogue) noexcept nogil
# A verb, or a command line, is complete: whether what follows may be secret.
cdef void note_secret(Scene *scene, Dialogue *dialogue) noexcept nogil

# Results of reading a state image, and what the reader has to know.
from libc.stdint cimport uint8_t

from nfmailguard.cext.core cimport MOST_GENERATIONS, Generation

cdef enum Loaded:
    LOADED = 0
    LOADED_NOT                 # not an image, or incomplete, or altered since it was written
    LOADED_FORMAT              # the image is of another format version, or of a core with another layout
    LOADED_BROKEN              # the checksum is right, but the content is impossible
    LOADED_RULES               # a flow is under rules that do not exist here
    LOADED_ROOM                # the image does not fit within this engine's limits

# For reading an image: the generation of rules for each generation number in the image (NULL: none), the number of
# session states, and the number of finding kinds.
cdef struct Known:
    Generation *generations[MOST_GENERATIONS]
    uint8_t states
    uint8_t findings

# What comes of reading an image.
from libc.stdint cimport uint8_t

from nfmailguard.cext.core cimport MOST_GENERATIONS, Generation

cdef enum Loaded:
    LOADED = 0
    LOADED_NOT                 # it is no image, or not all of one, or another than was written
    LOADED_FORMAT              # of another version, or another layout, of the core
    LOADED_BROKEN              # its checksum is right, and what it says cannot be
    LOADED_RULES               # a flow is under rules that are not there
    LOADED_ROOM                # there is not room enough for it

# What is needed to read one: the generation each number of the image's stands for (NULL: there is none), how many
# states a session may be in, how many findings there are.
cdef struct Known:
    Generation *generations[MOST_GENERATIONS]
    uint8_t states
    uint8_t findings

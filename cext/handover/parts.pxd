# What an image of an engine's state is made of, in its order. Structures of the core are in it as they are, but for
# their pointers, which are zero.
#
#   Header, CoreState, the Counters, findings' counts, drops, flowless findings and lost records of the core, its halves
#   of cookies' notes where there are any; `flow_count` times: Flow, FlowParts, the counts of a tally that is spread, a
#   Dialogue with DialogueParts, its lines and outstanding commands, of each stream its bytes, its edits, its segments
#   ahead of a gap; `listed_count` times an Identity; `held_count` times: HeldPart and the packet.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

cdef enum:
    FORMAT = 1                 # of what is written, and of what it means: another number where either changes
    MAGIC_BYTES = 8
    WORD = 8                   # of a checksum, in bytes

cdef struct Header:
    uint8_t magic[MAGIC_BYTES]
    uint64_t format
    uint64_t layout            # of the core's structures: see layout.pyx
    uint64_t length            # bytes, this header among them; a multiple of eight, zeros at the end
    uint64_t checksum          # of all behind the header, keyed with what is before this

cdef struct CoreState:
    uint64_t key[2]            # of the flow table and its shares
    uint64_t next_id
    uint64_t started
    uint64_t refusals_second
    uint64_t unaccounted       # of the streams' memory, what no flow has been charged yet
    uint64_t notes_since
    uint32_t notes_noted[2]    # of a half with none, the bits are not there
    uint32_t notes_lines
    uint32_t refusals
    uint32_t flow_count
    uint32_t listed_count      # dialogues in the list of those with a page or more
    uint32_t held_count
    uint32_t forgot

cdef struct FlowParts:
    uint32_t edits[2]          # by stream, as all here
    uint32_t buffered[2]
    uint32_t ring[2]           # capacity of the ring of pages; 0: one page, or none
    uint8_t generation         # its number in the engine that is written
    uint8_t dialogue
    uint8_t tally              # its counts are not in the word
    uint8_t unused[5]

cdef struct DialogueParts:
    uint8_t command            # there is a line
    uint8_t reply
    uint8_t more               # the outstanding commands are not in `few`
    uint8_t unused

# Of a Line; its bytes follow. Of an Edit.
cdef struct LinePart:
    uint16_t length
    uint16_t sent

cdef struct EditPart:
    uint32_t seq
    uint32_t length

cdef struct BufferedPart:
    uint32_t seq
    uint32_t length
    uint32_t offset            # of the first byte in its page
    uint32_t ring

cdef struct HeldPart:
    uint64_t arrived
    uint64_t id
    uint32_t in_interface
    uint32_t out_interface
    uint32_t flags
    uint32_t connection
    uint32_t size              # bytes of the packet
    uint8_t cleared
    uint8_t to_server
    uint8_t unused[2]

# The parts of an image of an engine's state, in their order. Structures of the core are in the image as they are in
# memory, except that pointers are zero.
#
#   Header, CoreState; the core's Counters, findings' counts, drops, flowless findings and lost records; the halves of
#   the SYN cookie filter that have entries; `flow_count` times: Flow, FlowParts, counts of its findings where they are
#   outside the tally's word, a Dialogue with DialogueParts, its lines and outstanding commands, and of each stream its
#   bytes, edits and segments ahead of a gap; `listed_count` times an Identity; `held_count` times HeldPart and packet.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

cdef enum:
    FORMAT = 1                 # version of the image's format and of the meaning of its fields: it changes with either
    MAGIC_BYTES = 8
    WORD = 8                   # bytes of a unit of the checksum

cdef struct Header:
    uint8_t magic[MAGIC_BYTES]
    uint64_t format
    uint64_t layout            # number that identifies the layout of the core's structures: see layout.pyx
    uint64_t length            # bytes of the image, header included; padded with zeros to a multiple of eight
    uint64_t checksum          # checksum of all bytes after the header, keyed with the header fields before it

cdef struct CoreState:
    uint64_t key[2]            # hash key of the flow table and of the sources' shares
    uint64_t next_id
    uint64_t started
    uint64_t refusals_second
    uint64_t unaccounted       # bytes of the streams' memory that are not charged to any flow yet
    uint64_t notes_since
    uint32_t notes_noted[2]    # entries in each half of the SYN cookie filter; a half without any is not in the image
    uint32_t notes_lines
    uint32_t refusals
    uint32_t flow_count
    uint32_t listed_count      # dialogues in the list of those that have a page or more of memory
    uint32_t held_count
    uint32_t forgot

cdef struct FlowParts:
    # Edits of each stream. In all arrays of this structure 0 is the server's stream, 1 the client's.
    uint32_t edits[2]
    uint32_t buffered[2]
    uint32_t ring[2]           # capacity in pages of the stream's ring of pages; 0: it has one page, or none
    uint8_t generation         # number of the flow's rules (generation) in the engine that wrote the image
    uint8_t dialogue
    uint8_t tally              # 1: the flow's counts of findings are not in its tally's word, but follow in the image
    uint8_t unused[5]

cdef struct DialogueParts:
    uint8_t command            # 1: the command line being read is in the image, after the dialogue
    uint8_t reply
    # 1: the outstanding commands do not fit into the dialogue's array `few`; they follow in the image
    uint8_t more
    uint8_t unused

# Headers of a Line and of an Edit in the image; the Line's or Edit's bytes follow.
cdef struct LinePart:
    uint16_t length
    uint16_t sent

cdef struct EditPart:
    uint32_t seq
    uint32_t length

cdef struct BufferedPart:
    uint32_t seq
    uint32_t length
    uint32_t offset            # position of the segment's first byte in its page
    uint32_t ring

cdef struct HeldPart:
    uint64_t arrived
    uint64_t id
    uint32_t in_interface
    uint32_t out_interface
    uint32_t flags
    uint32_t connection
    uint32_t size              # bytes of the held packet, which follows
    uint8_t cleared
    uint8_t to_server
    uint8_t unused[2]

# The core's whole state: rules, flows, memory, counters. Declarations only.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.flow.census cimport Census
from nfmailguard.cext.flow.table cimport FLOW_STATES, FlowTable
from nfmailguard.cext.memory.pool cimport Pool
from nfmailguard.cext.policy.network cimport Network
from nfmailguard.cext.policy.numbers cimport MOST_FINDINGS
from nfmailguard.cext.policy.ruling cimport CompiledPolicy
from nfmailguard.cext.record cimport Ring
from nfmailguard.cext.smtp.dialogue cimport DialoguePool
from nfmailguard.cext.smtp.grammar cimport Grammar
from nfmailguard.cext.tcp.stream cimport Held
from nfmailguard.cext.wire.packet cimport MOST_PAYLOAD, PACKET_BUILD_SIZE

cdef enum:
    MOST_GENERATIONS = 256     # at once; a record's number of one has eight bits
    MOST_EMITTED = 128         # packets of our own in one call

cdef enum:  # DropReason: every drop has one; DROP_NAMES in engine.pyx
    DROP_CHECKSUM = 0
    DROP_FLAGS
    DROP_FRAGMENT
    DROP_MALFORMED
    DROP_TRUNCATED
    DROP_FLOW_LIMIT
    DROP_MIDSTREAM
    DROP_INTERFACE
    DROP_SYN_ACK               # it answers no SYN of the client's
    DROP_WINDOW                # beyond the receiver's
    DROP_GAP                   # it acknowledges what did not come through us
    DROP_BEHIND_FIN
    DROP_REPEATED              # held already, or would not be
    DROP_HELD_TOO_LONG
    DROP_SUPER_PACKET          # a part of it had to wait
    DROP_CONDITION             # a limit or condition of [on]: its finding tells
    DROP_FINDING               # its finding ended the flow
    DROP_CLOSES_GAP            # what has gone ahead of it must not be read
    DROP_FLOW_ENDED
    DROP_END_KEPT              # the beginning of an end of data, which the sender repeats with the rest
    DROP_INTERNAL
    DROP_OPTION                # a header or an option its receiver may refuse the segment for
    DROP_RST                   # at a number its receiver does not expect
    DROP_CLOSED                # the server has closed
    DROP_COOKIE                # an ACK that could open another connection
    DROP_EARLY                 # before the greeting
    DROP_MEMORY                # none to keep it in at the moment: its sender repeats it
    DROP_CONNECTION            # conntrack takes it for another connection's
    DROP_REASONS

# One FlowRule: which flows, and how they are ruled.
cdef struct Rule:
    CompiledPolicy policy
    Network *sources           # any when count is 0, so for the others
    Network *destinations
    uint16_t *ports
    uint32_t source_count
    uint32_t destination_count
    uint32_t port_count
    uint32_t interface

# What changes with the rules and holds for every flow.
cdef struct Settings:
    uint64_t timeout[FLOW_STATES]  # by FlowState, nanoseconds
    uint64_t held_timeout
    uint64_t stalled_timeout
    uint64_t memory
    uint32_t held_limit        # of all flows
    uint32_t held_flow_limit
    uint32_t held_source_limit
    uint32_t pending_limit
    uint32_t source_limit      # flows of one source
    uint32_t record_kinds
    uint8_t ports[8192]        # a bit a port that is inspected

# Rules and settings that came together. A flow keeps the rules it began under: they are freed when they are not the
# latest and no flow is under them. Not changed once it is published, but for `flows`.
cdef struct Generation:
    Generation *older          # of all there are; the control thread's
    Grammar grammar
    Settings settings
    Rule *rules                # `rule_count` of them; a policy of theirs is what a flow points to
    uint32_t rule_count
    uint32_t flows             # open ones that began under it; the packet thread's
    uint64_t seen_turn         # when the control thread saw that nothing is under it: the turn of the packet thread,
    uint64_t seen_head         # and the place in the ring of records
    uint8_t unused             # whether it did
    uint8_t number             # in records: of those there are, none has another's
    uint8_t begins_anew        # flows that were open before it are taken for open before us, as at a start

cdef struct Counters:
    uint64_t packets
    uint64_t accepted
    uint64_t replaced
    uint64_t dropped
    uint64_t emitted
    uint64_t held
    uint64_t held_now
    uint64_t held_expired
    uint64_t not_tcp
    uint64_t not_inspected
    uint64_t fragments
    uint64_t malformed
    uint64_t truncated
    uint64_t bad_checksum
    uint64_t odd_flags
    uint64_t options_blanked
    uint64_t out_of_order
    uint64_t beyond_window
    uint64_t retransmissions
    uint64_t windows_narrowed
    uint64_t windows_widened   # a client's, in the midst of a text
    uint64_t syns_asked        # SYNs on open flows, made a question to the server
    uint64_t flows_opened
    uint64_t flows_midstream
    uint64_t flows_evicted     # and of them, by what they had come to:
    uint64_t flows_evicted_ended
    uint64_t flows_evicted_embryonic
    uint64_t flows_evicted_unconfirmed
    uint64_t flows_evicted_one_sided
    uint64_t flows_evicted_greeted
    uint64_t flows_refused
    uint64_t flows_refused_share    # of them, for what their source has
    uint64_t flows_passed
    uint64_t flows_dropped
    uint64_t flows_reset
    uint64_t flows_stalled     # ended for others, as their receivers took nothing
    uint64_t refusals_omitted  # RSTs to packets of no flow, beyond so many a second
    uint64_t cookies_unnoted   # answered SYNs, beyond what there is room to note of
    uint64_t findings_repeated  # counted, and not told
    uint64_t records_omitted   # of commands and replies, in flows with too many that led to nothing
    uint64_t internal_errors

# Findings of a kind about packets of no flow, for whose telling there is only time to go by.
cdef struct FlowlessFindings:
    uint64_t second
    uint32_t count             # in that second
    uint32_t untold            # since the last one that was told

cdef enum:
    LINE_BYTES = 64            # of a cache line
    LINE_WORDS = 8

# A Bloom filter of two halves, the present one first: see cookie.
cdef struct CookieNotes:
    uint64_t *half[2]
    uint64_t since             # nanoseconds: when the present half began
    uint32_t lines             # of each half
    uint32_t noted[2]

cdef struct Core:
    FlowTable flows
    Pool pool
    DialoguePool dialogue_pool
    Ring ring
    Generation *generation     # whose rules a new flow comes under; the packet thread's
    Generation *published      # the latest; the control thread's, taken up between two batches
    uint64_t turns             # batches that have begun, empty ones too
    Census *census             # atomic: a slice to fill; NULL: nobody asks
    Counters counters
    uint64_t finding_counts[MOST_FINDINGS]
    uint64_t drops[DROP_REASONS]
    FlowlessFindings flowless_findings[MOST_FINDINGS]
    uint64_t started           # nanoseconds, of the first packet; 0 before
    uint64_t timeout[FLOW_STATES]  # of the latest generation's settings, as the five others of their names
    uint64_t held_timeout
    uint64_t stalled_timeout
    uint64_t refusals_second   # in which `refusals` have been emitted
    uint64_t accounted         # of the streams' memory, what the flows had when they were last asked
    uint64_t released_bytes    # what `released` takes of it
    uint64_t startup
    uint64_t cookie_life       # nanoseconds a SYN cookie may be good for
    CookieNotes cookies
    uint32_t held_limit
    uint32_t held_flow_limit
    uint32_t held_source_limit
    uint32_t pending_limit
    uint32_t first_of_call     # of this call
    uint32_t emitted_now
    uint32_t refusals
    uint32_t room              # octets of packets the driver can have waiting; 0: any number
    uint8_t can_hold
    uint8_t offload            # packets of passed flows may go by unseen
    uint8_t forgot             # a flow that could go on has been pushed out
    uint8_t ports[8192]
    Held *held_oldest          # by arrival, of all flows
    Held *held_newest
    Held *released             # answered in the last call; their memory goes with the next
    uint8_t original[MOST_PAYLOAD]  # the octets being decided, as they came
    uint8_t emitted[MOST_EMITTED][PACKET_BUILD_SIZE]

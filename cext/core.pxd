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
    MOST_GENERATIONS = 256     # most sets of rules in use at once; a record has eight bits for a generation's number
    MOST_EMITTED = 128         # most packets of our own that one call emits

# Reasons for dropping a packet; DROP_NAMES in engine.pyx names them in the same order.
cdef enum:
    DROP_CHECKSUM = 0
    DROP_FLAGS
    DROP_FRAGMENT
    DROP_MALFORMED
    DROP_TRUNCATED
    DROP_FLOW_LIMIT
    DROP_MIDSTREAM
    DROP_INTERFACE
    DROP_SYN_ACK               # a SYN+ACK that answers no SYN of the client, or a late packet of an older connection
    DROP_WINDOW                # a segment outside the receiver's window
    DROP_GAP                   # a segment that acknowledges bytes which did not pass through this gateway
    DROP_BEHIND_FIN            # payload after the sender's FIN
    DROP_REPEATED              # a copy of a packet that is held, or a packet that cannot be held; it will be sent again
    DROP_HELD_TOO_LONG
    DROP_SUPER_PACKET          # a super-packet (GSO) of which a part would have to wait for a reply
    DROP_CONDITION             # a limit or a condition of the configuration's [on] section; its finding says which
    DROP_FINDING               # a finding about the packet's bytes ended the flow
    DROP_CLOSES_GAP            # the packet would close a gap before bytes that the receiver must not read
    DROP_FLOW_ENDED
    DROP_END_KEPT              # the beginning of an end of data, which the sender repeats together with the rest
    DROP_INTERNAL
    DROP_OPTION                # an IP header or TCP option for which the receiver may refuse the segment
    DROP_RST                   # a RST whose sequence number is not the one its receiver expects
    DROP_CLOSED                # a client's packet after the server has closed
    DROP_COOKIE                # an ACK that could complete a SYN cookie handshake and so open another connection
    DROP_EARLY                 # a client's payload before the server's greeting
    DROP_MEMORY                # no memory to keep the packet at the moment; its sender repeats it
    DROP_CONNECTION            # conntrack assigns the packet to another connection
    DROP_REASONS

# One FlowRule: which flows it applies to, and the policy for them.
cdef struct Rule:
    CompiledPolicy policy
    Network *sources           # client networks; a count of 0 means any, also for destinations and ports
    Network *destinations
    uint16_t *ports
    uint32_t source_count
    uint32_t destination_count
    uint32_t port_count
    uint32_t interface

# Settings that change together with the rules and apply to all flows.
cdef struct Settings:
    uint64_t timeout[FLOW_STATES]  # idle time-out by FlowState, in nanoseconds
    uint64_t held_timeout
    uint64_t stalled_timeout
    uint64_t memory
    uint32_t held_limit        # most packets held for all flows together
    uint32_t held_flow_limit
    uint32_t held_source_limit
    uint32_t pending_limit
    uint32_t source_limit      # most flows of one source
    uint32_t record_kinds
    uint8_t ports[8192]        # a bit for each TCP port: whether it is inspected

# Rules and settings published together. A flow keeps the rules it began under: a generation is freed when it is not the
# latest and no flow is under it. Once published it does not change, except for `flows`.
cdef struct Generation:
    Generation *older          # next in the list of all generations; written by the control thread only
    Grammar grammar
    Settings settings
    Rule *rules                # `rule_count` rules; each flow points to the policy of its rule
    uint32_t rule_count
    uint32_t flows             # flows that began under these rules and are still open; written by the packet thread
    # `turns` of the packet thread when the control thread first saw no flow under this generation
    uint64_t seen_turn
    uint64_t seen_head         # number of the ring's next record at that time: earlier records may name this generation
    uint8_t unused             # 1: the control thread has seen that no flow is under this generation
    uint8_t number             # the generation's number in records, unique among the generations in use
    uint8_t begins_anew        # 1: connections without a flow count as opened earlier, as after a start

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
    uint64_t windows_widened   # client windows raised while the client sends message text, to leave room for a reply
    uint64_t syns_asked        # SYNs on open flows, sent on as ACKs to ask the server if it knows the flow
    uint64_t flows_opened
    uint64_t flows_midstream
    uint64_t flows_evicted     # flows removed from a full table; the next five counters split them by state
    uint64_t flows_evicted_ended
    uint64_t flows_evicted_embryonic
    uint64_t flows_evicted_unconfirmed
    uint64_t flows_evicted_one_sided
    uint64_t flows_evicted_greeted
    uint64_t flows_refused
    uint64_t flows_refused_share    # refused flows whose source had used up its share
    uint64_t flows_passed
    uint64_t flows_dropped
    uint64_t flows_reset
    uint64_t flows_stalled     # flows ended to free memory: their receivers acknowledged nothing
    uint64_t refusals_omitted  # RSTs not sent to packets without a flow, because of the limit per second
    uint64_t cookies_unnoted   # SYN+ACKs not entered into the SYN cookie filter because it was full
    uint64_t findings_repeated  # findings that were counted but got no record
    uint64_t records_omitted   # command and reply records not made: the flow has too many junk commands
    uint64_t internal_errors

# One kind of finding about packets that have no flow; how many are recorded is limited per second.
cdef struct FlowlessFindings:
    uint64_t second            # the second that `count` is for
    uint32_t count             # findings recorded in that second
    uint32_t untold            # findings without a record since the last recorded one

cdef enum:
    LINE_BYTES = 64            # bytes of a cache line
    LINE_WORDS = 8

# A Bloom filter of SYN cookies in two halves, the present one first: see tcp.syncookie.
cdef struct CookieNotes:
    uint64_t *half[2]
    uint64_t since             # when the present half was begun, in nanoseconds
    uint32_t lines             # cache lines in each half
    uint32_t noted[2]

cdef struct Core:
    FlowTable flows
    Pool pool
    DialoguePool dialogue_pool
    Ring ring
    Generation *generation     # the rules for new flows; set by the packet thread
    Generation *published      # the latest rules; set by the control thread, used from the next batch on
    uint64_t turns             # batches begun so far, empty ones included
    Census *census             # atomic: a slice of the flow census to be filled; NULL: none is requested
    Counters counters
    uint64_t finding_counts[MOST_FINDINGS]
    uint64_t drops[DROP_REASONS]
    FlowlessFindings flowless_findings[MOST_FINDINGS]
    uint64_t started           # time of the core's start or first packet, in nanoseconds; 0: not started
    # idle time-outs; copied from the latest settings, like the other fields with names of Settings
    uint64_t timeout[FLOW_STATES]
    uint64_t held_timeout
    uint64_t stalled_timeout
    uint64_t refusals_second   # the second in which `refusals` RSTs were sent to packets without a flow
    uint64_t accounted         # bytes of the streams' memory that were charged to flows at the last accounting
    uint64_t released_bytes    # bytes of memory that the packets in `released` take
    uint64_t startup
    uint64_t cookie_life       # nanoseconds for which a SYN cookie may be valid
    CookieNotes cookies
    uint32_t held_limit
    uint32_t held_flow_limit
    uint32_t held_source_limit
    uint32_t pending_limit
    uint32_t first_of_call     # index of this call's first operation in the caller's list of operations
    uint32_t emitted_now
    uint32_t refusals
    uint32_t room              # bytes of packets that may wait in the driver; 0: no limit
    uint8_t can_hold
    uint8_t offload            # 1: packets of flows no longer inspected may bypass the queue
    # 1: a flow able to continue was removed: packets without a flow no longer count as of connections older than our
    # start.
    uint8_t forgot
    uint8_t ports[8192]
    Held *held_oldest          # held packets of all flows, in order of arrival
    Held *held_newest
    Held *released             # held packets answered in the last call; they are freed with the next
    uint8_t original[MOST_PAYLOAD]  # the bytes being decided, as they arrived
    uint8_t emitted[MOST_EMITTED][PACKET_BUILD_SIZE]

# The SMTP dialogue: both directions' bytes in order, decisions and same-length edits out.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from nfmailguard.cext.name cimport NAME_OCTETS, Name, name_begins, name_is, upper
from nfmailguard.cext.network cimport Network
from nfmailguard.cext.numbers cimport *
from nfmailguard.cext.record cimport Identity, Ring
from nfmailguard.cext.pool cimport Pool, Shelf, shelf_give, shelf_lend
from nfmailguard.cext.tally cimport Tally, tally_repeat, tally_repeats, tally_repeats_next, tally_untold

cdef enum:
    MOST_VERBS = 64
    UNTOLD = 128               # of a command in the ring: no record tells of it, nor of its reply
    MOST_KEYWORDS = 64
    MOST_FINDINGS = 64
    SECRET_OCTETS = 16384      # of a line with a secret that are looked at
    CUT_BYTES = 2048           # a bit for each of them
    LINE_OCTETS = 254          # of a line, as much as events show

cdef enum:  # Input: smtp.verbs.Input
    INPUT_COMMANDS = 0
    INPUT_DATA = 1
    INPUT_CHUNK = 2
    INPUT_SASL = 3
    INPUT_OPAQUE = 4

cdef enum:  # Phase: where the next octet of the client's stands in its line
    PHASE_START = 0
    PHASE_VERB = 1
    PHASE_ARGUMENT = 2
    PHASE_SASL = 3             # a line without a verb (RFC 4954 4)

cdef enum:  # Argument: smtp.verbs.Argument
    ARGUMENT_IGNORED = 0
    ARGUMENT_SENDER = 1
    ARGUMENT_RECIPIENT = 2
    ARGUMENT_CHUNK_SIZE = 3
    ARGUMENT_SECRET = 4
    ARGUMENT_SHOWN = 5

cdef enum:  # bits of Ruling.restore: on which side of the firewall the gateway stands
    RESTORE_COMMANDS = 1       # the server's
    RESTORE_REPLIES = 2        # the client's

# The dialogue's tables, filled once from smtp.verbs and smtp.states.
cdef struct Grammar:
    Name verbs[MOST_VERBS]
    uint8_t argument[MOST_VERBS]
    uint8_t waits[MOST_VERBS]
    uint8_t reads[MOST_VERBS]
    uint16_t continues[MOST_VERBS]
    uint8_t long_line[MOST_VERBS]
    uint8_t told[MOST_VERBS]   # its commands and replies are recorded
    uint8_t next_state[16][MOST_VERBS][6]
    uint8_t takes_chunk[16]    # by state: a server reads one
    uint8_t first_verb[256]    # by its first octet; 0: none begins with it
    uint8_t next_verb[MOST_VERBS]
    uint8_t first_of[32][NAME_OCTETS + 1]  # by its first octet's lowest bits, and its length
    uint8_t next_of[MOST_VERBS]
    uint32_t first_four[MOST_VERBS]    # its first octets, and what of a line's is compared with them
    uint32_t first_mask[MOST_VERBS]
    uint8_t answered[MOST_VERBS]   # a reply of one line is but an answer, if it is not 354, 334 or 421
    uint8_t dull[MOST_VERBS]   # the command and its reply do nothing but move the session by the table
    uint32_t verb_count
    uint8_t verb_end_of_data
    uint8_t verb_empty
    uint8_t verb_greeting
    uint8_t verb_masked
    uint8_t verb_dot
    uint8_t state_connect
    uint8_t state_greeted
    uint8_t state_ready

# A line of an EHLO reply that the firewall upstream masks.
cdef struct Candidate:
    uint8_t octets[LINE_OCTETS]
    uint8_t length
    uint8_t restored           # it may be

# What some servers say where nothing is masked.
cdef struct Listing:
    Network *servers           # any when server_count is 0
    uint32_t server_count
    uint32_t count             # of candidates, in their order
    uint32_t banner_length     # 0: not known
    uint8_t digits             # every 2 and 0 of a masked banner is its own (rule B51)
    uint8_t banner[LINE_OCTETS]
    Candidate candidates[MOST_KEYWORDS]

# One FlowRule, compiled. Immutable.
cdef struct Ruling:
    uint8_t apply              # 0: report only (monitor, --dry-run), never stop a packet
    uint8_t hold               # what cannot be decided yet waits; 0: the client's goes on, and is only followed
    uint8_t action[MOST_FINDINGS]
    uint8_t allow[MOST_VERBS]
    uint8_t unknown            # UnknownForm
    uint8_t letter
    uint8_t faithful           # partial_lines = mask
    uint8_t banner             # BannerRule
    uint8_t banner_separator
    uint8_t banner_dash
    uint8_t mask_ehlo
    uint8_t hide               # `keywords` are those to mask, in the reply to an EHLO that was restored
    uint8_t restore            # RESTORE_COMMANDS, RESTORE_REPLIES; 0 in other modes
    uint8_t restore_starttls
    uint8_t restore_auth
    uint8_t keep_end           # an end of data leaves in one segment
    uint8_t restore_noop       # the firewall makes NOOP of what it denies
    uint8_t illegal[256]       # address characters to blank
    uint8_t keyword_end[256]
    uint8_t brackets
    uint8_t seven_bits         # the client's octets lose their eighth bit
    uint8_t bug_dot_crlf
    uint8_t bug_data_bypass
    uint8_t bug_noop_body
    uint8_t internal_error     # Action
    uint8_t midstream_at_start  # Action
    uint32_t line_length       # 0: no limit, as below
    uint32_t longest_line      # what every server reads as one
    uint32_t longest_parameters  # the same where extensions may lengthen it
    uint32_t longest_secret    # of AUTH's line, and of one behind it
    uint8_t cuts[CUT_BYTES]    # bits: where in one a server may find another line's beginning
    uint32_t near_length       # a line of so many octets has reached none of these, nor will its next few
    uint32_t sender_length
    uint32_t recipients
    uint32_t header_line_length
    uint32_t body_line_length
    uint32_t filename_length
    uint32_t header_length
    uint32_t body_length
    uint32_t to_fields
    uint32_t invalid_recipients
    uint32_t outstanding_commands
    uint32_t junk_commands     # UINT32_MAX: any number
    uint32_t findings_told
    uint32_t keyword_count
    Name keywords[MOST_KEYWORDS]
    uint32_t listing_count
    Listing *listings

# The beginning of the line that is being read, as it came; lent while a line is open.
cdef struct Line:
    uint16_t length            # octets kept
    uint16_t sent              # of a verb or keyword cut over segments: octets let through
    uint8_t octets[LINE_OCTETS]

cdef struct Dialogue

# Where memory for what is being said comes from.
cdef struct Lender:
    Line *spare                # the line last given back in this call: most are wanted again at once
    Shelf lines
    Shelf dialogues
    Pool *pool                 # for the outstanding commands, where they are many
    Dialogue *oldest           # of flows with a page or more of memory, by `since`
    Dialogue *newest

cdef enum:  # Asked: whether a reply may be the one to an EHLO
    ASKED_NOTHING = 0          # the client has not spoken yet
    ASKED_OTHER = 1            # it has, and no EHLO has passed
    ASKED_EHLO = 2             # EHLO was the first thing said, and is not answered
    ASKED_TOLD = 3             # and its reply has been read: there is no other, whatever the count of replies
    ASKED_DOUBT = 4            # any may be

cdef enum:  # Secret: bits of Session.secret
    SECRET_BEGUN = 1           # AUTH was begun: what is no command may be a part of it
    SECRET_SAID = 2            # ever: a server may repeat it in any reply

# What a session has come to, in few octets: all that is left between two lines with nothing outstanding.
cdef struct Session:
    Tally tally                # of its findings
    uint64_t found             # bits of the findings in what the client has said since its last record
    uint32_t recipients
    uint32_t invalid_recipients
    uint8_t state              # smtp.states.State
    uint8_t greeted            # the greeting is not outstanding any more
    uint8_t secret             # Secret
    uint8_t ehlo_restored      # ever
    uint8_t asked              # Asked
    uint8_t noop_seen          # CSCdk46673: what matters to the next message
    uint8_t offered_chunking   # CHUNK_REFUSED: and the last reply refused one
    uint8_t hypothetical

# What is being said: lent while a line is open, a reply outstanding or a message on its way.
cdef struct Dialogue:
    Dialogue *older            # of those that are listed
    Dialogue *newer
    void *flow                 # whose it is
    uint64_t since             # nanoseconds: since then its flow's receivers have taken little
    uint64_t taken             # bytes, that little
    uint64_t bytes             # of memory that its flow has, this dialogue counted
    uint64_t charged           # of them, those on its source's account
    Line *command              # NULL between lines
    Line *reply
    uint8_t *more              # the outstanding commands when they are more than `few` holds
    uint64_t message_octets
    uint64_t chunk_left
    uint64_t line_offset       # stream offset of the command line's first octet
    uint64_t reply_offset      # of the reply line's
    uint32_t line_length
    uint32_t data_line_length
    uint32_t address_length
    uint32_t part_octets       # of the header, then of the body, of whole lines
    uint32_t part_line         # of the line that is not whole
    uint32_t mime_count        # octets of the field's or the file's name so far
    uint16_t to_fields
    uint16_t first             # index of the oldest outstanding command
    uint16_t count
    uint16_t capacity          # of `more`
    uint16_t waiting           # replies to come before the client may go on
    uint16_t greetings         # of the outstanding commands, those that begin the session anew
    uint16_t recipients        # and those that add one
    uint16_t code
    uint16_t first_code        # of the reply that is coming in
    uint16_t reply_column
    uint16_t verb_length
    uint8_t few[16]
    uint8_t input              # Input
    uint8_t phase              # Phase
    uint8_t leading            # the verb has only space and control octets so far
    uint8_t fate               # what becomes of the verb being read
    uint8_t verb
    uint8_t denied
    uint8_t mask_rest          # the rest of the line becomes letters
    uint8_t after_cr
    uint8_t address_phase
    uint8_t bracket
    uint8_t reported           # bits of Reported: findings already made in this line
    uint8_t data_state         # DataState
    uint8_t header
    uint8_t mime               # of a header's field: what its next octet belongs to
    uint8_t part_body          # the header has ended
    uint8_t part_cr            # the line is a CR so far
    uint8_t part_name          # octets of "To:" the line begins with; 4: not with it
    uint8_t part_reported
    uint8_t mime_header        # in a header, the message's or a part's
    uint8_t mime_line
    uint8_t mime_which
    uint8_t mime_counting      # the parameter is a file's name
    uint8_t mime_reported      # in this field
    uint8_t mime_name_length
    uint8_t mime_name[8]
    uint8_t tail[8]            # the last octets of a line with a secret, upper case
    uint8_t tls_checked
    uint8_t impatient          # the client did not wait; reported
    uint8_t body_as_commands   # the message is read as lines of commands
    uint8_t ends_kept          # of this message
    uint8_t text_octet         # the last octet of the message so far
    uint8_t text_reported      # bits of what has been reported in this message
    uint8_t last_chunk
    uint8_t malformed          # the reply line being read
    uint8_t reply_line
    uint8_t reply_junk         # a line has come that is no reply's, and clients may count as the reply's first
    uint8_t reply_cr           # a CR was the segment's last octet
    uint8_t masked_lines
    uint8_t came_masked        # the letter, from 0, that the next line masked upstream has at least
    uint8_t keyword_fate
    uint8_t answers_ehlo       # Answers: the reply line being read may
    uint8_t listed

# What the engine lends for one call; `edits` and `verdict` are the answer.
cdef struct Scene:
    Grammar *grammar
    Ruling *ruling
    Ring *ring
    Lender *lender
    Identity *identity
    Session *session
    uint64_t *finding_counts
    uint64_t *repeated         # counts the findings that are not told
    uint32_t *junk             # commands since the last message that was accepted which led to nothing
    uint64_t *omitted          # counts the records that are not made any more, for so many of them
    uint64_t now
    const uint8_t *octets      # the `length` octets to decide
    uint8_t *came              # room for them as they came; filled when the first is changed
    uint32_t length
    uint32_t number            # of the finding to be reported, where no flow has a tally; or TALLY_NONE
    uint32_t edits             # octets changed, or that would have been
    uint8_t verdict            # ACTION_PASS, or the action that ends the flow
    uint8_t not_smtp
    uint8_t untold             # UNTOLD where it is more than the ruling's limit, as then of any command
    uint8_t gone               # the octets have left already: not one is decided that should have waited

# A session that waits for its greeting.
cdef void session_open(Session *session, Grammar *grammar) noexcept nogil
cdef void lender_open(Lender *lender, Pool *pool) noexcept nogil
cdef void lender_close(Lender *lender) noexcept nogil
# A dialogue for a session that has none, or NULL without memory.
cdef Dialogue *dialogue_lend(Lender *lender, Session *session, Grammar *grammar) noexcept nogil
# Lists it as the newest; takes it out of the list.
cdef void dialogue_list(Lender *lender, Dialogue *dialogue) noexcept nogil
cdef void dialogue_unlist(Lender *lender, Dialogue *dialogue) noexcept nogil
# Gives it back where nothing is being said, or anyway.
cdef void dialogue_rest(Lender *lender, Session *session, Dialogue **dialogue) noexcept nogil
cdef void dialogue_close(Lender *lender, Dialogue **dialogue) noexcept nogil
# No memory for what has to be remembered of a dialogue: the ruling's word is in scene.verdict.
cdef void out_of_memory(Scene *scene, bint to_server, uint64_t offset) noexcept nogil
# The command whose reply has to be waited for, when `waiting`.
cdef uint8_t awaited_verb(Dialogue *dialogue) noexcept nogil
# No reply is awaited any more.
cdef void answer_all(Scene *scene, Dialogue *dialogue) noexcept nogil
# Of how many outstanding commands there is memory.
cdef inline uint32_t ring_size(const Dialogue *dialogue) noexcept nogil:
    return sizeof(dialogue.few) if dialogue.more == NULL else dialogue.capacity

# The reply to `verb`, the oldest outstanding command, has come.
cdef inline void answer_oldest(Scene *scene, Dialogue *dialogue, uint8_t verb) noexcept nogil:
    if dialogue.count <= 1:
        answer_all(scene, dialogue)
        return
    dialogue.greetings -= begins_anew(verb)
    dialogue.recipients -= verb == VERB_RCPT
    dialogue.first += 1
    if dialogue.first == ring_size(dialogue):
        dialogue.first = 0
    dialogue.count -= 1
    if dialogue.waiting:
        dialogue.waiting -= 1
        dialogue.impatient &= dialogue.waiting != 0

# Whether one more command may be outstanding, and has memory.
cdef inline bint has_room(Scene *scene, const Dialogue *dialogue) noexcept nogil:
    return dialogue.count < ring_size(dialogue) and dialogue.count < scene.ruling.outstanding_commands

# Puts a command behind the outstanding ones, which have room.
cdef inline void add_reply(Scene *scene, Dialogue *dialogue, uint8_t verb) noexcept nogil:
    cdef uint32_t place = dialogue.first + dialogue.count, size = ring_size(dialogue)
    if place >= size:
        place -= size
    verb |= scene.untold
    if dialogue.more == NULL:
        dialogue.few[place] = verb
    else:
        dialogue.more[place] = verb
    dialogue.count += 1

# As expect_reply, where there is no room left.
cdef bint expect_one_more(Scene *scene, Dialogue *dialogue, uint8_t verb, uint64_t offset) noexcept nogil
# A command line has ended: its reply is awaited. False when there are too many (reported).
cdef inline bint expect_reply(Scene *scene, Dialogue *dialogue, uint8_t verb, uint64_t offset) noexcept nogil:
    if not has_room(scene, dialogue):
        return expect_one_more(scene, dialogue, verb, offset)
    add_reply(scene, dialogue, verb)
    dialogue.greetings += begins_anew(verb)
    dialogue.recipients += verb == VERB_RCPT
    return True

# The verb the reply that is coming in answers; VERB_UNKNOWN when nothing is outstanding.
cdef inline uint8_t expected_verb(const Dialogue *dialogue) noexcept nogil:
    if dialogue.count == 0:
        return VERB_UNKNOWN
    return (dialogue.more[dialogue.first] if dialogue.more != NULL else dialogue.few[dialogue.first]) & ~UNTOLD

# As note_asked, where the verb's octets may be EHLO to some servers.
cdef void note_ehlo(Session *session, Dialogue *dialogue, uint8_t verb, const uint8_t *octets,
                    uint32_t length) noexcept nogil
# A command line has ended, before its reply is expected: which replies may now be one to an EHLO.
# `verb`: as it passed; the verb's own octets tell what a server may read.
cdef inline void note_asked(Session *session, Dialogue *dialogue, uint8_t verb, const uint8_t *octets,
                            uint32_t length) noexcept nogil:
    if length and (octets[0] <= 32 or octets[0] | 32 == c"e"):
        note_ehlo(session, dialogue, verb, octets, length)
    elif session.asked == ASKED_NOTHING:
        session.asked = ASKED_OTHER

# Whether a reply that has begun, of several lines, may be the one to an EHLO.
cdef inline bint may_answer_ehlo(Session *session, Dialogue *dialogue) noexcept nogil:
    return session.asked == ASKED_EHLO or session.asked == ASKED_DOUBT or (
        session.asked == ASKED_TOLD and dialogue.count == 0)

# How much of a reply's text may be shown.
cdef inline uint32_t shown_of_reply(Scene *scene, uint8_t verb, uint32_t length) noexcept nogil:
    # Some servers repeat what they do not understand.
    if scene.session.secret and (scene.session.secret & SECRET_BEGUN or (
            verb != scene.grammar.verb_end_of_data and verb != VERB_BDAT)):
        return 0
    return length

# A command has been answered, and led to nothing.
cdef inline void note_junk(Scene *scene, uint64_t offset) noexcept nogil:
    if not scene.untold:
        scene.junk[0] += 1
        if scene.junk[0] > scene.ruling.junk_commands:
            scene.untold = UNTOLD
            report(scene, COMMAND_TOO_MANY_JUNK, False, VERB_UNKNOWN, offset, NULL, 0, NULL, 0)

# A reply to `verb` that is but an answer: moves the session by the table, and tells; `length` of its text.
cdef void note_reply(Scene *scene, Dialogue *dialogue, uint8_t verb, const uint8_t *text, uint32_t length,
                     uint64_t offset) noexcept nogil
# A reply is complete, `text` its last line: matches it and moves the session by the table.
cdef void settle_reply(Scene *scene, Dialogue *dialogue, const uint8_t *text, uint32_t length,
                       uint64_t offset) noexcept nogil
# Reports a finding and returns the action to carry out: ACTION_PASS when not applied. An action
# that ends the flow also stands in scene.verdict.
cdef uint8_t report(Scene *scene, uint8_t finding, bint to_server, uint8_t verb, uint64_t offset,
                    const uint8_t *before, uint32_t before_length,
                    const uint8_t *after, uint32_t after_length) noexcept nogil
# At a flow's end: of each kind of which there were more than has been told, how many.
cdef void report_repeated(Scene *scene) noexcept nogil
# The client's next octets are a message's.
cdef void begin_message(Dialogue *dialogue) noexcept nogil
# The call is over: nothing is left over but what a dialogue has.
cdef inline void lender_settle(Lender *lender) noexcept nogil:
    if lender.spare != NULL:
        shelf_give(&lender.lines, lender.spare)
        lender.spare = NULL

# An empty line, or NULL without memory; every line lent is given back at its end.
cdef inline Line *lend_line(Lender *lender) noexcept nogil:
    cdef Line *line = lender.spare
    if line != NULL:
        lender.spare = NULL
    else:
        line = <Line *> shelf_lend(&lender.lines)
    if line != NULL:
        line.length = 0
        line.sent = 0
    return line

cdef inline void give_line(Lender *lender, Line **line) noexcept nogil:
    if line[0] != NULL:
        lender_settle(lender)
        lender.spare = line[0]
        line[0] = NULL


# What becomes of a finding's octets: ACTION_PASS when not applied. One that ends the flow is the verdict.
cdef inline uint8_t carried_out(Scene *scene, uint8_t action) noexcept nogil:
    if not scene.ruling.apply:
        # What enforce would have done sends the dialogue another way from here on.
        scene.session.hypothetical |= action != ACTION_LOG
        return ACTION_PASS
    if action >= ACTION_DROP_CONNECTION:
        scene.verdict = action
    return action

# As `report`, for a finding that repeats and is not told: nobody need make up what it would say. Any
# other it leaves alone, and is NOT_AGAIN.
cdef inline uint8_t again(Scene *scene, uint8_t finding, bint to_server) noexcept nogil:
    cdef uint8_t action = scene.ruling.action[finding]
    if action == ACTION_PASS:
        return ACTION_PASS
    if not tally_repeats(&scene.session.tally, finding, scene.ruling.findings_told):
        return NOT_AGAIN
    scene.finding_counts[finding] += 1
    scene.repeated[0] += 1
    if to_server:
        scene.session.found |= <uint64_t> 1 << finding
    return carried_out(scene, action)

# Whether so many more findings of a kind are told nobody and end nothing: `repeat` may count them.
cdef inline bint quiet(Scene *scene, uint8_t finding, uint32_t number) noexcept nogil:
    cdef uint8_t action = scene.ruling.action[finding]
    if number == 1:
        return action == ACTION_PASS or (action < ACTION_DROP and tally_repeats_next(
            &scene.session.tally, finding, scene.ruling.findings_told))
    return action == ACTION_PASS or (action < ACTION_DROP and tally_untold(
        &scene.session.tally, finding, scene.ruling.findings_told) >= number)

cdef inline void repeat(Scene *scene, uint8_t finding, uint32_t number, bint to_server) noexcept nogil:
    if scene.ruling.action[finding] == ACTION_PASS:
        return
    tally_repeat(&scene.session.tally, finding, number)
    scene.finding_counts[finding] += number
    scene.repeated[0] += number
    if to_server:
        scene.session.found |= <uint64_t> 1 << finding
    carried_out(scene, scene.ruling.action[finding])

# Before an octet is changed.
cdef inline void note_change(Scene *scene) noexcept nogil:
    if scene.edits == 0 and scene.length:
        memcpy(scene.came, scene.octets, scene.length)
    scene.edits += 1

cdef inline void line_add(Line *line, uint8_t octet) noexcept nogil:
    if line.length < LINE_OCTETS:
        line.octets[line.length] = octet
        line.length += 1

cdef inline bint begins_anew(uint8_t verb) noexcept nogil:
    # RFC 5321 4.1.1.1; Postfix, XCLIENT_README. What EHLO offered holds no more.
    return verb == VERB_HELO or verb == VERB_EHLO or verb == VERB_XCLIENT

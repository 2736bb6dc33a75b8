# cython: language_level=3
"""Fills the core's arrays from plain Python tables, and checks that both sides number alike.

Promises: ValueError for a table the arrays cannot hold; nothing half-filled is ever
used. The tables are made by ``nfmailguard.engine``, which is where the models meet
the core.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from nfmailguard.cext.core cimport MOST_RULES, Core, Rule
from nfmailguard.cext.flow cimport AGES
from nfmailguard.cext.network cimport Network
from nfmailguard.cext.smtp cimport (
    ACTION_RESET,
    ADDRESS_ILLEGAL_CHARACTER,
    BANNER_BASA,
    COMMAND_DENIED,
    COMMAND_LINE_CUT,
    COMMAND_TOO_MANY_JUNK,
    DATA_NUL,
    FORM_OK,
    INPUT_OPAQUE,
    LINE_OCTETS,
    MOST_FINDINGS,
    MOST_KEYWORDS,
    MOST_VERBS,
    NAME_OCTETS,
    PACKET_OTHER_CONNECTION,
    PACKET_WRONG_INTERFACE,
    RESTORE_COMMANDS,
    RESTORE_NOT_RECOVERABLE,
    RESTORE_REPLIES,
    VERB_BDAT,
    VERB_DATA,
    VERB_EHLO,
    VERB_MAIL,
    VERB_NOOP,
    VERB_RCPT,
    VERB_RSET,
    VERB_XCLIENT,
    begins_anew,
    Grammar,
    Listing,
    Name,
    Ruling,
)

#: What the core's enums say; the Python tables must number alike.
NUMBERS = {
    "EHLO": VERB_EHLO, "MAIL": VERB_MAIL, "RCPT": VERB_RCPT, "DATA": VERB_DATA, "RSET": VERB_RSET, "BDAT": VERB_BDAT,
    "command.denied": COMMAND_DENIED, "address.illegal_character": ADDRESS_ILLEGAL_CHARACTER,
    "data.nul": DATA_NUL, "packet.wrong_interface": PACKET_WRONG_INTERFACE,
    "restore.not_recoverable": RESTORE_NOT_RECOVERABLE, "restore commands": RESTORE_COMMANDS,
    "restore replies": RESTORE_REPLIES, "reset": ACTION_RESET, "ok": FORM_OK,
    "NOOP": VERB_NOOP, "XCLIENT": VERB_XCLIENT,
    "command.line_cut": COMMAND_LINE_CUT, "command.too_many_junk": COMMAND_TOO_MANY_JUNK,
    "packet.other_connection": PACKET_OTHER_CONNECTION,
    "basa": BANNER_BASA, "OPAQUE": INPUT_OPAQUE,
}


cdef int set_name(Name *name, str text) except -1:
    cdef bytes octets = text.encode("ascii").upper()
    if not 0 < len(octets) <= NAME_OCTETS:
        raise ValueError(f"{text!r}: a verb or keyword has 1 to {NAME_OCTETS} octets")
    memcpy(name.octets, <const char *> octets, len(octets))
    name.length = <uint8_t> len(octets)
    return 0


cdef int load_grammar(Grammar *grammar, dict tables) except -1:
    cdef int state, verb, digit, place
    cdef uint8_t octet
    cdef uint8_t *first_of
    verbs = tables["verbs"]                        # (name, argument, waits, reads, continues, long)
    if len(verbs) > MOST_VERBS:
        raise ValueError(f"{len(verbs)} verbs; the core holds {MOST_VERBS}")
    grammar.verb_count = len(verbs)
    for verb, (name, argument, waits, reads, continues, long_line) in enumerate(verbs):
        if name and not name.startswith("<"):
            set_name(&grammar.verbs[verb], name)
        grammar.argument[verb] = argument
        grammar.waits[verb] = waits
        grammar.reads[verb] = reads
        grammar.continues[verb] = continues
        grammar.long_line[verb] = long_line
        grammar.told[verb] = tables["told"][verb]
    for verb in range(<int> grammar.verb_count - 1, 0, -1):
        if grammar.verbs[verb].length:
            grammar.next_verb[verb] = grammar.first_verb[grammar.verbs[verb].octets[0]]
            grammar.first_verb[grammar.verbs[verb].octets[0]] = <uint8_t> verb
            first_of = &grammar.first_of[grammar.verbs[verb].octets[0] & 31][grammar.verbs[verb].length]
            grammar.next_of[verb] = first_of[0]
            first_of[0] = <uint8_t> verb
            for place in range(4):
                octet = grammar.verbs[verb].octets[place] if place < grammar.verbs[verb].length else 0
                (<uint8_t *> &grammar.first_four[verb])[place] = octet
                (<uint8_t *> &grammar.first_mask[verb])[place] = 0xdf if c"A" <= octet <= c"Z" else 0xff
    grammar.verb_end_of_data = tables["end_of_data"]
    grammar.verb_empty = tables["empty"]
    grammar.verb_greeting = tables["greeting"]
    grammar.verb_masked = tables["masked"]
    grammar.verb_dot = tables["dot"]
    for verb in range(<int> grammar.verb_count):
        grammar.answered[verb] = (
            grammar.continues[verb] == 0 and verb != VERB_EHLO and verb != grammar.verb_greeting)
        grammar.dull[verb] = not (
            grammar.waits[verb] or grammar.continues[verb] or begins_anew(<uint8_t> verb)
            or verb in (VERB_MAIL, VERB_RCPT, VERB_DATA, VERB_RSET, VERB_BDAT, grammar.verb_end_of_data))
    grammar.state_connect = tables["connect"]
    grammar.state_greeted = tables["greeted"]
    grammar.state_ready = tables["ready"]
    for state in tables["takes_chunk"]:
        grammar.takes_chunk[<int> state] = 1
    for state, by_verb in enumerate(tables["next_state"]):
        for verb, by_digit in enumerate(by_verb):
            for digit, after in enumerate(by_digit):
                grammar.next_state[state][verb][digit] = after
    return 0


cdef int load_listing(Listing *listing, dict table) except -1:
    cdef int i
    cdef bytes text
    listing.servers = load_networks(table["servers"])
    listing.server_count = len(table["servers"])
    listing.digits = table["digits"]
    text = table["banner"]
    if len(text) > LINE_OCTETS or len(table["candidates"]) > MOST_KEYWORDS:
        raise ValueError(f"a greeting has at most {LINE_OCTETS} octets, an EHLO reply {MOST_KEYWORDS} lines")
    listing.banner_length = len(text)
    memcpy(listing.banner, <const char *> text, len(text))
    listing.count = len(table["candidates"])
    for i, (text, restored) in enumerate(table["candidates"]):
        if not 0 < len(text) < LINE_OCTETS:
            raise ValueError(f"{text!r}: a line of an EHLO reply has 1 to {LINE_OCTETS - 1} octets here")
        memcpy(listing.candidates[i].octets, <const char *> text, len(text))
        listing.candidates[i].length = <uint8_t> len(text)
        listing.candidates[i].restored = restored
    return 0


cdef int load_ruling(Ruling *ruling, dict table) except -1:
    cdef int i
    ruling.apply = table["apply"]
    ruling.hold = table["hold"]
    for i, action in enumerate(table["actions"]):
        if i >= MOST_FINDINGS:
            raise ValueError(f"more than {MOST_FINDINGS} findings")
        ruling.action[i] = action
    for i, allowed in enumerate(table["allow"]):
        ruling.allow[i] = allowed
    ruling.unknown = table["unknown"]
    ruling.letter = ord(table["letter"])
    ruling.faithful = table["faithful"]
    ruling.banner = table["banner"]
    ruling.banner_separator = table["banner_separator"]
    ruling.banner_dash = table["banner_dash"]
    ruling.mask_ehlo = table["mask_ehlo"]
    ruling.hide = table["hide"]
    ruling.restore = table["restore"]
    ruling.restore_starttls = table["restore_starttls"]
    ruling.restore_auth = table["restore_auth"]
    ruling.restore_noop = table["restore_noop"]
    ruling.keep_end = table["keep_end"]
    for octet in table["illegal"]:
        ruling.illegal[<uint8_t> octet] = 1
    for octet in table["keyword_end"]:
        ruling.keyword_end[<uint8_t> octet] = 1
    ruling.brackets = table["brackets"]
    ruling.seven_bits = table["seven_bits"]
    ruling.bug_dot_crlf = table["bug_dot_crlf"]
    ruling.bug_data_bypass = table["bug_data_bypass"]
    ruling.bug_noop_body = table["bug_noop_body"]
    ruling.internal_error = table["internal_error"]
    ruling.midstream_at_start = table["midstream_at_start"]
    ruling.line_length = table["line_length"]
    ruling.longest_line = table["longest_line"]
    ruling.longest_parameters = table["longest_parameters"]
    ruling.longest_secret = table["longest_secret"]
    for cut in table["cuts"]:
        ruling.cuts[<uint32_t> cut >> 3] |= <uint8_t> (1 << (<uint32_t> cut & 7))
    ruling.near_length = table["near_length"]
    ruling.sender_length = table["sender_length"]
    ruling.recipients = table["recipients"]
    ruling.header_line_length = table["header_line_length"]
    ruling.body_line_length = table["body_line_length"]
    ruling.filename_length = table["filename_length"]
    ruling.header_length = table["header_length"]
    ruling.body_length = table["body_length"]
    ruling.to_fields = table["to_fields"]
    ruling.invalid_recipients = table["invalid_recipients"]
    ruling.outstanding_commands = table["outstanding_commands"]
    ruling.junk_commands = table["junk_commands"]
    ruling.findings_told = table["findings_told"]
    if len(table["keywords"]) > MOST_KEYWORDS:
        raise ValueError(f"more than {MOST_KEYWORDS} EHLO keywords")
    ruling.keyword_count = len(table["keywords"])
    for i, keyword in enumerate(table["keywords"]):
        set_name(&ruling.keywords[i], keyword)
    if table["listings"]:
        ruling.listings = <Listing *> calloc(len(table["listings"]), sizeof(Listing))
        if ruling.listings == NULL:
            raise MemoryError
        for i, listing in enumerate(table["listings"]):
            ruling.listing_count = i + 1
            load_listing(&ruling.listings[i], listing)
    return 0


cdef Network *load_networks(list networks) except? NULL:
    cdef Network *out
    cdef int i
    cdef bytes octets
    if not networks:
        return NULL
    out = <Network *> calloc(len(networks), sizeof(Network))
    if out == NULL:
        raise MemoryError
    for i, (octets, bits) in enumerate(networks):
        memcpy(out[i].octets, <const char *> octets, len(octets))
        out[i].family = 4 if len(octets) == 4 else 6
        out[i].bits = bits
    return out


cdef int load_rule(Rule *rule, dict table) except -1:
    cdef int i
    memset(rule, 0, sizeof(Rule))
    load_ruling(&rule.ruling, table["ruling"])
    rule.sources = load_networks(table["sources"])
    rule.source_count = len(table["sources"])
    rule.destinations = load_networks(table["destinations"])
    rule.destination_count = len(table["destinations"])
    rule.interface = table["interface"]
    rule.port_count = len(table["ports"])
    if rule.port_count:
        rule.ports = <uint16_t *> calloc(rule.port_count, sizeof(uint16_t))
        if rule.ports == NULL:
            raise MemoryError
        for i, port in enumerate(table["ports"]):
            rule.ports[i] = port
    return 0


cdef int load_tables(Core *core, dict tables) except -1:
    cdef uint32_t i
    for name, number in NUMBERS.items():
        if tables["numbers"][name] != number:
            raise ValueError(f"{name} is {tables['numbers'][name]} in Python and {number} in the core")
    load_grammar(&core.grammar, tables)
    if not 0 < len(tables["rules"]) <= MOST_RULES:
        raise ValueError(f"{len(tables['rules'])} rules; the core takes 1 to {MOST_RULES}")
    for i, table in enumerate(tables["rules"]):
        core.rule_count = i + 1
        load_rule(&core.rules[i], table)
    for port in tables["ports"]:
        core.ports[<uint32_t> port >> 3] |= 1 << (<uint32_t> port & 7)
    for i in range(AGES):
        core.timeout[i] = tables["timeouts"][i]
    core.held_timeout = tables["held_timeout"]
    core.stalled_timeout = tables["stalled_timeout"]
    core.startup = tables["startup"]
    core.cookie_life = tables["cookie_life"]
    core.held_limit = tables["held_limit"]
    core.held_flow_limit = tables["held_flow_limit"]
    core.held_source_limit = tables["held_source_limit"]
    core.pending_limit = tables["pending_limit"]
    core.can_hold = tables["can_hold"]
    core.offload = tables["offload"]
    core.pool.limit = tables["memory"]
    return 0


cdef void free_tables(Core *core) noexcept:
    cdef uint32_t i, j
    cdef Ruling *ruling
    for i in range(core.rule_count):
        ruling = &core.rules[i].ruling
        for j in range(ruling.listing_count):
            free(ruling.listings[j].servers)
        free(ruling.listings)
        free(core.rules[i].sources)
        free(core.rules[i].destinations)
        free(core.rules[i].ports)

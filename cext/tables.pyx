# cython: language_level=3
"""Fills a generation's arrays from Python tables, and checks that Python and the core use the same numbers.

Promises: ValueError for a table that does not fit the arrays; nothing half-filled is ever
used. The tables are made by ``nfmailguard.engine``, where the Python models are turned into
the core's form.
"""

from libc.stdint cimport uint16_t, uint32_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from nfmailguard.cext.core cimport Rule, Settings
from nfmailguard.cext.flow.table cimport FLOW_STATES
from nfmailguard.cext.policy.network cimport Network
from nfmailguard.cext.policy.numbers cimport (
    ACTION_BLANK, ACTION_RESET, ADDRESS_ILLEGAL_CHARACTER, BANNER_BASA, COMMAND_DENIED, COMMAND_LINE_CUT, COMMAND_NUL,
    COMMAND_TOO_MANY_JUNK,
    DATA_NUL, FORM_OK, LINE_BYTES_SHOWN, MOST_FINDINGS, MOST_KEYWORDS, MOST_VERBS, PACKET_OTHER_CONNECTION,
    PACKET_WRONG_INTERFACE, RESTORE_NOT_RECOVERABLE, VERB_BDAT, VERB_DATA, VERB_EHLO, VERB_MAIL, VERB_NOOP,
    VERB_RCPT, VERB_RSET, VERB_UNKNOWN, VERB_XCLIENT,
)
from nfmailguard.cext.policy.ruling cimport (
    ADDRESS_CLOSES, ADDRESS_ILLEGAL, ADDRESS_OPENS, CONDUCT_EDIT, CONDUCT_GATE, CONDUCT_WATCH, RESTORE_COMMANDS,
    RESTORE_REPLIES, CompiledPolicy, Listing, applies,
)
from nfmailguard.cext.record cimport MOST_RULES
from nfmailguard.cext.smtp.grammar cimport (
    ARGUMENT_IGNORED, ARGUMENT_RECIPIENT, ARGUMENT_SECRET, ARGUMENT_SENDER, INPUT_OPAQUE, TRAIT_ADDRESS, TRAIT_ANEW,
    TRAIT_ANSWERED, TRAIT_FREE, TRAIT_PLAIN, TRAIT_SECRET, TRAIT_RECORDED, TRAIT_SENDER, TRAIT_UNREMARKABLE,
    TRAIT_WAITS, Grammar,
)
from nfmailguard.cext.smtp.name cimport NAME_BYTES, Name
from nfmailguard.cext.smtp.outstanding cimport begins_anew

#: Numbers of the core's enums; the Python tables must have the same.
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
    "watch": CONDUCT_WATCH, "edit": CONDUCT_EDIT, "gate": CONDUCT_GATE,
}


cdef int set_name(Name *name, str text) except -1:
    cdef bytes data = text.encode("ascii").upper()
    if not 0 < len(data) <= NAME_BYTES:
        raise ValueError(f"{text!r}: a verb or keyword has 1 to {NAME_BYTES} octets")
    memcpy(name.data, <const char *> data, len(data))
    name.length = <uint8_t> len(data)
    return 0


cdef uint16_t traits_of(const Grammar *grammar, uint8_t verb, bint waits, bint recorded):
    cdef uint16_t traits = TRAIT_RECORDED * recorded | TRAIT_WAITS * waits | TRAIT_ANEW * begins_anew(verb)
    cdef uint8_t argument = grammar.argument[verb]
    if argument == ARGUMENT_SENDER:
        traits |= TRAIT_ADDRESS | TRAIT_SENDER
    if argument == ARGUMENT_RECIPIENT:
        traits |= TRAIT_ADDRESS
    if argument == ARGUMENT_SECRET:
        traits |= TRAIT_SECRET
    if argument == ARGUMENT_IGNORED:
        traits |= TRAIT_FREE
    if grammar.continues[verb] in (0, 334, 354) and verb != VERB_EHLO and verb != grammar.verb_greeting:
        traits |= TRAIT_ANSWERED
    if not (waits or grammar.continues[verb] or begins_anew(verb) or traits & TRAIT_ADDRESS
            or verb in (VERB_DATA, VERB_RSET, VERB_BDAT, grammar.verb_end_of_data)):
        traits |= TRAIT_UNREMARKABLE
    if (traits & TRAIT_UNREMARKABLE or verb in (VERB_MAIL, VERB_RCPT, VERB_RSET) or waits != begins_anew(verb)) and (
            verb != VERB_UNKNOWN and verb != grammar.verb_dot):
        traits |= TRAIT_PLAIN
    return traits


cdef int load_grammar(Grammar *grammar, dict tables) except -1:
    cdef int state, verb, digit, place
    cdef uint8_t byte
    cdef uint8_t *first_of
    # for each verb a tuple (name, argument, waits, reads, continues, long)
    verbs = tables["verbs"]
    if len(verbs) > MOST_VERBS:
        raise ValueError(f"{len(verbs)} verbs; the core holds {MOST_VERBS}")
    grammar.verb_count = len(verbs)
    for verb, (name, argument, waits, reads, continues, long_line) in enumerate(verbs):
        if name and not name.startswith("<"):
            set_name(&grammar.verbs[verb], name)
        grammar.argument[verb] = argument
        grammar.reads[verb] = reads
        grammar.continues[verb] = continues
        grammar.long_line[verb] = long_line
    for verb in range(<int> grammar.verb_count - 1, 0, -1):
        if grammar.verbs[verb].length:
            grammar.next_verb[verb] = grammar.first_verb[grammar.verbs[verb].data[0]]
            grammar.first_verb[grammar.verbs[verb].data[0]] = <uint8_t> verb
            first_of = &grammar.first_of[grammar.verbs[verb].data[0] & 31][grammar.verbs[verb].length]
            grammar.next_of[verb] = first_of[0]
            first_of[0] = <uint8_t> verb
            for place in range(4):
                byte = grammar.verbs[verb].data[place] if place < grammar.verbs[verb].length else 0
                (<uint8_t *> &grammar.first_four[verb])[place] = byte
                (<uint8_t *> &grammar.first_mask[verb])[place] = 0xdf if c"A" <= byte <= c"Z" else 0xff
    grammar.verb_end_of_data = tables["end_of_data"]
    grammar.verb_empty = tables["empty"]
    grammar.verb_greeting = tables["greeting"]
    grammar.verb_masked = tables["masked"]
    grammar.verb_dot = tables["dot"]
    for verb, (_, _, waits, _, _, _) in enumerate(verbs):
        grammar.traits[verb] = traits_of(grammar, <uint8_t> verb, waits, tables["told"][verb])
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
    listing.spaces = table["spaces"]
    text = table["banner"]
    if len(text) > LINE_BYTES_SHOWN or len(table["candidates"]) > MOST_KEYWORDS:
        raise ValueError(f"a greeting has at most {LINE_BYTES_SHOWN} octets, an EHLO reply {MOST_KEYWORDS} lines")
    listing.banner_length = len(text)
    memcpy(listing.banner, <const char *> text, len(text))
    listing.count = len(table["candidates"])
    for i, (text, restored) in enumerate(table["candidates"]):
        if not 0 < len(text) < LINE_BYTES_SHOWN:
            raise ValueError(f"{text!r}: a line of an EHLO reply has 1 to {LINE_BYTES_SHOWN - 1} octets here")
        memcpy(listing.candidates[i].data, <const char *> text, len(text))
        listing.candidates[i].length = <uint8_t> len(text)
        listing.candidates[i].restored = restored
    return 0


cdef int load_bytes(CompiledPolicy *policy, dict table) except -1:
    """Fills the tables of what single bytes mean."""
    for byte in table["illegal"]:
        policy.address_byte[<uint8_t> byte] = ADDRESS_ILLEGAL
    for byte in table["keyword_end"]:
        policy.keyword_end[<uint8_t> byte] = 1
    # In addresses a LF, and a NUL where it is blanked, is treated like the space that replaces it.
    policy.address_byte[10] = policy.address_byte[32]
    if applies(policy) and policy.action[COMMAND_NUL] == ACTION_BLANK:
        policy.address_byte[0] = policy.address_byte[32]
    if table["brackets"]:
        policy.address_byte[<uint8_t> c"<"] |= ADDRESS_OPENS
        policy.address_byte[<uint8_t> c">"] |= ADDRESS_CLOSES
    return 0


cdef int load_limits(CompiledPolicy *policy, dict table) except -1:
    """Copies the limits: lengths in bytes, and counts; 0: no limit."""
    policy.line_length = table["line_length"]
    policy.longest_line = table["longest_line"]
    policy.longest_parameters = table["longest_parameters"]
    policy.longest_secret = table["longest_secret"]
    for cut in table["cuts"]:
        policy.cuts[<uint32_t> cut >> 3] |= <uint8_t> (1 << (<uint32_t> cut & 7))
    policy.near_length = table["near_length"]
    policy.sender_length = table["sender_length"]
    policy.recipients = table["recipients"]
    policy.header_line_length = table["header_line_length"]
    policy.body_line_length = table["body_line_length"]
    policy.filename_length = table["filename_length"]
    policy.header_length = table["header_length"]
    policy.body_length = table["body_length"]
    policy.to_fields = table["to_fields"]
    policy.invalid_recipients = table["invalid_recipients"]
    policy.outstanding_commands = table["outstanding_commands"]
    policy.junk_commands = table["junk_commands"]
    policy.findings_told = table["findings_told"]
    return 0


cdef int load_keywords(CompiledPolicy *policy, dict table) except -1:
    """Copies the EHLO keywords that pass (with ``hide``: that are masked), and replies to restore masked lines from."""
    cdef int i
    if len(table["keywords"]) > MOST_KEYWORDS:
        raise ValueError(f"more than {MOST_KEYWORDS} EHLO keywords")
    policy.keyword_count = len(table["keywords"])
    for i, keyword in enumerate(table["keywords"]):
        set_name(&policy.keywords[i], keyword)
    if table["listings"]:
        policy.listings = <Listing *> calloc(len(table["listings"]), sizeof(Listing))
        if policy.listings == NULL:
            raise MemoryError
        for i, listing in enumerate(table["listings"]):
            policy.listing_count = i + 1
            load_listing(&policy.listings[i], listing)
    return 0


cdef int load_policy(CompiledPolicy *policy, dict table) except -1:
    cdef int i
    policy.conduct = table["conduct"]
    for i, action in enumerate(table["actions"]):
        if i >= MOST_FINDINGS:
            raise ValueError(f"more than {MOST_FINDINGS} findings")
        policy.action[i] = action
    for i, allowed in enumerate(table["allow"]):
        policy.allow[i] = allowed
    policy.unknown = table["unknown"]
    policy.letter = ord(table["letter"])
    policy.per_packet = table["faithful"]
    policy.banner = table["banner"]
    policy.banner_separator = table["banner_separator"]
    policy.banner_dash = table["banner_dash"]
    policy.mask_ehlo = table["mask_ehlo"]
    policy.hide = table["hide"]
    policy.restore = table["restore"]
    policy.restore_starttls = table["restore_starttls"]
    policy.restore_auth = table["restore_auth"]
    policy.restore_noop = table["restore_noop"]
    policy.hold_end_of_data = table["keep_end"]
    policy.seven_bits = table["seven_bits"]
    policy.bug_dot_crlf = table["bug_dot_crlf"]
    policy.bug_data_bypass = table["bug_data_bypass"]
    policy.bug_noop_body = table["bug_noop_body"]
    policy.internal_error = table["internal_error"]
    policy.midstream_at_start = table["midstream_at_start"]
    load_bytes(policy, table)
    load_limits(policy, table)
    return load_keywords(policy, table)


cdef Network *load_networks(list networks) except? NULL:
    cdef Network *out
    cdef int i
    cdef bytes data
    if not networks:
        return NULL
    out = <Network *> calloc(len(networks), sizeof(Network))
    if out == NULL:
        raise MemoryError
    for i, (data, bits) in enumerate(networks):
        memcpy(out[i].data, <const char *> data, len(data))
        out[i].family = 4 if len(data) == 4 else 6
        out[i].bits = bits
    return out


cdef int load_rule(Rule *rule, dict table) except -1:
    cdef int i
    memset(rule, 0, sizeof(Rule))
    load_policy(&rule.policy, table["ruling"])
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


cdef int load_settings(Settings *settings, dict tables) except -1:
    cdef uint32_t i
    for i in range(FLOW_STATES):
        settings.timeout[i] = tables["timeouts"][i]
    settings.held_timeout = tables["held_timeout"]
    settings.stalled_timeout = tables["stalled_timeout"]
    settings.memory = tables["memory"]
    settings.held_limit = tables["held_limit"]
    settings.held_flow_limit = tables["held_flow_limit"]
    settings.held_source_limit = tables["held_source_limit"]
    settings.pending_limit = tables["pending_limit"]
    settings.source_limit = tables["flows_per_source"]
    settings.record_kinds = tables["record_kinds"]
    for port in tables["ports"]:
        settings.ports[<uint32_t> port >> 3] |= 1 << (<uint32_t> port & 7)
    return 0


cdef Generation *load_generation(dict tables) except NULL:
    cdef uint32_t i
    cdef Generation *generation
    for name, number in NUMBERS.items():
        if tables["numbers"][name] != number:
            raise ValueError(f"{name} is {tables['numbers'][name]} in Python and {number} in the core")
    if not 0 < len(tables["rules"]) <= MOST_RULES:
        raise ValueError(f"{len(tables['rules'])} rules; the core takes 1 to {MOST_RULES}")
    generation = <Generation *> calloc(1, sizeof(Generation))
    if generation == NULL:
        raise MemoryError
    try:
        generation.rules = <Rule *> calloc(len(tables["rules"]), sizeof(Rule))
        if generation.rules == NULL:
            raise MemoryError
        load_grammar(&generation.grammar, tables)
        load_settings(&generation.settings, tables)
        for i, table in enumerate(tables["rules"]):
            generation.rule_count = i + 1
            load_rule(&generation.rules[i], table)
            generation.rules[i].policy.grammar = &generation.grammar
            generation.rules[i].policy.flows = &generation.flows
            generation.rules[i].policy.apart = tables["apart"]
    except BaseException:
        free_generation(generation)
        raise
    return generation


cdef void free_generation(Generation *generation) noexcept:
    cdef uint32_t i, j
    cdef CompiledPolicy *policy
    if generation == NULL:
        return
    for i in range(generation.rule_count):
        policy = &generation.rules[i].policy
        for j in range(policy.listing_count):
            free(policy.listings[j].servers)
        free(policy.listings)
        free(generation.rules[i].sources)
        free(generation.rules[i].destinations)
        free(generation.rules[i].ports)
    free(generation.rules)
    free(generation)

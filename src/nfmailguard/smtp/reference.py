"""The reference model: takes whole dialogues, gives what the other side receives and what is found.

The executable specification. Promises: it says for every dialogue, in the simplest way we know, what the core has to
deliver and to report; it reads whole lines and knows nothing of packets except that one turn is one packet. The tests
compare the core's decisions with it for any segmentation; ``nfmailguard translate`` shows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nfmailguard.policy.model import Action, Limits, Policy, Restore, UnknownCommand
from nfmailguard.policy.restoring import recovery
from nfmailguard.smtp import secrets
from nfmailguard.smtp.masks import masked_command
from nfmailguard.smtp.measured import Rest
from nfmailguard.smtp.restore import verb_masked
from nfmailguard.smtp.session import CR, GREETINGS, LF, SPACE, UNKNOWN, Asked, Ended, Octet
from nfmailguard.smtp.texts import Texts
from nfmailguard.smtp.turns import Result, Turn
from nfmailguard.smtp.verbs import LONGEST_LINE, LONGEST_PARAMETERS, VERB_INDEX, VERBS, Argument, Input, Verb

__all__ = ["translate"]

#: Regular expression: quoted pairs and quoted strings (RFC 5321 4.1.2), in which "<", ">" or a space does not end an
#: address; also matches a quoted string or a backslash that the line's end cuts off.
_QUOTED = r'\\.|"(?:\\.|[^"\\])*"?|\\\Z'
#: FIRST_WORD matches MAIL's address when it has no angle brackets, PATHS each address in angle brackets.
FIRST_WORD = re.compile(rf'\A[^:<]*: *((?:{_QUOTED}|[^ <"\\])*)', re.DOTALL)
PATHS = re.compile(rf'<((?:{_QUOTED}|[^>"\\])*)', re.DOTALL)


class _Dialogue(Texts):
    """The client's half of a dialogue."""

    def client(self, octets: list[Octet]) -> None:
        first = True
        while octets:
            if self.input is Input.OPAQUE:
                if self.first_opaque and octets[0].value != 0x16:
                    self.report("tls.not_a_handshake", True, octets[0].offset)
                self.first_opaque = False
                return
            if self.input is Input.DATA:
                octets = self.message(octets)
            elif self.input is Input.CHUNK:
                taken = min(self.chunk_left, len(octets))
                self.chunk_left -= taken
                octets = octets[taken:]
                if not self.chunk_left:
                    self.input = Input.COMMANDS
            elif self.waiting and not self.holds:
                self.wait(octets)
                # Without holding, the bytes have already passed: they are parsed when the reply says whether they are
                # commands or data.
                self.held.insert(0, octets)
                return
            else:
                self.wait(octets)
                if self.holds and (first or not self.line) and (self.seven_bits or self.declares(octets)):
                    # The eighth bit is cleared in command lines too: what follows DATA in the packet may be message
                    # text to a server.
                    for octet in octets:
                        octet.become(octet.value & 127)
                if self.chunk_waits(octets):
                    self.waiting, self.impatient = len(self.outstanding), True
                    self.held.insert(0, octets)
                    return
                octets = self.command_octet(octets)
                first = False

    def declares(self, octets: list[Octet]) -> bool:
        """Whether a MAIL command in these bytes of a packet declares, or goes on to declare, a mail of seven bits."""
        said = bytes(octet.value & 127 for octet in octets).upper()
        line, size, verb = self.verb(self.line)
        if verb.argument is Argument.SENDER and size < len(line) and not self.masking:
            said = bytes(value & 127 for value in line[size:]).upper() + said
        return b"=7BIT" in said

    def wait(self, octets: list[Octet]) -> None:
        """Reports, once per reply, that the client has sent more although it should have waited for a reply."""
        if self.waiting and not self.impatient:
            self.impatient = True
            self.report("command.pipelined_too_far", True, octets[0].offset, self.outstanding[self.waiting - 1].name)

    def command_octet(self, octets: list[Octet]) -> list[Octet]:
        if not self.line and self.input is Input.COMMANDS and octets[0].value not in (CR, LF):
            self.restore_command(octets)
        octet, rest = octets[0], octets[1:]
        before, self.after_cr = self.after_cr, False
        if before and octet.value != LF:
            if self.report("command.bare_cr", True, octet.offset) is Action.BLANK:
                octet.become(LF)
            elif self.input is Input.SASL:
                self.sasl_octet(self.line[-1])
        elif not before and octet.value == LF and self.report("command.bare_lf", True, octet.offset) is Action.BLANK:
            octet.become(SPACE)
            self.line.append(octet)
            if self.input is Input.SASL:
                self.sasl_octet(octet)
            return rest
        if octet.value == LF:
            line, self.line = self.line, []
            if before:
                line.pop()
            if self.input is Input.SASL:
                self.odd.discard("nul")
                self.end_secret(bytes(other.value for other in line), octet.offset)
                self.input = Input.COMMANDS
                self.waiting = len(self.outstanding)
            else:
                self.command(line, octet)
        else:
            self.after_cr = octet.value == CR
            self.line.append(octet)
            if self.input is Input.SASL and octet.value != CR:
                self.sasl_octet(octet)
        return rest

    def sasl_octet(self, octet: Octet) -> None:
        """Takes a byte of an AUTH exchange, which is base64 (RFC 4954 4); some servers take a longer line for a
        command.
        """
        if octet.value == 0:
            if "nul" not in self.odd:
                self.report("command.nul", True, octet.offset)
                self.odd.add("nul")
            if self.apply and self.policy.action("command.nul") is Action.BLANK:
                octet.become(SPACE)
        place = len(self.line) - 1
        cut = secrets.ends_at(self.policy, octet.value, place)
        line = bytes(other.value for other in self.line[-secrets.TAIL - 1 :])
        if not self.cut_told and not self.recovery:
            word = bytes(other.value for other in self.line[:place][: secrets.TAIL + 1])
            if secrets.verb_in(self.policy, line, place, cut) or secrets.is_command(self.policy, word, octet.value):
                self.refuse_secret(octet.offset)
            elif cut:
                self.cut_told = True
                self.masking = self.report("command.line_cut", True, octet.offset) is Action.MASK
        if self.masking and octet.value != CR:
            octet.become(ord(self.policy.commands.letter))

    def refuse_secret(self, offset: int) -> None:
        self.cut_told = True
        self.masking = self.report("command.line_cut", True, offset) is Action.MASK
        if self.holds:
            self.result.ended = Action.RESET
            raise Ended

    def end_secret(self, line: bytes, end: int) -> None:
        """Checks the end of a long line with a secret: a server that cut the line may read its end as a command."""
        if (
            not self.cut_told
            and not self.recovery
            and (
                secrets.verb_in(self.policy, line[-secrets.TAIL :] + b"\r", len(line), True)
                or (self.input is Input.SASL and secrets.is_command(self.policy, line, CR))
            )
        ):
            self.refuse_secret(end)
        self.cut_told = self.masking = False

    def command(self, line: list[Octet], end: Octet) -> None:
        """Processes one command line, without its CRLF."""
        if not line:
            self.ask(UNKNOWN, b"")
            self.outstanding.append(VERBS[VERB_INDEX["<empty>"]])
            return
        octets, size, verb = self.verb(line)
        self.masked_from, self.cut_told = len(line), False
        if self.body_as_commands:
            self.body_line(line, octets, size, verb)
            return
        if verb_masked(octets[:size]):
            self.damaged("command_masked", True, line[0].offset)
        name = octets[:size].decode("latin-1").upper()
        self.oddities(line, octets, 0, size, name)
        denied = self.refuse(name, verb, line, size)
        self.oddities(line, octets, size, len(octets), name)
        if self.apply and self.policy.action("command.nul") is Action.BLANK:
            for octet in line[size:]:
                octet.become(octet.value or SPACE)
        self.hide(line)
        chunk = None
        if not denied:
            chunk = self.argument(verb, line[size + 1 : self.masked_from], line[0].offset + size, end)
        if verb.argument is Argument.SECRET:
            self.end_secret(octets, end.offset)
        denied = denied or (verb.argument is Argument.CHUNK_SIZE and chunk is None and self.apply)
        if denied:
            hidden = self.policy.commands.unknown is UnknownCommand.OK and self.apply
            verb = VERBS[VERB_INDEX["<masked>"]] if hidden else UNKNOWN
        self.noop_seen |= verb.name == "NOOP"
        self.ask(verb, octets[:size])
        self.chunking = self.chunking and verb.name not in GREETINGS
        self.outstanding.append(verb)
        if verb.name == "DATA" and self.policy.bugs.data_bypass and self.apply:
            self.begin_message()
            self.input = Input.DATA
            return
        if verb.waits:
            self.waiting = len(self.outstanding)
        if chunk:
            self.input, self.chunk_left = Input.CHUNK, chunk

    def ask(self, verb: Verb, said: bytes) -> None:
        """Notes a command, and so which replies may now be the one to EHLO."""
        first = self.asked is Asked.NOTHING and self.reply == [[]]
        if verb.name == "EHLO":
            self.asked = Asked.EHLO if first else Asked.DOUBT
        elif said.translate(None, bytes(range(33))).upper().startswith(b"EHLO"):
            # A server that skips leading blanks, or that matches a verb by its first letters, would take this line for
            # EHLO.
            self.asked = Asked.DOUBT
        else:
            self.asked = max(self.asked, Asked.OTHER)

    def body_line(self, line: list[Octet], octets: bytes, size: int, verb: Verb) -> None:
        """Emulates CSCdk46673: masks a line of a message as if it were a command; no server answers it."""
        if octets == b".":
            self.body_as_commands = False
            self.recipients = 0
            self.outstanding.append(VERBS[VERB_INDEX["<end of data>"]])
            return
        name = octets[:size].decode("latin-1").upper()
        self.oddities(line, octets, 0, size, name)
        self.refuse(name, verb, line, size)
        self.oddities(line, octets, size, len(octets), name)
        self.hide(line)

    def cut_off(self, line: list[Octet]) -> None:
        if self.after_cr:
            line = line[:-1]
        octets, size, verb = self.verb(line)
        self.masked_from, self.cut_told = len(line), False
        name = octets[:size].decode("latin-1").upper()
        self.oddities(line, octets, 0, size, name)
        if not line or (size == len(octets) and not self.after_cr):
            return  # No space or CR has come after the verb yet: the verb may be incomplete, so it is not judged.
        if verb_masked(octets[:size]):
            self.damaged("command_masked", True, line[0].offset)
        denied = self.refuse(name, verb, line, size)
        self.oddities(line, octets, size, len(octets), name)
        self.hide(line)
        if not denied:
            self.argument(verb, line[size + 1 : self.masked_from], line[0].offset + size, None)

    def oddities(self, line: list[Octet], octets: bytes, begin: int, end: int, name: str) -> None:
        """Reports what is wrong with a part of a line, whatever its verb: NUL, and too many bytes."""
        limit = self.policy.commands.line_length or len(octets)
        reach = len(octets) if self.recovery else self.reach(octets, begin, name)
        cut = "command.line_cut"
        for place, _, finding in sorted(
            [(octets.find(0), 0, "command.nul"), (limit, 1, "command.too_long"), (reach, 2, cut)]
        ):
            if not begin <= place < end or (finding == cut and self.cut_told):
                continue
            if finding == cut and name == "AUTH":
                base64_ends = secrets.ends_at(self.policy, octets[place], place)
                if secrets.verb_in(self.policy, octets[: place + 1], place, base64_ends):
                    self.refuse_secret(line[place].offset)
                    self.masked_from = place if self.masking else len(line)
                    continue
            action = self.report(finding, True, line[place].offset, name)
            if finding != "command.nul":
                self.cut_told |= finding == cut or self.policy.action(finding) is Action.MASK
                self.masked_from = min(self.masked_from, place if action is Action.MASK else len(line))

    def reach(self, octets: bytes, begin: int, name: str) -> int:
        """How many bytes of a line every server reads as one line. ``begin`` > 0: the verb is known."""
        verb = VERBS[VERB_INDEX[name]] if begin and name in VERB_INDEX else UNKNOWN
        if verb.argument is Argument.SECRET:
            for at in range(LONGEST_LINE - 2, len(octets)):
                if secrets.ends_at(self.policy, octets[at], at) or secrets.verb_in(
                    self.policy, octets[at - secrets.TAIL : at + 1], at, False
                ):
                    return min(at, self.policy.commands.secret_length)
            return min(len(octets), self.policy.commands.secret_length)
        allowed = {verb.upper() for verb in self.policy.commands.allow}
        return LONGEST_PARAMETERS if verb.long and allowed & {"EHLO", "*"} else LONGEST_LINE

    def hide(self, line: list[Octet]) -> None:
        """Masks the bytes of a line beyond what a server reads as one line."""
        for octet in line[self.masked_from :]:
            if octet.value != CR:  # A CR may belong to the CRLF that ends the command line, so it is not masked.
                octet.become(ord(self.policy.commands.letter))

    def argument(self, verb: Verb, argument: list[Octet], behind: int, end: Octet | None) -> int | None:
        """Checks the argument of a verb that passed; the size of a chunk. ``behind``: the offset after the verb."""
        if verb.name == "RCPT":
            self.recipients += 1
            if self.policy.address.recipients and self.recipients > self.policy.address.recipients:
                self.report("recipients.too_many", True, behind, verb.name)
        if verb.argument in (Argument.SENDER, Argument.RECIPIENT):
            self.address(verb, argument)
        if verb.argument is Argument.SENDER:
            self.seven_bits |= b"=7BIT" in bytes(octet.value & 127 for octet in argument).upper()
        return self.chunk_size(argument, end) if verb.argument is Argument.CHUNK_SIZE else None

    def verb(self, line: list[Octet]) -> tuple[bytes, int, Verb]:
        """The line's bytes, how many of them are its verb, and which verb it is."""
        octets = bytes(octet.value for octet in line)
        size = 0
        while size < len(octets) and octets[size] <= SPACE:
            size += 1  # Spaces and control characters in front of the verb count as part of the verb.
        while size < len(octets) and octets[size] != SPACE:
            size += 1
        name = octets[:size].decode("latin-1").upper()
        known = name in VERB_INDEX and not name.startswith("<")
        return octets, size, VERBS[VERB_INDEX[name]] if known else UNKNOWN

    def refuse(self, name: str, verb: Verb, line: list[Octet], size: int) -> bool:
        """Masks a verb that may not pass; returns whether it was masked."""
        commands = self.policy.commands
        allowed = {verb.upper() for verb in commands.allow}
        # A line that begins with a dot may be the end of the message to a server that reads what follows DATA as
        # message text.
        if name.startswith(".") or (name not in allowed and "*" not in allowed):
            finding = "command.denied"
        elif verb.argument is Argument.CHUNK_SIZE and self.holds and not self.takes_chunk():
            finding = "bdat.not_offered"
        else:
            return False
        shown = "".join(c if " " < c < "\x7f" else "?" for c in name[:16])
        if self.report(finding, True, line[0].offset, shown) is not Action.MASK:
            return False
        said = bytes(octet.value for octet in line[:size])
        for octet, value in zip(line, masked_command(commands, said, len(line)), strict=False):
            if octet.value != CR:  # As in ``hide``: a CR may belong to the line's CRLF and is not masked.
                octet.become(value)
        return True

    def address(self, verb: Verb, argument: list[Octet]) -> None:
        """Checks MAIL and RCPT arguments: illegal characters, and the sender's length."""
        rules = self.policy.address
        text = "".join(chr(octet.value) for octet in argument)
        open_bracket = reported = False
        for octet in argument:
            character = chr(octet.value)
            illegal = character in rules.characters
            if rules.brackets and character in "<>":
                illegal |= open_bracket == (character == "<")
                open_bracket = character == "<"
            if illegal:
                blank = self.policy.action("address.illegal_character") is Action.BLANK
                if not reported:
                    self.report("address.illegal_character", True, octet.offset, verb.name)
                reported = True
                if blank and self.apply:
                    octet.become(SPACE)
        if verb.name != "MAIL" or not rules.sender_length:
            return
        word = FIRST_WORD.match(text)
        for address in (*([word] if word else []), *PATHS.finditer(text, word.end() if word else 0)):
            if len(address[1]) > rules.sender_length:
                first = argument[address.start(1) + rules.sender_length]
                self.report("address.too_long", True, first.offset, verb.name)
                return


def translate(
    policy: Policy,
    turns: Sequence[Turn],
    *,
    apply: bool = True,
    restore: Restore | None = None,
    server: bytes = b"",
    junk_commands: int = Limits().junk_commands,
) -> Result:
    """What ``policy`` makes of a dialogue; with ``apply=False`` only what it would find, with nothing changed.

    With ``restore``, what a gateway in restore mode makes of it; ``server``: the server's address, packed. The result
    has the same turns in the same order; what a held turn becomes is in its own place. ``junk_commands`` is the limit
    of that name; 0: none.
    """
    session = _Dialogue(policy, apply)
    session.most_junk = junk_commands or -1
    if restore is not None:
        session.recovery = recovery(policy, restore)
        session.policy, session.server_address = session.recovery.policy, server
    offsets = {True: 0, False: 0}
    outputs = []
    for turn in turns:
        output = bytearray(turn.data)
        if turn.to_server and session.policy.data.seven_bits and apply and session.input is not Input.OPAQUE:
            output = bytearray(octet & 0x7F for octet in output)
        outputs.append(output)
        if session.result.ended is not None:
            output.clear()
        if session.result.ended is not None or session.ignored:
            continue
        start = offsets[turn.to_server]
        octets = Rest([Octet(output, index, start + index) for index in range(len(output))]).as_list()
        offsets[turn.to_server] += len(output)
        try:
            if not turn.to_server:
                session.server(octets)
            elif session.waiting or session.held:
                session.wait(octets)
                session.held.append(octets)
            elif session.end_is_cut(octets):
                # The emulated bug loses this packet; the client will retransmit it, so the stream offset goes back.
                offsets[True] = start
                output.clear()
            else:
                session.client(octets)
        except Ended:
            output.clear()
    for octets in session.held if session.holds else ():
        # A packet that was still held when the dialogue ended was never sent on: its bytes are removed from the output.
        del octets[0].output[octets[0].index :]
    session.result.turns = [Turn(turn.to_server, bytes(out)) for turn, out in zip(turns, outputs, strict=True)]
    return session.result

"""A gateway with something of everything an engine keeps, and what comes next: for any engine to be played to."""

from __future__ import annotations

from typing import Any

from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile, override
from nfmailguard.policy.model import FlowRule, Limits, Mode
from tests.rules.gateway import Connection, Gateway
from tests.support.wire import ACK, FIN, PSH, RST, SYN

__all__ = ["LIMITS", "RULES", "Course", "busy", "fresh", "image_of", "loaded"]

_CHANGES = {
    "commands.allow": ",".join((*load_profile("asa").commands.allow, "BDAT")),
    "replies.keywords": ",".join((*load_profile("asa").replies.keywords, "CHUNKING")),
    "data.filename_length": "40",
    "data.to_fields": "1",
    "data.header_length": "4000",
}
RULES = [FlowRule(Mode.ENFORCE, override(load_profile("asa"), _CHANGES))]
LIMITS = Limits(cookies=0, flows=4096)


def fresh() -> Engine:
    """One that has seen nothing."""
    return Engine(RULES, limits=LIMITS)


def image_of(engine: Engine) -> bytearray:
    image = bytearray(engine.state_size)
    engine.save_state(image)
    return image


def loaded(image: bytes | bytearray, engine: Engine | None = None) -> Engine:
    """The engine, or a fresh one, with what the image says."""
    engine = engine or fresh()
    engine.load_state(image, {0: engine.prepare(RULES, limits=LIMITS)})
    return engine


class Busy(Gateway):
    """With its connections by what they are in the midst of."""

    connections: dict[str, Connection]


def busy() -> Busy:
    gateway = Busy(RULES[0].policy, limits=LIMITS)
    found = gateway.connections = {}
    for name, port, family in (("held", 40000, 4), ("held6", 40001, 6)):
        held = found[name] = Connection(gateway, family, port=port).greeted()
        held.client(b"EHLO a.example\r\n")
        held.server(b"250-m\r\n250-STARTTLS\r\n250-XCLIENT A\r\n250 CHUNKING\r\n")  # an edit, not acknowledged
        held.send(True, ACK | PSH, b"RCPT TO:<b@x>\r\n", at=held.mark + 30)
        held.client(b"MAIL FRO")
        held.sent[True] = held.sent[True]
    many = found["many"] = Connection(gateway, port=40002).greeted()
    for number in range(40):
        many.client(b"VRFY a%d\r\nBAD\rx y\r\nEXPN z\r\n" % number)  # outstanding, in a ring of their own
    for name, port in (("text", 40003), ("chunk", 40005)):
        text = found[name] = Connection(gateway, port=port).greeted()
        for line, reply in (
            (b"EHLO a\r\n", b"250-m\r\n250 CHUNKING\r\n"),
            (b"MAIL FROM:<a@x>\r\n", b"250 ok\r\n"),
            (b"RCPT TO:<b@x>\r\n", b"250 ok\r\n"),
        ):
            text.client(line)
            text.server(reply)
    text.client(b"BDAT 3000\r\nabc")
    text = found["text"]
    text.client(b"DATA\r\n")
    text.server(b"354 go\r\n")
    text.send(True, ACK | PSH, b"x" * 1000, at=text.mark + 3000)  # ahead of a gap
    text.send(True, ACK | PSH, b"z" * 3000, at=text.mark + 4100)
    text.client(b"To: b\r\n" + b"X-Y: " + b"y" * 70 + b"\r\n")
    text.client((b"X-Y: " + b"y" * 70 + b"\r\n") * 35)
    text.client(b"Content-Type: text/plain; na")
    found["asked"] = Connection(gateway, port=40004)  # greeted by nobody yet
    ended = found["ended"] = Connection(gateway, port=40006).greeted()
    ended.send(False, ACK | FIN)
    reply = found["reply"] = Connection(gateway, port=40007).greeted()
    reply.client(b"EHLO b\r\n")
    reply.server(b"250-m\r\n250-SIZ")
    reset = found["reset"] = Connection(gateway, port=40008).greeted()
    reset.send(False, RST, seq=reset.has(False))
    return gateway


class Course:
    """What a gateway's enforcing engine is given from now on, and what it answers: an engine that was handed over is to
    answer the same. ``image``: of its state now."""

    def __init__(self, gateway: Busy) -> None:
        self.gateway = gateway
        gateway.engine.drain()
        self.image = image_of(gateway.engine)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = []
        engine = gateway.engine
        gateway.engine = self.recorder(engine)
        self.go_on(gateway)
        gateway.engine = engine

    def recorder(self, engine: Engine) -> Any:
        course = self

        class Recorder:
            def __getattr__(self, name: str) -> Any:
                def call(*arguments: Any, **options: Any) -> Any:
                    found = getattr(engine, name)(*arguments, **options)
                    course.calls.append((name, arguments, options, found))
                    if name in ("process", "expire", "finish"):
                        course.calls.append(("counters", (), {}, engine.counters()))
                    return found

                return call

        return Recorder()

    @staticmethod
    def go_on(gateway: Busy) -> None:
        found = gateway.connections
        for connection in found.values():
            connection.gateway = gateway
        for name in ("held", "held6"):
            found[name].client(b"M:<a@x>\r\nNOOP\r\nRSET\r\n")
            found[name].server(b"250 ok\r\n250 ok\r\n")
            found[name].send(False, ACK | PSH, b"250-STARTTLS\r\n", at=len("220 mail ESMTP\r\n") + len("250-m\r\n"))
            found[name].client(b"STARTTLS\r\n")
        for _ in range(70):
            found["many"].server(b"502 no\r\n")
        found["many"].client(b"BAD\rx y\r\nEXPN z\r\nQUIT\r\n")
        text = found["text"]
        text.client(b"me=" + b"w" * 90 + b"\r\nTo: c\r\n")
        text.send(True, ACK | PSH, b"y" * 100 + b"\r\n.\r\nEXPN x\r\n", at=text.mark - 100)
        text.client(b"\r\n\r\nto\r\n.\r\n")
        text.send(False, ACK, lost=True)
        text.server(b"250 taken\r\n")
        found["chunk"].client(b"d" * 2997 + b"BDAT 4 LAST\r\nabcdNOOP\r\n")
        found["chunk"].server(b"250 ok\r\n250 ok\r\n")
        found["asked"].server(b"220 mail 2 ESMTP\r\n")
        found["asked"].client(b"HELO a\r\n")
        found["ended"].client(b"QUIT\r\n")
        found["ended"].send(True, ACK | FIN)
        found["reply"].server(b"E 10\r\n250-STARTTLS\r\n250 XCLIENT\r\n")
        found["reply"].client(b"MAIL FROM:<a@x> BODY=8BITMIME\r\n")
        found["reset"].send(True, SYN)
        Connection(gateway, port=41000).greeted().client(b"EHLO z\r\n")
        gateway.wait(20)
        for connection in found.values():
            connection.send(True, ACK)
            connection.send(False, ACK)
        gateway.wait(30)
        gateway.wait(700)
        gateway.wait(4000)

    def play(self, engine: Engine) -> str | None:
        """Gives it all to the engine; the first thing it answers in another way."""
        differs = None
        for name, arguments, options, answer in self.calls:
            found = getattr(engine, name)(*arguments, **options)
            if found != answer and differs is None:
                differs = f"{name}{arguments[1:]}: {found} in place of {answer}"
        return differs

    differs = play

    def notices(self, image: bytearray) -> bool:
        """Whether an engine of this image is refused, or does not do the same."""
        try:
            return self.play(loaded(image)) is not None
        except ValueError:
            return True

"""Mail logs for the tests, in the true forms of their programs: ordinary days, and such behind a Mailguard.

The forms are those of the programs' sources and manuals: Postfix 3 (smtpd.c, smtp_proto.c, cleanup, qmgr), Exim 4
(spec, "Log files"), sendmail 8 (op.me, "SYSLOG"), OpenSMTPD 6 and 7, qmail with multilog, Exchange's protocol logs
and Get-Queue. Names, addresses and numbers are invented; the same seed gives the same log.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

Lines = Iterator[str]

_HOSTS = ("mx.example.com", "mail.example.net", "a.example.org", "in.example.edu", "relay7.example.co")
_USERS = ("anna", "xx", "XXXX", "xxxxxx", "info", "noreply", "o.xxxx", "VXXXX", "20-20", "x.x.x.x")


class Day:
    """What a day's log is made of."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._second = 0

    def pick(self, *some: str) -> str:
        return self.random.choice(some)

    @property
    def host(self) -> str:
        return self.pick(*_HOSTS)

    @property
    def address(self) -> str:
        return self.pick("192.0.2.", "198.51.100.", "203.0.113.") + str(self.random.randrange(1, 255))

    @property
    def user(self) -> str:
        return f"{self.pick(*_USERS)}@{self.pick('example.com', 'xxxxx.example', 'XXXX.example.org', 'example.net')}"

    @property
    def number(self) -> str:
        return f"{self.random.randrange(1 << 40):X}"

    @property
    def pid(self) -> int:
        return self.random.randrange(300, 99999)

    def clock(self) -> tuple[int, int, int]:
        self._second += self.random.randrange(1, 30)
        return self._second // 3600 % 24, self._second // 60 % 60, self._second % 60

    @property
    def syslog(self) -> str:
        return "Jan 31 {:02}:{:02}:{:02} mx".format(*self.clock())

    @property
    def iso(self) -> str:
        return "2026-01-31 {:02}:{:02}:{:02}".format(*self.clock())


def postfix(day: Day) -> Lines:
    queue, host, ip = day.number[:10], day.host, day.address
    smtpd, smtp = f"{day.syslog} postfix/smtpd[{day.pid}]:", f"{day.syslog} postfix/smtp[{day.pid}]:"
    yield f"{smtpd} connect from {host}[{ip}]"
    yield f"{smtpd} {queue}: client={host}[{ip}], sasl_method=PLAIN, sasl_username={day.user}"
    yield f"{day.syslog} postfix/cleanup[{day.pid}]: {queue}: message-id=<{day.number}.XXXX@{host}>"
    yield f"{day.syslog} postfix/qmgr[731]: {queue}: from=<{day.user}>, size={day.pid}, nrcpt=1 (queue active)"
    yield (
        f"{smtp} {queue}: to=<{day.user}>, relay={day.host}[{day.address}]:25, delay=1.2, delays=0.1/0/0.9/0.2,"
        f" dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as {day.number[:10]})"
    )
    yield f"{day.syslog} postfix/qmgr[731]: {queue}: removed"
    yield f"{smtpd} disconnect from {host}[{ip}] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5"
    yield day.pick(
        f"{smtpd} connect from unknown[xxxx]",
        f"{smtpd} lost connection after DATA (0 bytes) from unknown[{ip}]",
        f"{smtpd} lost connection after {day.pick('CONNECT', 'EHLO', 'AUTH', 'UNKNOWN', 'STARTTLS')} from {host}[{ip}]",
        f"{smtpd} timeout after {day.pick('END-OF-MESSAGE', 'DATA', 'RCPT')} from {host}[{ip}]",
        f"{smtpd} disconnect from unknown[{ip}] helo=1 unknown=0/1 commands=1/2",
        f"{smtpd} disconnect from unknown[{ip}] ehlo=0/1 auth=0/1 quit=1 commands=1/3",
        f"{smtpd} warning: non-SMTP command from unknown[{ip}]: GET / HTTP/1.1",
        f"{smtpd} improper command pipelining after EHLO from unknown[{ip}]: QUIT\\r\\n",
        f"{smtpd} too many errors after AUTH from unknown[{ip}]",
        f"{smtpd} NOQUEUE: reject: RCPT from {host}[{ip}]: 550 5.1.1 <{day.user}>: Recipient address rejected: User"
        f" unknown in local recipient table; from=<xxxxxx@example.com> to=<{day.user}> proto=ESMTP helo=<XXXX>",
        f"{smtpd} NOQUEUE: reject: CONNECT from unknown[{ip}]: 554 5.7.1 Service unavailable; Client host [{ip}]"
        " blocked using zen.example.org",
        f"{smtp} {queue}: to=<{day.user}>, relay=none, delay=30, delays=0/0/30/0, dsn=4.4.1, status=deferred (connect"
        f" to {day.host}[{day.address}]:25: Connection timed out)",
        f"{smtp} {queue}: host {day.host}[{day.address}] said: 450 4.2.0 <{day.user}>: Greylisted, XXXX minutes",
        f"{smtp} {queue}: host {day.host}[{day.address}] refused to talk to me: 421 *** too many connections ***",
        f"{smtp} Untrusted TLS connection established to {day.host}[{day.address}]:25: TLSv1.3 with cipher XXXX",
        f"{smtp} {queue}: lost connection with {day.host}[{day.address}] while receiving the initial server greeting",
        f"{day.syslog} postfix/smtps/smtpd[{day.pid}]: SSL_accept error from unknown[{ip}]: lost connection",
    )


def exim(day: Day) -> Lines:
    number, host, ip = "1rXXXX-0001Xy-2Q", day.host, day.address
    yield f"{day.iso} {number} <= {day.user} H={host} [{ip}] P=esmtps X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=no S=4817"
    yield (
        f"{day.iso} {number} => {day.user} R=dnslookup T=remote_smtp H={day.host} [{day.address}]"
        f' X=TLS1.3:XXXX:256 CV=yes C="250 2.0.0 OK {day.number}"'
    )
    yield f"{day.iso} {number} -> XXXX <XXXX@example.com> R=local_user T=maildir_home"
    yield f"{day.iso} {number} Completed"
    yield day.pick(
        f"{day.iso} SMTP protocol synchronization error (input sent without waiting for greeting): rejected connection"
        f' from H=[{ip}] input="CONNECT mx.example.net:25 HTTP/1.0\\r\\n"',
        f"{day.iso} SMTP protocol synchronization error (next input sent too soon: pipelining was not advertised):"
        f' rejected "RSET" H={host} [{ip}] next input="QUIT\\r\\n"',
        f'{day.iso} SMTP syntax error in "AUTH LOGIN XXXX" H=({host}) [{ip}] unrecognized command',
        f'{day.iso} SMTP call from [{ip}] dropped: too many syntax or protocol errors (last command was "GET /xxxx")',
        f"{day.iso} unexpected disconnection while reading SMTP command from ({host}) [{ip}] D=20s",
        f"{day.iso} H=({host}) [{ip}] F=<{day.user}> rejected RCPT <{day.user}>: Unrouteable address",
        f"{day.iso} no MAIL in SMTP connection from {host} [{ip}] D=0s C=EHLO,QUIT",
        f"{day.iso} {number} == {day.user} R=dnslookup T=remote_smtp defer (-53): retry time not reached for any host",
        f"{day.iso} {number} ** {day.user} R=dnslookup T=remote_smtp H={day.host} [{day.address}]: SMTP error from"
        f" remote mail server after RCPT TO:<{day.user}>: 550 5.1.1 user unknown",
        f"{day.iso} {number} {day.host} [{day.address}] Connection timed out",
        f"{day.iso} TLS error on connection from {host} [{ip}] (SSL_accept): error:0A000076",
        f'{day.iso} login authenticator failed for ({host}) [{ip}]: 535 Incorrect authentication data (set_id="xxxx")',
    )


def sendmail(day: Day) -> Lines:
    number, host, ip = f"60V{day.number[:8]}", day.host, day.address
    head = f"{day.syslog} sendmail[{day.pid}]: {number}:"
    yield f"{head} from=<{day.user}>, size=1220, class=0, nrcpts=1, proto=ESMTP, daemon=MTA, relay={host} [{ip}]"
    yield (
        f"{head} to=<{day.user}>, delay=00:00:02, xdelay=00:00:01, mailer=esmtp, pri=121220,"
        f" relay={day.host}. [{day.address}], dsn=2.0.0, stat=Sent (60VAXXXX01 Message accepted for delivery)"
    )
    yield day.pick(
        f"{head} {host} [{ip}] did not issue MAIL/EXPN/VRFY/ETRN during connection to MTA",
        f"{head} lost input channel from {host} [{ip}] to MTA after rcpt",
        f"{head} to=<{day.user}>, mailer=esmtp, relay={day.host}. [{day.address}], dsn=4.0.0, stat=Deferred: Connection"
        " timed out with mx.example.com.",
        f"{head} ruleset=check_rcpt, arg1=<XXXX@example.org>, relay=[{ip}], reject=550 5.7.1 Relaying denied",
        f"{head} collect: premature EOM: unexpected close",
        f"{head} STARTTLS=client, relay={day.host}., version=TLSv1.3, verify=OK, cipher=XXXX, bits=256/256",
        f"{head} rejecting commands from [{ip}] due to pre-greeting traffic after 0 seconds",
        f"{head} {host} [{ip}]: possible SMTP attack: command=AUTH, count=4",
    )


def opensmtpd(day: Day) -> Lines:
    session, ip = day.number[:16].lower(), day.address
    head = f"{day.syslog} smtpd[{day.pid}]: {session}"
    yield f"{head} smtp connected address={ip} host={day.host}"
    yield f"{head} smtp message msgid=1xxxx from=<{day.user}> to=<{day.user}> size=1220 ndest=1 proto=ESMTP"
    yield f"{head} mta connecting address=smtp://{day.address}:25 host={day.host}"
    yield (
        f'{head} mta delivery evpid=XXXX from=<{day.user}> to=<{day.user}> rcpt=<-> source="10.0.0.1"'
        f' relay="{day.address} ({day.host})" delay=1s result="Ok" stat="250 2.0.0 Ok: queued as XXXX"'
    )
    yield day.pick(
        f"{head} smtp disconnected reason=quit",
        f"{head} smtp disconnected reason=disconnect",
        f'{head} smtp failed-command command="AUTH LOGIN (username)" result="503 5.5.1 Invalid command"',
        f'{head} smtp failed-command command="RCPT TO:<XXXX@example.org>" result="550 Invalid recipient"',
        f"{head} mta error reason=IO Error: Connection timed out",
        f'{head} mta delivery evpid=1 result="TempFail" stat="421 4.7.0 Try again later XXXX"',
    )


def qmail(day: Day) -> Lines:
    stamp = f"@4000000065{day.number[:14].lower()}"
    yield f"{stamp} tcpserver: pid {day.pid} from {day.address}"
    yield f"{stamp} new msg {day.pid}"
    yield f"{stamp} info msg {day.pid}: bytes 3301 from <{day.user}> qp 3004 uid 89"
    yield f"{stamp} starting delivery {day.pid}: msg 12 to remote {day.user}"
    yield f"{stamp} delivery {day.pid}: success: {day.address}_accepted_message./Remote_host_said:_250_ok_XXXX_qp_20/"
    yield day.pick(
        f"{stamp} delivery 9: deferral: CNAME_lookup_failed_temporarily._(#4.4.3)/",
        f"{stamp} delivery 9: deferral: Sorry,_I_wasn't_able_to_establish_an_SMTP_connection._(#4.4.1)/",
        f"{stamp} delivery 9: failure: {day.address}_does_not_like_recipient./Remote_host_said:_550_unknown_user_XXXX/",
        f"{stamp} rblsmtpd: {day.address} pid {day.pid}: 451 http://example.org/q?ip=xxxx",
        f"{stamp} status: local 0/10 remote 1/20",
    )


def exchange(day: Day) -> Lines:
    stamp = "2026-01-31T{:02}:{:02}:{:02}.000Z".format(*day.clock())
    receive = f"{stamp},EX1\\Default,08D0{day.number[:8]:0>12},"
    ends = f"10.0.0.5:25,{day.address}:{day.pid % 60000 + 1024}"
    yield (
        "#Software: Microsoft Exchange Server" if day.random.random() < 0.1 else "#Log-type: SMTP Receive Protocol Log"
    )
    yield f"{receive}0,{ends},+,,"
    greeting = "220 ex1.example.com Microsoft ESMTP MAIL Service ready at Sat, 31 Jan 2020 20:20:02 +0200"
    yield f'{receive}1,{ends},>,"{greeting}",'
    yield f"{receive}2,{ends},<,EHLO {day.host},"
    yield f"{receive}3,{ends},>,250-ex1.example.com Hello [{day.address}],"
    for keyword in ("SIZE 37748736", "PIPELINING", "STARTTLS", "X-ANONYMOUSTLS", "AUTH NTLM", "X-EXPS GSSAPI NTLM"):
        yield f"{receive}4,{ends},>,250-{keyword},"
    yield f"{receive}5,{ends},>,250 XRDST,"
    yield f"{receive}6,{ends},<,MAIL FROM:<{day.user}> SIZE=1024,"
    yield f"{receive}7,{ends},*,08D0XXXX;2026-01-31;1,receiving message"
    yield day.pick(
        f"{receive}8,{ends},<,QUIT,",
        f"{receive}8,{ends},-,,Remote",
        f"{receive}8,{ends},<,FOO,",
        f"{receive}8,{ends},>,500 5.3.3 Unrecognized command,",
        f"{receive}8,{ends},>,550 5.7.54 SMTP; Unable to relay recipient XXXX@example.com,",
        f"{receive}8,{ends},*,Tarpit for '0.00:00:05' due to '550 5.1.1 User unknown',",
        'LastError : 451 4.4.0 DNS query failed. The error was: SMTPSEND.DNS.NonExistentDomain "xxxx"',
    )


PROGRAMS: dict[str, Callable[[Day], Lines]] = {
    "postfix": postfix,
    "exim": exim,
    "sendmail": sendmail,
    "opensmtpd": opensmtpd,
    "qmail": qmail,
    "exchange": exchange,
}


def ordinary(program: str, lines: int, seed: int = 7) -> list[str]:
    """At least so many lines of ordinary days."""
    day, found = Day(seed), []
    while len(found) < lines:
        found += PROGRAMS[program](day)
    return found


def journald(lines: list[str]) -> list[str]:
    """The same as ``journalctl -o json`` prints it: the message without time and host, one of them as bytes."""
    entries = []
    for number, line in enumerate(lines):
        program, _, message = line.split(" ", 4)[4].partition(": ")
        name, _, pid = program.partition("[")
        text: str | list[int] = message if number % 50 else list(message.encode())
        entry = {"__REALTIME_TIMESTAMP": str(1_700_000_000_000_000 + number), "SYSLOG_IDENTIFIER": name}
        entries.append(json.dumps({**entry, "_PID": pid.rstrip("]"), "MESSAGE": text, "_HOSTNAME": "mx"}))
    return entries

"""Mailguard the obvious way: the PyPI packages NetfilterQueue and scapy, and twenty lines.

``python scapy_mailguard.py QUEUE`` masks the greeting and every command that RFC 821 does not
have, packet by packet. It holds nothing, follows nothing and is easily fooled: what it is for
is the comparison.
"""

from __future__ import annotations

import sys

from netfilterqueue import NetfilterQueue, Packet
from scapy.layers.inet import IP, TCP

ALLOWED = (b"HELO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"NOOP", b"QUIT", b".")
in_message: dict[tuple[str, int], bool] = {}


def guard(packet: Packet) -> None:
    ip = IP(packet.get_payload())
    payload = bytes(ip[TCP].payload) if TCP in ip else b""
    changed = payload
    client = (ip.src, ip[TCP].sport) if ip[TCP].dport == 25 else (ip.dst, ip[TCP].dport)
    if ip[TCP].sport == 25:
        if payload.startswith(b"220 "):
            changed = b"220 " + b"*" * (len(payload) - 6) + b"\r\n"
        in_message[client] = payload.startswith(b"354")
    elif payload and not in_message.get(client) and not payload.upper().startswith(ALLOWED):
        verb = len(payload.split(None, 1)[0])
        changed = b"X" * verb + payload[verb:]
    if changed != payload:
        ip[TCP].remove_payload()
        del ip.chksum, ip[TCP].chksum
        packet.set_payload(bytes(ip / changed))
    packet.accept()


queue = NetfilterQueue()
queue.bind(int(sys.argv[1]), guard, max_len=4096, range=3840)
print("ready", flush=True)
try:
    queue.run()
finally:
    queue.unbind()

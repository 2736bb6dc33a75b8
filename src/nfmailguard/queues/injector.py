"""The injector: sends packets of the gateway's own, marked so that its rules never queue them.

Promises: what ``send`` is given leaves with the mark or is counted as an error. Does not know why it is sent.
"""

from __future__ import annotations

from nfmailguard.cext.drivers.rawsocket import RawSender
from nfmailguard.errors import QueueError

__all__ = ["INJECT_MARK", "Injector"]

#: Packet mark ("mg") of packets that nfmailguard sends itself; the queueing rules let them pass.
INJECT_MARK = 0x6D67


class Injector(RawSender):
    """Raw IPv4 and IPv6 sockets that set ``mark`` on every packet; raises QueueError without CAP_NET_RAW."""

    def __new__(cls, mark: int = INJECT_MARK) -> Injector:
        try:
            return super().__new__(cls, mark)
        except OSError as error:
            raise QueueError(
                f"raw sockets for resets: {error.strerror}; run as root or with CAP_NET_RAW and CAP_NET_ADMIN"
            ) from error

    def __init__(self, mark: int = INJECT_MARK) -> None:
        """The sockets are made in ``__new__``."""

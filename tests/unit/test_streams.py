"""The rules of docs/streams.md, one by one, on packets through an Engine."""

from __future__ import annotations

import pytest

from nfmailguard.engine import OperationKind
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import Action, On
from tests.support.dialogue import Dialogue
from tests.support.wire import ACK, PSH


@pytest.mark.parametrize("conflict", [Action.PASS, Action.DROP, Action.RESET])
def test_an_honest_retransmission_of_an_edited_line_is_no_conflict(conflict: Action) -> None:
    dialogue = Dialogue.under(load_profile("pix63"), on=On(conflict=conflict))
    dialogue.server(b"220 mail ESMTP\r\n")
    dialogue.client(b"EHLO me\r\n")  # leaves as XXXX me and is lost behind the gateway
    dialogue.received[True].clear()
    again = dialogue.send(True, ACK | PSH, b"EHLO me\r\n", seq=dialogue.sent[True] - 9)
    assert again == [OperationKind.REPLACE]
    assert dialogue.received_by_server == b"XXXX me\r\n"
    assert [finding.name for finding in dialogue.findings] == ["banner.masked", "command.denied"]

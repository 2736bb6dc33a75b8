"""Turns configuration text as people keep and send it into the lines the device would have shown.

Promises: takes time linear in the text. Undoes what terminals, forums, mail and web pages add: pagers, quotes, fences,
tags, remarks after a line, lines wrapped at the terminal's width. Does not know what a line means.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

__all__ = ["FIRST_WORDS", "bare", "lines", "without_comment"]

_LINE_END = re.compile(r"\r\n|\r|\n")
#: Matches a pager's prompt ("<--- More --->") and the blanks or backspaces with which the terminal erased it.
_PAGER = re.compile(r"(?:<--- More --->|[ ]?--More--[ ]?)(?:\r[ ]{4,}\r|[\b][ \b]*)?")
_BREAK = re.compile(r"<(?:br|/p|/div|/li|/tr)[ ]*/?>(?:\r\n|\r|\n)?", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:pre|code|p|div|span|font|b|i|em|strong|blockquote|ul|ol|li|td|tr|a)(?: [^<>\n]{0,300})?>", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:[a-z]{2,8}|#[0-9]{1,7}|#x[0-9a-f]{1,6});", re.IGNORECASE)
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")
_QUOTED = re.compile(r"(?:>[ ]?)+")
_BULLET = re.compile(r"[*\u2022\u00b7+-](?:[ \t]+(?=\w)|[ \t]*$)")
_FENCE = re.compile(r"(?:```|~~~).*")
#: Matches remarks such as ``! mail``, ``!--- mail`` or ``<-- this one`` that manuals and forum posts add after a
#: configuration line.
_COMMENT = re.compile(r"(?:^|\s)(?:!(?=\s|$|-)|<[-=]|\u2190)")
#: First words of lines whose remaining words are the operator's free text, in which an exclamation mark begins no
#: remark.
_FREE_TEXT = ("description", "banner", "remark", "regex", "username", "password", "snmp-server")
_WIDTH = 80

_SINGLE = """
aaa access-group access-list arp asdm banner boot ciscoasa class-map clock console context crypto cryptochecksum:
dhcpd dhcprelay dns domain-name enable end established failover filter firewall fixup flow-export fragment ftp
global group-policy hostname http icmp interface ip ipv6 ldap logging mac mailhost management monitor mtu name
nameif names nat no ntp object object-group pager passwd password pim policy-map privilege prompt quit regex route
router same-security-traffic security-level service service-policy sla snmp-server ssh ssl static sysopt tcp-map
telnet terminal tftp-server threat-detection time-range timeout track tunnel-group url-cache url-server username
version virtual vpn vpdn vpn-addr-assign vpn-group-policy webvpn write xlate zone zone-pair line parameter-map
"""
#: Words that begin a configuration line outside of every section.
FIRST_WORDS = frozenset(_SINGLE.split())
#: _MAY_WRAP: first words of lines that a terminal or mail program may have wrapped. _OPEN (below): words after which
#: such a line cannot be complete.
_MAY_WRAP_WORDS = """
access-list class-map fixup inspect ip match object-group policy-map regex service-policy
"""
_MAY_WRAP = frozenset(_MAY_WRAP_WORDS.split())
_INSIDE = """
class match inspect parameters description exit log reset mask drop drop-connection network-object port-object
group-object host subnet range set police pass priority rate-limit
mask-banner mail-relay special-character allow-tls !
"""
_BEGINS = FIRST_WORDS | frozenset(_INSIDE.split())
_OPEN_WORDS = """
access-list class-map policy-map type inspect eq range object-group host extended permit deny tcp match gt
length count regex not cmd ehlo-reply-parameter sender-address service-policy fixup protocol interface
"""
_OPEN = frozenset(_OPEN_WORDS.split())


def lines(text: str) -> list[str]:
    """The text's lines, from the first; a line continued on the next one is joined, and the next one is empty."""
    if "More" in text:
        text = _PAGER.sub("", text)
    if "<" in text:
        text = _TAG.sub("", _BREAK.sub("\n", text))
    if "&" in text:
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
    if not text.isascii():
        text = _INVISIBLE.sub("", text).replace("\u00a0", " ")
    return list(_joined([bare(line) for line in _LINE_END.split(text)]))


def bare(line: str) -> str:
    """A line without the marks that mail, Markdown and forums put around it; its indentation is kept."""
    line = line.expandtabs(8) if "\t" in line else line
    text = line.lstrip()
    head = text[:1]
    if head == ">":
        return bare_of_bullet(text[_QUOTED.match(text).end() :])  # type: ignore[union-attr]
    if head in ("`", "~") and _FENCE.fullmatch(text):
        return ""
    return bare_of_bullet(line)


def bare_of_bullet(line: str) -> str:
    text = line.lstrip()
    found = _BULLET.match(text)
    if found:
        line = line[: len(line) - len(text)] + text[found.end() :]
    text = line.strip()
    return line.replace("`", "") if len(text) > 2 and text[0] == text[-1] == "`" else line


def without_comment(line: str) -> str:
    """The line up to a remark after it. In free text and between quotation marks there is no remark."""
    if "!" not in line and "<" not in line and "\u2190" not in line:
        return line
    if any(word in _FREE_TEXT for word in line.lower().split(None, 2)[:2]):
        return line
    found = _COMMENT.search(line)
    return line[: found.start()].rstrip() if found else line


def _joined(found: list[str]) -> Iterator[str]:
    place = 0
    while place < len(found):
        line, parts = found[place], 1
        while place + parts < len(found) and (glue := _goes_on(line, found[place + parts], parts)) is not None:
            line += glue + found[place + parts].strip()
            parts += 1
        yield line
        yield from [""] * (parts - 1)
        place += parts


def _goes_on(line: str, following: str, parts: int) -> str | None:
    """What joins a line and its continuation in the next line ("" or a space); None: the next line
    is no continuation.
    """
    next_word, _, _ = following.strip().partition(" ")
    if not next_word or parts > 4 or next_word.lower() in _BEGINS or next_word[0] in "!:" or next_word[-1] in "#>":
        return None
    words = line.split()
    if not words or words[words[0].lower() == "no" and len(words) > 1].lower() not in _MAY_WRAP:
        return None
    if len(line) == _WIDTH * parts and following[0] != " ":
        # A line of exactly the terminal's width was wrapped by the terminal, possibly inside a word: joined without a
        # space.
        return ""
    unnamed = [word.lower() for word in words[-3:-1]] == ["type", "inspect"]
    if following[0] != " " and len(words) > 1 and (unnamed or words[-1].lower() in _OPEN):
        return " "
    return None

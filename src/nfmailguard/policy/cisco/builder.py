"""Builds a Policy: how a map's rules and parameters are expressed in a Policy.

Promises: if a rule's exact action is not available, the import report names the rule and what is done instead. What a
map does not mention is not done, except what the inspection does without a map: verbs outside the fifteen are X-ed
(S-COMM2). Does not know text.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from nfmailguard.policy.cisco.match import KEYWORDS, OTHERS, VERBS, CiscoAction, Match
from nfmailguard.policy.cisco.text import ImportReport, Statement
from nfmailguard.policy.limits import PolicyLimit
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import Action, BannerRule, CommandPolicy, EhloMask, Policy, ReplyPolicy

__all__ = ["SPECIAL_CHARACTERS", "PolicyBuilder", "Rule", "asa", "default_title", "profile"]

#: The characters that ``special-character`` blocks (recalled, not re-read), except NUL, which is the finding
#: ``command.nul``.
SPECIAL_CHARACTERS = "|`"
_STRENGTH = tuple(Action)
_VERB_SET = frozenset(VERBS.values())
_KEYWORD_SET = frozenset(KEYWORDS.values())


@functools.cache
def profile(name: str) -> Policy:
    """A profile that comes with the program, read once."""
    return load_profile(name)


def asa() -> Policy:
    """The profile of the manual's default map, from which a map takes the settings it does not mention."""
    return profile("asa")


def default_title(name: str) -> str:
    """The title of a map that has no description."""
    return f"policy-map type inspect esmtp {name}"


@dataclass(frozen=True)
class Rule:
    """A match and its action; ``selector`` is the ``class`` line through which it was reached."""

    match: Match
    cisco_action: CiscoAction
    selector: Statement | None = None

    @property
    def place(self) -> str:
        return self.match.statement.place

    @property
    def action(self) -> Action:
        return self.cisco_action.action or Action.PASS


class PolicyBuilder:
    """A policy that is being built, and for each of its keys the line it comes from.

    ``base``: a profile whose settings apply where the map is silent, as with IOS; none: an ASA, where they do not.
    """

    def __init__(self, name: str, report: ImportReport, base: str | None = None) -> None:
        self.name = name
        self.goes_on = base is not None
        self.base = asa() if base is None else profile(base)
        self.report = report
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.actions: dict[str, Action] = {}
        self.tls: Statement | None = None

    def set(self, key: str, value: Any, statement: Statement) -> None:
        self.values[key] = value
        self.sources[key] = statement.place

    def act(self, finding: str, action: Action, statement: Statement) -> None:
        self.actions[finding] = action
        self.sources[f"actions.{finding}"] = statement.place

    def policy(self, rules: list[Rule]) -> Policy:
        """The policy made of the parameters and of ``rules``."""
        self._limits(rules)
        self._verbs([rule for rule in rules if rule.match.subject == ("cmd", "verb")])
        self._keywords([rule for rule in rules if rule.match.subject == ("ehlo-reply-parameter",)])
        base, replace = self.base, msgspec.structs.replace
        if self.goes_on:
            title = f"policy-map type inspect smtp {self.name}"
            policy = replace(base, name=self.name, title=title, actions={**base.actions, **self.actions})
        else:
            kept = base.commands
            commands = CommandPolicy(allow=kept.allow, unknown=kept.unknown, letter=kept.letter)
            banner = replace(base.banner, rule=BannerRule.NONE)
            title = default_title(self.name)
            policy = Policy(self.name, title, banner, commands, ReplyPolicy(), actions=self.actions)
        for key, value in self.values.items():
            section, dot, field = key.partition(".")
            part = replace(getattr(policy, section), **{field: value}) if dot else value
            policy = replace(policy, **{section: part})
        return policy

    def honour(self, rule: Rule, what: str) -> None:
        self.report.honoured(rule.match.statement, what)
        if rule.selector:
            self.report.honoured(rule.selector, "as the lines of its class")
        if rule.cisco_action.note:
            self.report.not_honoured(rule.cisco_action.statement, rule.cisco_action.note)
        else:
            self.report.honoured(rule.cisco_action.statement, f"with {(rule.selector or rule.match.statement).place}")

    def refuse(self, rule: Rule, why: str) -> None:
        self.report.not_honoured(rule.match.statement, why)
        if rule.selector:
            self.report.not_honoured(rule.selector, f"{rule.place} is not")
        self.report.not_honoured(rule.cisco_action.statement, f"belongs to {rule.place}")

    # Section: the lines under a map's ``parameters``.

    def parameter(self, name: str, action: Action | None, statement: Statement) -> None:
        """Applies one parameter; ``action`` None switches it off."""
        if name == "mask-banner":
            self.set("banner.rule", BannerRule.BASA if action else BannerRule.NONE, statement)
            self.report.honoured(statement, f"banner.rule = {self.values['banner.rule']}")
        elif name == "special-character":
            self.set("address.characters", SPECIAL_CHARACTERS if action else "", statement)
            self.actions.pop("address.illegal_character", None)
            self.actions.pop("command.nul", None)
            if action:
                self.act("address.illegal_character", action, statement)
            if action is Action.DROP_CONNECTION:
                self.act("command.nul", action, statement)
            self.report.honoured(
                statement, "address.characters: pipe and backquote, a NUL by itself (unverified)" if action else "off"
            )
        elif name == "allow-tls":
            self.tls = statement if action else None
            self.actions.pop("tls.started", None)
            if action:
                self.act("tls.started", action, statement)
            self.report.honoured(statement, "STARTTLS, command and keyword, passes" if action else "off")
        else:
            self.report.honoured(statement, "off")

    # Section: the map's match rules.

    def _limits(self, rules: Iterable[Rule]) -> None:
        """Sets one limit of each kind: among several rules the one with the strongest action, and of those the smallest
        limit.
        """
        by_limit: dict[PolicyLimit, list[Rule]] = {}
        for rule in rules:
            if rule.match.limit is None:
                continue
            if rule.action is Action.MASK:
                self.refuse(rule, "mask is for `ehlo-reply-parameter` and `cmd verb` only (S-ASA13)")
            else:
                by_limit.setdefault(rule.match.limit, []).append(rule)
        for limit, several in by_limit.items():
            best = min(several, key=lambda rule: (rule.action is Action.LOG, rule.match.most))
            action, most = best.action, best.match.most
            self.set(limit.setting, most, best.match.statement)
            self.act(limit.finding, action, best.match.statement)
            for rule in several:
                if rule is best:
                    self.honour(rule, f"{limit.setting} = {most}: {action}")
                elif rule.match.most > most or (rule.match.most == most and rule.action in (action, Action.LOG)):
                    self.honour(rule, f"never reached: {best.place} comes before it")
                else:
                    self.refuse(rule, f"a policy has one limit of this kind, that of {best.place}")

    def _verbs(self, rules: list[Rule]) -> None:
        """Sets which verbs pass. All other verbs share one action."""
        passing = (*self.base.commands.allow, *(("STARTTLS",) if self.tls else ()))
        effects = {OTHERS: Action.MASK}
        settled = []
        for rule in rules:
            action, chosen = rule.action, _chosen(rule, _VERB_SET)
            if action is not Action.LOG:
                _strengthen(effects, chosen, action)
                settled.append((rule, action))
            elif chosen & set(passing):
                self.refuse(rule, "a verb that passes is not told of by itself")
            else:
                self.honour(rule, "told in any case: actions.command.denied")
        common = effects[OTHERS]
        allow = tuple(verb for verb in passing if verb not in effects)
        if settled and allow != passing:
            self.set("commands.allow", allow, settled[0][0].match.statement)
        elif self.tls:
            self.set("commands.allow", allow, self.tls)
        if "STARTTLS" not in allow:
            self.actions.pop("tls.started", None)
        if common is not Action.MASK:
            self.act("command.denied", common, settled[0][0].match.statement)
        for rule, action in settled:
            if action is common:
                self.honour(rule, f"commands.allow = {' '.join(allow)}; all others: {common}")
            else:
                self.refuse(rule, f"verbs that do not pass share one action, here {common}, not {action}")

    def _keywords(self, rules: list[Rule]) -> None:
        """Sets which EHLO keywords pass. All other keywords share one action."""
        base = self.base.replies
        effects: dict[str, Action] = {}
        if rules and self.goes_on and base.ehlo is not EhloMask.NONE:
            effects[OTHERS] = self.base.action("reply.keyword_masked")
        for rule in rules:
            _strengthen(effects, _chosen(rule, _KEYWORD_SET), rule.action)
        common = effects.get(OTHERS)
        if common is None:
            for rule in rules:
                self.refuse(rule, "only together with `others`: keywords pass by a list of those that may")
            return
        strength = _STRENGTH.index(common)
        hidden = {keyword for keyword, action in effects.items() if _STRENGTH.index(action) >= strength}
        keywords = tuple(keyword for keyword in base.keywords if keyword not in hidden)
        keywords += ("STARTTLS",) if self.tls else ()
        first = rules[0].match.statement
        self.set("replies.ehlo", EhloMask.E1, first)
        self.set("replies.keywords", keywords, first)
        self.set("replies.keyword_end", base.keyword_end, first)
        self.act("reply.keyword_masked", common, first)
        for rule in rules:
            if rule.action is common:
                self.honour(rule, f"replies.keywords = {' '.join(keywords)}; all others: {common}")
            else:
                self.refuse(rule, f"keywords that do not pass share one action, here {common}, not {rule.action}")


def _chosen(rule: Rule, universe: frozenset[str]) -> frozenset[str]:
    names = frozenset(rule.match.names)
    return universe - names if rule.match.negated else names


def _strengthen(effects: dict[str, Action], names: Iterable[str], action: Action) -> None:
    for name in names:
        effects[name] = max(effects.get(name, Action.PASS), action, key=_STRENGTH.index)

"""The configuration: what it means, and that everything wrong with it is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nfmailguard.config import Config, Driver, Hook, load
from nfmailguard.errors import ConfigError
from nfmailguard.policy.load import load_profile, override, profile_names
from nfmailguard.policy.model import CONDITIONS, Action, Mode, PartialLines, UnknownCommand
from nfmailguard.service import preflight


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "nfmailguard.toml"
    path.write_text(text)
    return path


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text), overrides)
    assert caught.value.exit_code == 2
    return [line.removeprefix(f"{tmp_path}/nfmailguard.toml: ") for line in str(caught.value).splitlines()]


def test_nothing_configured_changes_nothing() -> None:
    config = load()
    assert (config.gateway.mode, config.gateway.ports) == (Mode.MONITOR, (25,))
    assert config.on_queue("queue_full") is Action.PASS


def test_enforcing_drops_what_nobody_inspected() -> None:
    assert load(mode="enforce").on_queue("no_listener") is Action.DROP
    assert load(mode="enforce", dry_run=True).on_queue("no_listener") is Action.PASS


@pytest.mark.parametrize("condition", ["queue_full", "no_listener"])
@pytest.mark.parametrize("action", [None, Action.PASS, Action.DROP])
@pytest.mark.parametrize(
    ("mode", "rule", "dry_run", "default"),
    [
        ("enforce", None, False, Action.DROP),
        ("monitor", None, False, Action.PASS),
        ("monitor", "enforce", False, Action.DROP),
        ("enforce", "monitor", False, Action.DROP),
        ("enforce", None, True, Action.PASS),
    ],
)
def test_the_kernel_does_one_thing_for_all_flows(
    tmp_path: Path, condition: str, action: Action | None, mode: str, rule: str | None, dry_run: bool, default: Action
) -> None:
    text = f'[[rule]]\nfrom = "192.0.2.1"\nmode = "{rule}"\n' if rule else ""
    config = load(written(tmp_path, text), [f"on.{condition}={action}"] if action else [], mode=mode, dry_run=dry_run)
    done = action or default
    assert config.on_queue(condition) is done
    if condition == "no_listener":
        assert preflight.ruleset(config).bypass is (done is Action.PASS)


@pytest.mark.parametrize(
    ("options", "rule", "needed"),
    [
        ({"mode": "monitor"}, None, False),
        ({"mode": "enforce"}, None, True),
        ({"mode": "restore"}, None, True),
        ({"mode": "enforce", "dry_run": True}, "restore", False),
        ({"mode": "monitor"}, "monitor", False),
        ({"mode": "monitor"}, "enforce", True),
        ({"mode": "enforce"}, "monitor", True),
    ],
)
def test_conntrack_runs_only_where_something_may_be_changed_or_offloaded(
    tmp_path: Path, options: dict[str, Any], rule: str | None, needed: bool
) -> None:
    path = written(tmp_path, f'[[rule]]\nfrom = "192.0.2.1"\nmode = "{rule}"\n' if rule else "")
    config = load(path, **options)
    assert preflight.ruleset(config).conntrack is needed
    assert preflight.conntrack(config).startswith("conntrack: runs," if needed else "conntrack: not needed;")
    assert "conntrack" not in " ".join(preflight.warnings(config))
    offloading = load(path, ["queue.offload=yes"], **options)
    assert preflight.ruleset(offloading).conntrack
    assert ("queue.offload: makes conntrack run" in " ".join(preflight.warnings(offloading))) is not needed


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("action", Action)
def test_a_condition_takes_its_legal_values_and_names_them(name: str, action: Action) -> None:
    legal = CONDITIONS[name].actions
    if action in legal:
        assert load(None, [f"on.{name}={action}"]).on.action(name, Mode.ENFORCE) is action
    else:
        with pytest.raises(ConfigError, match=f"on.{name}: {action}; one of {', '.join(legal)}"):
            load(None, [f"on.{name}={action}"])


def test_rules_pick_mode_and_profile_and_the_gateway_comes_last(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        [gateway]
        mode = "enforce"
        profile = "pix63"
        hook = "input"
        [[rule]]
        from = "192.0.2.0/24"
        in = "eth1"
        ports = 2525
        mode = "monitor"
        profile = "asa"
        """,
    )
    config = load(path)
    first, last = config.flow_rules()
    assert (first.mode, first.policy.name, first.interface, first.ports) == (Mode.MONITOR, "asa", "eth1", (2525,))
    assert [str(network) for network in first.source] == ["192.0.2.0/24"]
    assert (last.mode, last.policy.name) == (Mode.ENFORCE, "pix63")
    assert config.ports() == (25, 2525)
    assert config.gateway.hook == (Hook.INPUT,)


def test_set_overrides_any_key_of_configuration_and_policy() -> None:
    config = load(
        None, ["banner.separator=no", "queue.driver=netfilterqueue", "on.gap=drop", "actions.banner.masked=log"]
    )
    policy = config.flow_rules()[-1].policy
    assert policy.banner.separator is False
    assert policy.action("banner.masked") is Action.LOG
    assert config.queue.driver is Driver.NETFILTERQUEUE
    assert config.on.gap is Action.DROP


def test_policy_section_overrides_every_profile(tmp_path: Path) -> None:
    config = load(written(tmp_path, '[policy.commands]\nunknown = "xall"\nallow = ["HELO", "EHLO"]\n'))
    commands = config.flow_rules()[-1].policy.commands
    assert (commands.unknown, commands.allow) == (UnknownCommand.XALL, ("HELO", "EHLO"))


def test_faithful_turns_on_the_masking_of_partial_lines() -> None:
    assert load(faithful=True).flow_rules()[-1].policy.commands.partial_lines is PartialLines.MASK


@pytest.mark.parametrize("hook", ["input", "output", "input,output"])
def test_a_mail_host_is_seen_in_both_directions(hook: str) -> None:
    assert load(None, [f"gateway.hook={hook}"]).hooks() == (Hook.INPUT, Hook.OUTPUT)


def test_held_packets_stay_under_a_quarter_of_the_queue() -> None:
    assert load(None, ["queue.length=100"]).engine_limits().held_packets == 25


def test_everything_wrong_is_said_at_once_with_its_key(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        [gateway]
        mode = "enforce"
        adresses = ["192.0.2.1"]
        [queue]
        lenght = 5
        """,
        "gateway.dry_run=perhaps",
    )
    assert found == [
        "--set gateway.dry_run: 'perhaps'; yes or no",
        "gateway.adresses: no such key; did you mean 'addresses'?",
        "queue.lenght: no such key; did you mean 'length'?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[gateway]\nmode = "enforced"', "gateway.mode: 'enforced'; one of enforce, monitor, restore"),
        ('[gateway]\nprofile = "pix99"', "profile 'pix99': unknown; one of asa, asa-log, asa-tls, asa84, fwsm2"),
        ('[gateway]\naddresses = ["mail"]', "gateway.addresses: 'mail' is no address or network"),
        ("[gateway]\nports = [0]", "gateway.ports: 0; 1 to 65535"),
        ("[gateway]\nports = []", "gateway.ports: no port, nothing to inspect"),
        ('[queue]\nnumbers = "3-1"', "queue.numbers: '3-1'; a number from 0 to 65535, or a range like 0-3"),
        ("[queue]\nlength = 0", "queue.length: 0; 1 to 1000000 packets"),
        ("[limits]\nflows = -1", "limits.flows: -1; more than 0"),
        ('[on]\ngap = "mask"', "on.gap: mask; one of pass, drop, reset"),
        ('[on]\nqueue_full = "reset"', "on.queue_full: reset; one of pass, drop"),
        ('[restore]\nside = "left"', "restore.side: 'left'; one of"),
        ('[restore]\nkeywords = ["250-SIZE"]', "restore.keywords: '250-SIZE'; write it without its code"),
        ('[restore]\nbanner = "\\u00e9"', "restore.banner: 'é'; printable ASCII, 1 to 253 octets"),
        (
            '[[restore.server]]\naddress = "192.0.2.1"',
            "restore.server 1: address: no such key; did you mean 'addresses'?",
        ),
        ('[[restore.server]]\naddresses = ["x"]', "restore.server 1: addresses: 'x' is no address or network"),
        ('[[rule]]\nform = "192.0.2.1"', "rule 1: form: no such key; did you mean 'from'?"),
        ('restore.server = ["x"]', "restore.server 1: expected `object`, got `str`"),
        ('[policy.commands]\nletter = "Y"', "commands.letter: 'Y'; X or x"),
        ("gateway = 3", "gateway: expected `object`, got `int`"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_and_where(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert expected in found[0]


def test_unknown_keys_and_wrong_values_are_said_in_one_run(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        colour = 1
        [gateway]
        mode = "enforced"
        ports = ["x", 25]
        addresses = ["mail"]
        [queue]
        lenght = 5
        length = 0
        copy_range = "all"
        [[rule]]
        form = "192.0.2.1"
        to = ["nowhere"]
        mode = "loud"
        [limits]
        flows = -1
        [policy.commands]
        letter = "Y"
        line_length = 0
        """,
        "banner.nothing=1",
        "queue.numbers=3-1",
    )
    for expected in (
        "queue.lenght: no such key; did you mean 'length'?",
        "colour: no such key",
        "gateway.mode: 'enforced'; one of enforce, monitor, restore",
        "gateway.ports[0]: expected `int`, got `str`",
        "queue.copy_range: expected `int`, got `str`",
        "rule 1: form: no such key; did you mean 'from'?",
        "rule 1: mode: 'loud'; one of",
        "gateway.addresses: 'mail' is no address or network",
        "queue.length: 0; 1 to 1000000 packets",
        "queue.numbers: '3-1'",
        "rule 1: to: 'nowhere' is no address or network",
        "limits.flows: -1; more than 0",
    ):
        assert any(expected in line for line in found), (expected, found)


def test_a_profile_names_all_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "x"\ncolour = 1\n[commands]\nletter = "Y"\nline_length = 0\nunknown = "loud"\n')
    with pytest.raises(ConfigError) as caught:
        load_profile(str(path))
    said = str(caught.value).splitlines()
    assert len(said) == 4
    assert all("mine.toml: " in line for line in said)


@pytest.mark.parametrize("given", ["25,587", "25, 587", "[25,587]", "[25, 587]", '["25", "587"]'])
def test_a_list_is_set_as_the_file_has_it(given: str) -> None:
    assert load(None, [f"gateway.ports={given}"]).gateway.ports == (25, 587)


def test_words_and_lists_of_a_policy_are_set_alike() -> None:
    for given in ("HELO,QUIT", '["HELO", "QUIT"]'):
        assert load(None, [f"commands.allow={given}"]).flow_rules()[-1].policy.commands.allow == ("HELO", "QUIT")


@pytest.mark.parametrize("given", ["[[25]]", "[25", "[25] x = 1"])
def test_a_list_that_is_none_is_one_line(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, [f"gateway.ports={given}"])
    assert len(str(caught.value).splitlines()) == 1
    assert "--set gateway.ports" in str(caught.value)


def test_toml_that_is_none_says_where(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, "[gateway\n")
    assert "at line 1" in line


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"/nowhere\.toml: No such file or directory"):
        load(Path("/nowhere.toml"))


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_and_names_itself(name: str) -> None:
    policy = load_profile(name)
    assert policy.name == name
    assert policy.title
    assert override(policy, {}) == policy


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "Mine"\n[commands]\nallow = ["HELO"]\n[actions]\n"command.denied" = "reset"\n')
    assert load_profile(str(path)).action("command.denied") is Action.RESET


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[actions]\n"command.denied" = "blank"', "actions.command.denied: blank is not possible here"),
        ('[actions]\n"stream.gap" = "pass"', "actions.stream.gap: decided by [on] gap"),
        ('[actions]\n"no.such" = "log"', "actions.no.such: no such finding"),
        ("[commands]\nline_length = 0", "commands.line_length: 0; a positive number, or none"),
        ("[comands]", "comands: no such key; did you mean 'commands'?"),
    ],
)
def test_a_profile_that_cannot_be_used_says_why(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.toml") as caught:
        load_profile(str(path))
    assert expected in str(caught.value)


def test_the_struct_of_a_configuration_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Config().gateway = None  # type: ignore[misc, assignment]

"""A real Prometheus scrapes a real gateway under mail: it counts what was sent, and alerts on what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_mail import ROOT, is_real_root, letter, submit

from nfmailguard.events.counters import COUNTERS
from nfmailguard.lab.postfix import make_reachable
from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import GATEWAY, Topology
from nfmailguard.service.asking import Asking
from tests.support.prometheus import Prometheus

pytestmark = pytest.mark.live

DEPLOY = Path(__file__).parents[2] / "deploy"
NOBODY = 65534
#: The command; it becomes nobody when all is imported, for a checkout and its Python may be root's alone.
PROGRAM = (
    "import encodings.idna, nfmailguard.config, nfmailguard.service.exporter; from nfmailguard.cli import main; main()"
)
BECOME = PROGRAM.replace(" main()", f" import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); main()")


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    if not ROOT:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"nx{os.getpid()}-") as made:
        yield made


class Exporter:
    """``nfmailguard exporter``, by an unprivileged user where this machine's root may become one."""

    def __init__(self, control: Path) -> None:
        argv = [sys.executable, "-c", BECOME if is_real_root() else PROGRAM, "exporter"]
        argv += ["--socket", str(control), "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.target = self.process.stdout.readline().split()[-1].removeprefix("http://").removesuffix("/metrics")

    def end(self) -> tuple[str, str]:
        assert self.process.stdout
        assert self.process.stderr
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return self.process.stdout.read(), self.process.stderr.read()  # `communicate` misses what was read ahead

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


def settled(control: Path) -> dict[str, int]:
    """The counters, once the last connection's last packets have come."""
    with Asking(str(control)) as asking:
        stats = asking.ask("stats")
        while True:
            time.sleep(1)
            before, stats = stats, asking.ask("stats")
            if before["packets"] == stats["packets"]:
                return dict(stats)


def dashboard() -> list[str]:
    """Its queries, with what Grafana would put in."""
    board = json.loads((DEPLOY / "grafana" / "nfmailguard.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    queries += [one["expr"] for one in board["annotations"]["list"]]
    return [one.replace("$instance", ".+").replace("$__rate_interval", "30s") for one in queries]


def test_prometheus_counts_the_mails_and_tells_what_goes_wrong(topology: Topology, tmp_path: Path) -> None:
    make_reachable(tmp_path)
    control = tmp_path / "control.sock"
    options = ["--mode", "enforce", "--profile", "asa", "--queue", "0-1", "--set", f"service.control={control}"]
    options += ["--set", f"service.group={NOBODY}"]
    with (
        MailServer(topology, tmp_path / "mail") as server,
        Gateway(topology, tmp_path / "gateway", *options) as gateway,
        Exporter(control) as exporter,
        Prometheus(tmp_path, exporter.target, DEPLOY / "prometheus" / "nfmailguard.rules.yml") as prometheus,
    ):
        labels = prometheus.until("nfmailguard_up", 1)
        assert labels == {"__name__": "nfmailguard_up", "instance": exporter.target, "job": "nfmailguard"}
        for number in range(7):
            submit(topology, letter(2000 * number), 6 if number % 2 else 4)
        prometheus.until('nfmailguard_mails_total{outcome="accepted"}', 7)
        assert len(server.mails()) == 7
        prometheus.until("sum(nfmailguard_flows_begun_total)", 7)
        prometheus.until('nfmailguard_findings_total{finding="banner.masked"}', 7)
        rule = prometheus.until("nfmailguard_rule_info", 1)
        assert (rule["rule"], rule["mode"], rule["profile"]) == ("gateway", "enforce", "asa")
        stats = settled(control)
        assert {name for name in stats if name not in COUNTERS} == set()
        prometheus.until("nfmailguard_packets_total", stats["packets"])
        prometheus.until("sum(nfmailguard_queue_packets_total)", stats["packets"])
        for query in dashboard():
            prometheus.query(query)
        assert prometheus.query('ALERTS{alertstate="firing"}') == []

        with topology.enter(GATEWAY):
            subprocess.run(["nft", "flush", "ruleset"], check=True)
        prometheus.until('ALERTS{alertstate="firing",alertname="NfmailguardRulesLost"}', 1)
        prometheus.until('nfmailguard_degraded_reason{reason="rules"}', 1)
        (lost,) = [one for one in prometheus.alerts() if one["labels"]["alertname"] == "NfmailguardRulesLost"]
        assert lost["annotations"]["summary"] == f"{exporter.target}: our nftables table has gone"
        gateway.stop()
        prometheus.until("nfmailguard_up", 0)
        assert prometheus.query("nfmailguard_packets_total") == []
        with Gateway(topology, tmp_path / "again", *options):
            prometheus.until("nfmailguard_up", 1)
            prometheus.until("nfmailguard_rules_in_place", 1)
            submit(topology, letter(100), 4)
            prometheus.until('nfmailguard_mails_total{outcome="accepted"}', 1)
        out, err = exporter.end()
    assert err == ""
    told = [line.removeprefix("nfmailguard: exporter: ") for line in out.splitlines()]
    assert [line.partition(" at ")[0] for line in told][:2] == ["no gateway answers", "the gateway answers again"]


@pytest.mark.skipif(not is_real_root(), reason="needs the machine's root, to become another user")
def test_whoever_is_not_in_the_group_is_told_so(topology: Topology, tmp_path: Path) -> None:
    make_reachable(tmp_path)
    control = tmp_path / "control.sock"
    with Gateway(topology, tmp_path / "gateway", "--set", f"service.control={control}"), Exporter(control) as exporter:
        time.sleep(0.5)
        out, err = exporter.end()
    assert err == ""
    assert out == f"nfmailguard: exporter: no gateway answers at {control}: Permission denied\n"

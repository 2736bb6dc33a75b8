"""How much the searching tests search, and a world for the live ones where there is no root.

``fast`` unless ``--hypothesis-profile`` says ``deep``. Without root the whole run moves into
namespaces in which it is root; where the kernel refuses, the live tests skip and say why.
"""

import os
import signal
import sys
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

from nfmailguard.errors import LabError
from nfmailguard.lab.namespaces import enter_private, inside, run_private

pytest_plugins = ["tests.stream.told"]

#: The signals that whoever started the tests ignored; the workers of a parallel run read it, too.
UNHEARD = "NFMAILGUARD_TESTS_UNHEARD"


def _unheard(number: int, frame: FrameType | None) -> None:
    """Nothing: as ignored as before, but the programs that a test starts begin with the default."""


def _begin_signals_anew() -> None:
    # Ignored signals and blocked ones are handed down: `nohup make test`, or a shell in the background, which
    # ignores SIGINT for what it starts. SIGPIPE and SIGXFSZ are Python's own to ignore, and no child gets them so.
    handed_down = {int(number) for number in os.environ.get(UNHEARD, "").split()}
    own = {signal.SIGPIPE, signal.SIGXFSZ}
    handed_down |= {one for one in signal.valid_signals() - own if signal.getsignal(one) is signal.SIG_IGN}
    for number in handed_down:
        signal.signal(number, _unheard)
    os.environ[UNHEARD] = " ".join(str(int(number)) for number in sorted(handed_down))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


_begin_signals_anew()
if inside():
    enter_private()


# The same examples in every run: a red run can be repeated, and green stays green until code changes.
settings.register_profile("fast", max_examples=60, derandomize=True, deadline=None, print_blob=True)
settings.register_profile(
    "deep", max_examples=5000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fast")


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Without root: the same run again, in a user namespace of its own."""
    if os.geteuid() == 0 or hasattr(config, "workerinput"):
        return None
    try:
        return run_private([sys.executable, "-m", "pytest", *config.invocation_params.args])
    except LabError as error:
        sys.stderr.write(f"{error}: the live tests will skip\n")
        return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from tests.support.parallel import Together

    return Together(config, log)

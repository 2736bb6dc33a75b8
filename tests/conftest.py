"""How much the searching tests search, and a world for the live ones where there is no root.

``fast`` unless ``--hypothesis-profile`` says ``deep``. Without root the whole run moves into
namespaces in which it is root; where the kernel refuses, the live tests skip and say why.
"""

import os
import sys

import pytest
from hypothesis import HealthCheck, settings

from nfmailguard.errors import LabError
from nfmailguard.lab.namespaces import enter_private, inside, run_private

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
    if os.geteuid() == 0:
        return None
    try:
        return run_private([sys.executable, "-m", "pytest", *config.invocation_params.args])
    except LabError as error:
        sys.stderr.write(f"{error}: the live tests will skip\n")
        return None

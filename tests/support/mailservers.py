"""Exim, OpenSMTPD and sendmail for the tests: those of the lab."""

from nfmailguard.lab.unpacked import Unpacked as Other
from nfmailguard.lab.unpacked import unpacked

__all__ = ["Other", "unpacked"]

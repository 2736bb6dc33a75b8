"""``python -m nfmailguard`` is the command ``nfmailguard``."""

from nfmailguard.cli import main

main()

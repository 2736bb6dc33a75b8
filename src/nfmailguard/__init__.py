"""nfmailguard: an inline SMTP inspection engine for Linux gateways."""

__version__ = "0.1.0"

"""Sends one mail with Python's smtplib, as its manual says: HOST NAME SOURCE FROM TO FILE USER PASSWORD.

A program of its own that needs nothing but Python, so that what is measured is smtplib.
"""

import smtplib
import ssl
import sys
from pathlib import Path


def main(host: str, name: str, source: str, sender: str, recipient: str, file: str, user: str, password: str) -> None:
    """Sends the mail; raises the exceptions of smtplib."""
    with smtplib.SMTP(host, 25, local_hostname=name, timeout=10, source_address=(source, 0)) as smtp:
        smtp.ehlo_or_helo_if_needed()
        if smtp.has_extn("starttls"):
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # The lab's certificates are self-signed, so they are not verified.
            smtp.starttls(context=context)
            smtp.ehlo()
        if smtp.has_extn("auth"):
            smtp.login(user, password)
        smtp.sendmail(sender, [recipient], Path(file).read_bytes())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (OSError, smtplib.SMTPException) as error:
        sys.exit(f"{type(error).__name__}: {error}")

"""The SMTP dialogue."""

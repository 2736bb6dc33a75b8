"""Looks for a Mailguard-like firewall on the path to a mail server, from where mail would come."""

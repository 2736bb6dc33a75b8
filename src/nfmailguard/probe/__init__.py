"""Looking for a Mailguard-like box on the path to a mail server, from where mail would come."""

"""SMTP as tables, and the obvious model that the core is held against."""

"""SMTP as tables, and the reference model: a plain Python implementation that the core is compared with."""

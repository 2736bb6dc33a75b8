"""Output for people: text for the terminal, and HTML pages."""

"""Dialogues as both sides saw them, from any source: what was sent, what arrived, and why it differs."""

"""Dialogues as both sides saw them, whatever they come from: what was sent, what arrived, and why it differs."""

"""Measuring: packets and mail as a load."""

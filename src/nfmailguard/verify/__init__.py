"""Compares a profile with a real firewall: what two profiles do differently, and whether a firewall does what a profile
says.
"""

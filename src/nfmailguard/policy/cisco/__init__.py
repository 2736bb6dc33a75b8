"""Configurations of PIX, ASA, FWSM and IOS: read into policies, and policies written back as one."""

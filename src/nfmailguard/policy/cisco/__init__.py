"""Configurations of PIX, ASA, FWSM and IOS: reading them into policies, and writing policies as configurations."""

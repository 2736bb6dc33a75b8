"""``lab compare``: every client with every server through every profile in every mode, compared with expectations."""

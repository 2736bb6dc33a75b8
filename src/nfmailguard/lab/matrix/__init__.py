"""``lab compare``: every client with every server through every profile in every mode, against what was expected."""

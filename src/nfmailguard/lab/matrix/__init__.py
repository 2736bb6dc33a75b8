"""``lab compare``: every client with every server through every profile in every mode, held against what was expected."""

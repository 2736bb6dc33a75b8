"""What to do about each finding: the model, the profiles as data, and their loading."""

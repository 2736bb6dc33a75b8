"""What is done about each finding: the policy model, the profiles as data, and loading them."""

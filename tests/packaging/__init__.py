"""What is packed works where there is no checkout."""

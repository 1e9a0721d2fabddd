"""What machines report, in words and tables."""

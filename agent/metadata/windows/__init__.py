"""What Windows knows of a file: parsers that run anywhere, and thin calls that run there."""

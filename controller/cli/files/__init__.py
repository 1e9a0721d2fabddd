"""Files on their way to machines and back."""

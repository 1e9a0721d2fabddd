"""Finding what changed since the last restore point, and taking in what did."""

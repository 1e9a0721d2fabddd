"""What a backup visits and what it leaves out."""

"""From the content of files to sealed chunks."""

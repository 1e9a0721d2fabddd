"""How results, progress and complaints reach whoever typed the command."""

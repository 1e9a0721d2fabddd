"""Restore points as an operator reads them, with the recovery key."""

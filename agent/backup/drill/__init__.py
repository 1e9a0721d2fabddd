"""Proving that a restore point restores."""

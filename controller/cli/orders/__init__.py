"""Signing orders and following them to their end."""

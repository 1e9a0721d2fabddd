"""Knowing that what is stored is whole, and what to do where it is not."""

"""Giving chunks back."""

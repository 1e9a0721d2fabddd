"""Giving back the room of what no restore point reaches."""

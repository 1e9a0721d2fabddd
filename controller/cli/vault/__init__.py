"""The care of vaults and of what they keep."""

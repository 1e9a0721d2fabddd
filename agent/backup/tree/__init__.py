"""The tree of a restore point, and what the agent remembers of the last one."""

"""Writing a part of a restore point into a directory, or comparing it with one."""

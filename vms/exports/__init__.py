"""Machines as files that people take away. Not for: backups, which come back by themselves."""

"""The command `tiny`."""

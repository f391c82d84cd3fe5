"""The gateway as a client of a relay."""

"""Pure state machines of the long-lived streams."""

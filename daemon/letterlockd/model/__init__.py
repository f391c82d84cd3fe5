"""Value types shared by all rooms."""

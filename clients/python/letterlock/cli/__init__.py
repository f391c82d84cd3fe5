"""The `letterlock` command."""

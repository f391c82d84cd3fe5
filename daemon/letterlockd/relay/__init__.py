"""The blind transport: accounts, directory, mailboxes."""

"""A user's device: account, sessions, mailbox. The one part of the SDK that encrypts."""

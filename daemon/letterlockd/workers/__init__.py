"""The pool of ratchet processes."""

"""PQXDH and the Double Ratchet as pure functions over bytes."""

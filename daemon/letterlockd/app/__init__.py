"""The composition roots: which parts a role is made of, and in which order they open.

    relay.py     store ─ keyring ─ room ─ server
    gateway.py   stores ─ keyrings ─ registry ─ workers ─ room (uplink) ─ server
    parts.py     what both need

What opens later closes earlier; `letterlockd.role` runs what is composed here. One module for each
role, so that a relay process never loads the ratchet (I3); nothing is imported here.
"""

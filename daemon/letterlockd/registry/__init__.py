"""Businesses, their numbers and the tokens that may act for them.

    room.py        Registry: what the other rooms and the servicer call
    businesses.py  businesses as values, and their checked inputs
    enrolment.py   giving a business a number
    removal.py     taking numbers and businesses away
    ledger.py      rows of businesses, read and changed together with the audit trail
    senders.py     business number → who may send with it
    principals.py  bearer token → principal; revocation
    tokens.py      the text form of tokens and its digest (pure)
    audit.py       who did what
    tables.py      the drawn key tree

Holds business information and no message, no content, no user's number and no private key.
"""

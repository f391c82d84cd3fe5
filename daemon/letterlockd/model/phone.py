"""Phone numbers in E.164 form, checked with the `phonenumbers` library.

The number never appears in an error: only the field's name and the rule do.
"""

from __future__ import annotations

from functools import lru_cache

import phonenumbers

from letterlockd.errors import InvalidField

RULE = "must be a possible phone number in E.164 form: + and 7 to 15 digits"


def check_e164(number: str, field: str) -> str:
    """Return `number` when it is a possible number written exactly in E.164 form.

    Raises `InvalidField` with reason INVALID_PHONE_NUMBER, naming `field`.
    """
    if not _is_e164(number):
        raise InvalidField(field, RULE, reason="INVALID_PHONE_NUMBER")
    return number


@lru_cache(maxsize=16_384)  # parsing takes some 50 µs and campaigns repeat their recipients
def _is_e164(number: str) -> bool:
    if not 8 <= len(number) <= 16 or number[0] != "+":
        return False
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return False
    canonical = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    return bool(canonical == number and phonenumbers.is_possible_number(parsed))

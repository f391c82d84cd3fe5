import os
import uuid

import pytest
from letterlockd.model.ids import AccountId, ratchet_name


def test_a_ratchet_name_is_the_text_of_the_uuid() -> None:
    for account in (bytes(16), b"\xff" * 16, os.urandom(16)):
        assert ratchet_name(AccountId(account)) == str(uuid.UUID(bytes=account))


@pytest.mark.parametrize("size", [0, 15, 17])
def test_what_has_not_16_bytes_has_no_ratchet_name(size: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        ratchet_name(AccountId(bytes(size)))

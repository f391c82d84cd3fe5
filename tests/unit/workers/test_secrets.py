"""No class of the workers that holds keys shows them."""

import os

import pytest
import tripleratchet as tr
from letterlockd.records.v1 import conversation_pb2
from letterlockd.workers.conversation import Conversation
from letterlockd.workers.prekeys import GivenPreKeys
from letterlockd.workers.sealed import ConversationSeal
from letterlockd.workers.steps import Setting

SECRET = b"secret 0123456789 secret 0123456"


def setting() -> Setting:
    identity = tr.IdentityKeyPair.from_private(SECRET)
    local = tr.LocalParty(tr.Address("9d0652a3-dcc3-4d11-975f-74d61598733f", 1), identity, 1)
    return Setting(local, SECRET.decode(), SECRET, SECRET, SECRET, 0, 0, os.urandom)


@pytest.mark.parametrize(
    "holder",
    [
        setting(),
        GivenPreKeys(SECRET, SECRET, [], set()),
        ConversationSeal(SECRET, SECRET),
        Conversation(conversation_pb2.ConversationRecord(user_account_id=SECRET)),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_its_repr_holds_no_secret(holder: object) -> None:
    assert "secret" not in repr(holder)
    assert "secret" not in str(holder)

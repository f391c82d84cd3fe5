"""Random histories of one mailbox: what is submitted arrives, in order, and is receipted once.

Played on the relay without a network, over a store whose commits take a random number of turns of
the event loop, with frames and live buffers so small that streams fall behind all the time.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from letterlock.relay.v1 import mailbox_pb2
from letterlock.relay.v1.mailbox_pb2 import Receipt
from letterlockd.model.ids import AccountId
from letterlockd.relay.accounts import Account, Device
from letterlockd.relay.connection import Connection
from letterlockd.relay.credentials import Caller, DeviceCaller, GatewayCaller
from letterlockd.relay.room import Relay
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.tables import MAILBOXES
from letterlockd.sealing import keyring
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.history import History
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Commit, Outcome, Record, Table

from tests.harness.clock import FakeClock
from tests.harness.relay import GATEWAYS, Outbox, memory_store

SETTINGS = RelaySettings(max_frame_items=3, device_frame_bytes=600, batch_seconds=0)
OPEN = mailbox_pb2.ConnectRequest(open=mailbox_pb2.Open(window=5))


class SlowStore:
    """A store that needs a random number of turns: before and after a commit, and to hand over what
    a scan has read."""

    def __init__(self, store: MemoryStore, seed: int) -> None:
        self._store = store
        self._random = random.Random(seed)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def commit(self, commits: Sequence[Commit]) -> list[Outcome]:
        await self._turns()
        outcomes = await self._store.commit(commits)
        await self._turns()
        return outcomes

    async def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int
    ) -> list[tuple[bytes, Record]]:
        rows = await self._store.scan(table, prefix=prefix, after=after, limit=limit)
        await self._turns()
        return rows

    async def _turns(self) -> None:
        for _ in range(self._random.randrange(6)):
            await asyncio.sleep(0)


class Party:
    """One mailbox's owner: connects again and again, and remembers what each stream brought."""

    def __init__(self, relay: Relay, caller: Caller, *, acknowledge: bool) -> None:
        self.relay = relay
        self.caller = caller
        self.streams: list[list[mailbox_pb2.Item]] = []
        self.changed = asyncio.Event()
        self._acknowledge = acknowledge
        self._pending: list[int] = []
        self._connection: Connection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        await self.leave()
        self._connection = await self.relay.mailboxes.open(self.caller, OPEN)
        self.streams.append([])
        self._reader = asyncio.create_task(self._read(self._connection, self.streams[-1]))

    async def leave(self) -> None:
        if self._connection is not None and self._reader is not None:
            self.relay.mailboxes.close(self._connection)
            await self._reader
            self._connection, self._pending = None, []

    async def submit(self, submissions: Sequence[mailbox_pb2.Submission]) -> None:
        assert self._connection is not None
        frame = mailbox_pb2.Submissions(submissions=submissions)
        await self.relay.mailboxes.take(
            self.caller, self._connection, mailbox_pb2.ConnectRequest(submissions=frame)
        )

    async def acknowledge(self, share: float) -> None:
        count = max(1, int(len(self._pending) * share))
        ids, self._pending = self._pending[:count], self._pending[count:]
        if ids and self._connection is not None:
            acks = mailbox_pb2.ConnectRequest(acks=mailbox_pb2.Acks(item_ids=ids))
            await self.relay.mailboxes.take(self.caller, self._connection, acks)

    async def _read(self, connection: Connection, items: list[mailbox_pb2.Item]) -> None:
        async for frame in connection.frames():
            response = mailbox_pb2.ConnectResponse.FromString(frame)
            for item in response.deliveries.items:
                items.append(item)
                self._pending.append(item.item_id)
            self.changed.set()
            if self._acknowledge:
                await self.acknowledge(1)


async def account(relay: Relay, *, gateway_id: str = "") -> Account:
    id_ = AccountId(os.urandom(16))
    mailbox = relay.gateway_mailboxes.get(gateway_id) or int.from_bytes(os.urandom(4), "big")
    made = Account(
        account_id=id_,
        identity_key=b"\x05" + bytes(32),
        number="+49301234567",
        number_index=os.urandom(32),
        devices={},
        gateway_id=gateway_id,
        retention_ms=SETTINGS.max_ttl_ms if gateway_id else 0,
    ).with_devices([Device(1, 7, 0, mailbox + (1 if gateway_id else 0), mailbox)])
    await relay.directory.save(made, ())
    return replace(made, version=1)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 8)),
        st.tuples(st.just("acknowledge"), st.floats(0, 1)),
        st.tuples(st.just("turns"), st.integers(1, 12)),
        st.tuples(st.just("connect"), st.just(0)),
        st.tuples(st.just("leave"), st.just(0)),
    ),
    max_size=30,
)


# Not shrunk: a history that hangs would be played again and again, each time to its deadline.
@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(actions=ACTIONS, seed=st.integers(0, 2**32))
def test_everything_arrives_in_order_and_is_receipted_once(
    actions: list[tuple[str, float]], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(actions, seed, Path(folder)))


async def play(actions: list[tuple[str, float]], seed: int, folder: Path) -> None:
    clock, memory = FakeClock(), memory_store()
    keys = await keyring.Keyring.open(memory, FileKeyProvider(folder / "key"), clock)
    store = SlowStore(memory, seed)
    relay = await Relay.open(
        store,  # type: ignore[arg-type]
        keys,
        clock,
        os.urandom,
        SETTINGS,
        GATEWAYS,
        Outbox(),
        await History.open(memory, lambda: 1),
    )
    try:
        async with asyncio.timeout(5):
            await history(relay, memory, clock, actions)
    finally:
        await relay.aclose()


async def history(
    relay: Relay, store: MemoryStore, clock: FakeClock, actions: list[tuple[str, float]]
) -> None:
    user, business = await account(relay), await account(relay, gateway_id="main")
    gateway = Party(relay, GatewayCaller("main"), acknowledge=True)
    device = Party(relay, DeviceCaller(user.account_id, 1, user.devices[1].slot), acknowledge=False)
    await gateway.connect()
    sent: list[bytes] = []
    for action, amount in actions:
        if action == "submit":
            made = [_submission(user, business, clock) for _ in range(int(amount))]
            sent += [one.message_id for one in made]
            await gateway.submit(made)
        elif action == "acknowledge":
            await device.acknowledge(amount)
        elif action == "turns":
            for _ in range(int(amount)):
                await asyncio.sleep(0)
        else:
            await getattr(device, action)()
    await device.connect()
    while set(_receipted(gateway)) != set(sent):
        await device.acknowledge(1)
        await asyncio.sleep(0)
    while await store.count(MAILBOXES):
        await clock.advance(0)  # lets everything run that can
    await device.leave()
    await gateway.leave()
    assert sorted(_receipted(gateway)) == sorted(sent)
    arrived = [[item.envelope.message_id for item in items] for items in device.streams]
    assert {id_ for stream in arrived for id_ in stream} == set(sent)
    for stream, items in zip(arrived, device.streams, strict=True):
        places = [sent.index(id_) for id_ in stream]
        assert places == sorted(set(places))
        assert [item.item_id for item in items] == sorted({item.item_id for item in items})


def _submission(user: Account, business: Account, clock: FakeClock) -> mailbox_pb2.Submission:
    made = mailbox_pb2.Submission(
        message_id=os.urandom(16),
        sender_account_id=business.account_id,
        recipient_account_id=user.account_id,
        receipt_wanted=True,
    )
    made.envelopes.add(device_id=1, registration_id=7, type=2, body=os.urandom(100))
    made.expire_time.FromMilliseconds(clock.now_ms() + 60_000)
    return made


def _receipted(gateway: Party) -> list[bytes]:
    return [
        receipt.message_id
        for stream in gateway.streams
        for item in stream
        for receipt in item.receipts.receipts
        if receipt.kind == Receipt.KIND_DELIVERED
    ]

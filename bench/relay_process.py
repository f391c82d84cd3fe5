"""The relay that the `relay` workload measures: a process of its own, until SIGTERM.

The relay's own rooms over LMDB in a fresh folder, each commit synced to disk, without TLS on a Unix
socket, since the peers it is set beside speak without TLS too. Nobody is rationed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import grpc
import uvloop
from letterlock.relay.v1 import accounts_pb2_grpc, keys_pb2_grpc
from letterlockd import collector
from letterlockd.clock import SystemClock
from letterlockd.relay.room import Relay
from letterlockd.relay.senders import FolderSender
from letterlockd.relay.settings import Rate, RelaySettings
from letterlockd.relay.tables import TABLES
from letterlockd.rpc.interceptors import Gatekeeper
from letterlockd.rpc.relay_accounts import AccountsServicer
from letterlockd.rpc.relay_keys import KeysServicer
from letterlockd.rpc.relay_mailbox import MailboxServicer, add_mailbox_servicer
from letterlockd.rpc.server import OPEN_METHODS
from letterlockd.sealing import keyring
from letterlockd.sealing.deletions import DELETIONS
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.history import HISTORY, History
from letterlockd.store.lmdb.front import LmdbStore

from tests.harness.relay import GATEWAYS

SOCKET = "relay.sock"
CODES = "codes"
_SETTINGS = RelaySettings(verifications_in_all=Rate(1e9, 1e9))


async def serve(folder: Path) -> None:
    """Open, say `ready` with the committer's process id, serve, and stop in order."""
    tables = [*TABLES, *keyring.TABLES, DELETIONS, HISTORY]
    store = await LmdbStore.open(folder / "relay", tables, kind="relay", schema_version=1)
    clock = SystemClock()
    keys = await keyring.Keyring.open(store, FileKeyProvider(folder / "master.key"), clock)
    past = await History.open(store, lambda: store.position)
    sender = FolderSender(folder / CODES)
    relay = await Relay.open(store, keys, clock, os.urandom, _SETTINGS, GATEWAYS, sender, past)
    gatekeeper = Gatekeeper(relay.authenticator, open_methods=OPEN_METHODS, max_calls=100_000)
    server = grpc.aio.server(interceptors=[gatekeeper])
    accounts_pb2_grpc.add_AccountsServicer_to_server(AccountsServicer(relay), server)
    keys_pb2_grpc.add_KeysServicer_to_server(KeysServicer(relay), server)
    add_mailbox_servicer(MailboxServicer(relay), server)
    server.add_insecure_port(f"unix:{folder / SOCKET}")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    collector.calm()
    print(f"ready {store.committer_pid}", flush=True)
    await stop.wait()
    await relay.drain(1)
    await server.stop(1)
    await relay.aclose()
    await store.aclose()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))

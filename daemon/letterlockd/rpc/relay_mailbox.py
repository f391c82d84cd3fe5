"""Serves `letterlock.relay.v1.Mailbox`: one coroutine writes a stream, one task reads it.

Frames to the caller come from the relay as bytes, ready to send: no message is built twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
from letterlock.relay.v1 import mailbox_pb2, mailbox_pb2_grpc

from letterlockd.errors import CallerError, LetterlockError
from letterlockd.relay.connection import Connection
from letterlockd.relay.credentials import Caller
from letterlockd.relay.mailboxes import Mailboxes
from letterlockd.relay.room import Relay
from letterlockd.rpc.relay_caller import calling

__all__ = ["MailboxServicer", "add_mailbox_servicer"]

_Context: TypeAlias = "grpc.aio.ServicerContext[mailbox_pb2.ConnectRequest, bytes]"
_Requests: TypeAlias = AsyncIterator[mailbox_pb2.ConnectRequest]

_SERVICE = "letterlock.relay.v1.Mailbox"


class MailboxServicer(mailbox_pb2_grpc.MailboxServicer):
    """See proto/letterlock/relay/v1/mailbox.proto. Add it with `add_mailbox_servicer`."""

    def __init__(self, relay: Relay) -> None:
        self._mailboxes: Mailboxes = relay.mailboxes

    async def Connect(  # type: ignore[override]  # noqa: N802 -- writes bytes itself
        self, request_iterator: _Requests, context: _Context
    ) -> None:
        """Devices and gateways."""
        caller = calling()
        first = await context.read()
        if not isinstance(first, mailbox_pb2.ConnectRequest):
            raise CallerError("the first frame must be `open`", reason="UNEXPECTED_FRAME")
        connection = await self._mailboxes.open(caller, first)
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._read(caller, connection, context))
                async for frame in self._mailboxes.frames(caller, connection):
                    await context.write(frame)
                reader.cancel()
        finally:
            self._mailboxes.close(connection)
        connection.raise_end()

    async def _read(self, caller: Caller, connection: Connection, context: _Context) -> None:
        read, take = context.read, self._mailboxes.take
        try:
            while isinstance(request := await read(), mailbox_pb2.ConnectRequest):
                await take(caller, connection, request)
        except LetterlockError as error:
            connection.end(error)
        else:
            connection.finish()


def add_mailbox_servicer(servicer: MailboxServicer, server: grpc.aio.Server) -> None:
    """Add the service with answers that are bytes already (the generated code would serialise)."""
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        servicer.Connect,
        request_deserializer=mailbox_pb2.ConnectRequest.FromString,
        response_serializer=None,
    )
    methods: dict[str, Any] = {"Connect": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    server.add_registered_method_handlers(_SERVICE, methods)

"""First contact, and what goes wrong with bundles and with a relay that is away."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from letterlock.relay.v1 import keys_pb2
from letterlock.v1 import errors_pb2
from letterlock.v1 import messaging_pb2 as api
from letterlockd.gateway.room import Gateway
from letterlockd.records.v1 import jobs_pb2
from letterlockd.uplink import RelayUnavailable

from tests.harness.clock import settle
from tests.harness.gateway import (
    Answers,
    LocalPool,
    World,
    gateway_store,
    message,
    outbox_empty,
    reading,
)

USER, OTHER = "+4915112345678", "+4915112345679"


class Directory:
    """The relay's directory as the gateway sees it, counted and changed on the way."""

    def __init__(self, gateway: Gateway) -> None:
        self.calls: list[int] = []
        self._calls = gateway.uplink.calls
        self._fetch = self._calls.fetch_bundles
        self._calls.fetch_bundles = self.fetch_bundles  # type: ignore[method-assign]

    def change(self, bundles: keys_pb2.AccountBundles) -> None:
        """Overridden where a test wants another answer."""

    async def fetch_bundles(
        self, targets: Sequence[keys_pb2.BundleTarget]
    ) -> list[keys_pb2.BundleResult]:
        self.calls.append(len(targets))
        results = await self._fetch(targets)
        for result in results:
            if result.HasField("bundles"):
                self.change(result.bundles)
        return results


class ForgedSignatures(Directory):
    def change(self, bundles: keys_pb2.AccountBundles) -> None:
        signed = bundles.devices[0].signed_pre_key
        signed.signature = signed.signature[:-1] + bytes([signed.signature[-1] ^ 1])


class NoDevices(Directory):
    def change(self, bundles: keys_pb2.AccountBundles) -> None:
        del bundles.devices[:]


async def test_recipients_are_asked_for_in_calls_of_a_hundred(world: World) -> None:
    async with world.gateway() as gateway:
        directory = Directory(gateway)
        business = await world.business(gateway)
        unknown = [message(f"k{n}", to=f"+4915500{n:06d}") for n in range(250)]
        results = await business.send(*unknown)
        assert {result.refused.reason for result in results} == {
            errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT
        }
        assert sum(directory.calls) == 250
        assert max(directory.calls) == 100


async def test_one_recipient_is_asked_for_once(world: World) -> None:
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        directory = Directory(gateway)
        business = await world.business(gateway)
        answers = Answers()
        for n in range(5):
            batch = [message(f"k{n}", to=USER, text=f"{n}")]
            await gateway.outbound.submit(business.sender, batch, answers)
        await answers.wait(5)
        await business.send(message("later", to=USER, text="later"))
        assert await reader.texts(6) == ["0", "1", "2", "3", "4", "later"]
        assert directory.calls == [1]


async def test_a_first_contact_that_a_full_disk_refused_is_made_again(world: World) -> None:
    store = gateway_store()
    async with (
        world.gateway(store) as gateway,
        reading(await world.device(USER), await world.device(OTHER)) as (_, reader),
    ):
        business = await world.business(gateway)
        await business.send(message("k0", to=USER))
        store.full = True
        (refused,) = await business.send(message("k1", to=OTHER, text="one"))
        assert refused.refused.reason == errors_pb2.ERROR_REASON_STORAGE_FULL
        store.full = False
        results = await business.send(
            message("k1", to=OTHER, text="one"), message("k2", to=OTHER, text="two")
        )
        assert all(result.HasField("accepted") for result in results)
        assert await reader.texts(2) == ["one", "two"]


async def test_forged_pre_keys_are_refused(world: World) -> None:
    await world.device(USER)
    async with world.gateway() as gateway:
        ForgedSignatures(gateway)
        business = await world.business(gateway)
        results = await business.send(message("a", to=USER), message("b", to=USER))
        assert [result.refused.reason for result in results] == 2 * [
            errors_pb2.ERROR_REASON_BAD_PRE_KEYS
        ]
        assert gateway.outbox.count == 0


async def test_an_account_without_devices_is_no_recipient(world: World) -> None:
    await world.device(USER)
    async with world.gateway() as gateway:
        NoDevices(gateway)
        business = await world.business(gateway)
        (result,) = await business.send(message("a", to=USER))
        assert result.refused.reason == errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT


async def test_while_the_relay_is_away_only_first_contacts_are_refused(world: World) -> None:
    store = gateway_store()
    async with reading(await world.device(USER)) as (reader,):
        async with world.gateway(store) as gateway:
            business = await world.business(gateway)
            (result,) = await business.send(message("k1", to=USER, text="one"))
            await business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)
            await outbox_empty(gateway)
        async with world.gateway(store, away=True) as gateway:
            business = await world.business(gateway)
            results = await business.send(
                message("k2", to=USER, text="two"), message("k3", to="+4915500000001")
            )
            known, new = sorted(results, key=lambda result: result.idempotency_key)
            assert known.HasField("accepted")
            assert new.refused.reason == errors_pb2.ERROR_REASON_RELAY_UNAVAILABLE
            assert new.refused.retry_after.ToMilliseconds() > 0
            assert gateway.outbox.count == 1
        async with world.gateway(store) as gateway:
            business = await world.business(gateway)
            assert await reader.texts(2) == ["one", "two"]
            await business.status(known.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)
            await outbox_empty(gateway)


async def test_registering_a_number_needs_the_relay_and_goes_on_later(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store, away=True) as gateway:
        with pytest.raises(RelayUnavailable):
            await world.business(gateway)
    async with world.gateway(store) as gateway:
        first = await world.business(gateway)
        again = await world.business(gateway)
        assert again.sender.account_id == first.sender.account_id
        assert again.identity_key == first.identity_key


def no_session_once() -> LocalPool:
    pool = LocalPool()

    def twist(job: jobs_pb2.Job, result: jobs_pb2.JobResult) -> None:
        failure = jobs_pb2.StepFailure(name="SessionNotFound")
        for worked in result.results:
            worked.sealed_record = b""
            for step in worked.steps:
                step.failure.CopyFrom(failure)
        pool.twist = None

    pool.twist = twist
    return pool


async def test_a_conversation_without_sessions_gets_new_ones_in_order(world: World) -> None:
    store = gateway_store()
    async with reading(await world.device(USER)) as (reader,):
        async with world.gateway(store) as gateway:
            business = await world.business(gateway)
            await business.send(message("k1", to=USER, text="one"))
            await reader.texts(1)
        async with world.gateway(store, pool=no_session_once()) as gateway:
            business = await world.business(gateway)
            results = await business.send(
                message("k2", to=USER, text="two"), message("k3", to=USER, text="three")
            )
            assert all(result.HasField("accepted") for result in results)
            assert await reader.texts(3) == ["one", "two", "three"]


async def test_an_internal_failure_is_refused_without_detail(world: World) -> None:
    pool = LocalPool()
    async with world.gateway(pool=pool) as gateway:
        await world.device(USER)
        business = await world.business(gateway)

        def twist(job: jobs_pb2.Job, result: jobs_pb2.JobResult) -> None:
            for worked in result.results:
                for step in worked.steps:
                    step.failure.CopyFrom(jobs_pb2.StepFailure(name="WorkerLost"))

        pool.twist = twist
        (result,) = await business.send(message("k", to=USER))
        assert result.refused.reason == errors_pb2.ERROR_REASON_INTERNAL
        assert result.refused.detail == "internal error"
        pool.twist = None
        (result,) = await business.send(message("k", to=USER))
        assert result.HasField("accepted")
        await settle()

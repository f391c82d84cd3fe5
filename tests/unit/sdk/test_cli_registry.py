"""The operator's commands of the CLI: what they ask of the gateway, and what they do here."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from letterlock.cli.commands import main
from letterlock.v1 import businesses_pb2_grpc

from tests.harness.served import served
from tests.unit.sdk.test_admin import FakeBusinesses
from tests.unit.sdk.test_cli import letterlock

BUSINESS = "0" * 32
OPERATOR = ("--token", "operator")
NOBODY = ("--gateway", "127.0.0.1:1", "--insecure")


@pytest.fixture
def businesses() -> FakeBusinesses:
    return FakeBusinesses()


@pytest.fixture
async def gateway(businesses: FakeBusinesses) -> AsyncIterator[str]:
    add = partial(businesses_pb2_grpc.add_BusinessesServicer_to_server, businesses)
    async with served(add) as target:
        yield target


async def test_a_revoked_token_leaves_the_profile(tmp_path: Path, gateway: str) -> None:
    profile = tmp_path / "letterlock" / "profile.toml"
    profile.parent.mkdir()
    kept, other = "ll.0123456789abcdef.s-ecret", "ll.fedcba9876543210.other"
    lines = (
        f'"{BUSINESS}" = "{kept}"',
        f'"+15550100100" = "{kept}"',
        f'"+15550100101" = "{other}"',
    )
    profile.write_text("\n".join(["[tokens]", *lines]))
    revoking = (*OPERATOR, "token", "revoke", BUSINESS)
    code, _, err = await letterlock(tmp_path, gateway, *revoking, "0123456789abcdef")
    assert (code, err) == (0, f"it is gone from {profile}, too\n")
    assert tomllib.loads(profile.read_text())["tokens"] == {"+15550100101": other}
    code, _, err = await letterlock(tmp_path, gateway, *revoking, "0123456789abcdef")
    assert (code, err) == (0, "")
    adding = (*OPERATOR, "number", "add", BUSINESS, "+15550100102")
    code, _, err = await letterlock(tmp_path, gateway, *adding)
    assert (code, err) == (0, "")


def test_an_update_of_nothing_is_refused_before_anybody_is_asked() -> None:
    told = CliRunner().invoke(main, [*NOBODY, *OPERATOR, "business", "update", BUSINESS])
    limit = "options: --name, --retention or --identity-changes"
    assert (told.exit_code, told.stdout) == (2, "")
    assert told.stderr == f"letterlock: INVALID_FIELD: nothing to change ({limit})\n"


@pytest.mark.parametrize("days", ["nan", "-1", "0", "0.0034", "30.01", "inf", "1e300"])
@pytest.mark.parametrize("command", [("create", "Shop"), ("update", BUSINESS)])
def test_a_retention_out_of_range_names_the_option_and_the_limits(
    command: tuple[str, ...], days: str
) -> None:
    asking = [*NOBODY, *OPERATOR, "business", *command, "--retention", days]
    told = CliRunner().invoke(main, asking)
    limit = "--retention: in days, from 5 minutes (0.0035) to 30 days"
    assert (told.exit_code, told.stdout) == (2, "")
    assert told.stderr == f"letterlock: INVALID_FIELD: out of range ({limit})\n"


@pytest.mark.parametrize("seconds", ["nan", "-5", "0.9", "2592001", "inf"])
def test_a_time_to_live_out_of_range_names_the_option_and_the_limits(seconds: str) -> None:
    sending = ["send", "--from", "+15550100100", "--to", "+15550100101", "--ttl", seconds, "hi"]
    told = CliRunner().invoke(main, [*NOBODY, "--token", "business", *sending])
    limit = "--ttl: 1 second to the business's retention, which is 30 days at most"
    assert (told.exit_code, told.stdout) == (2, "")
    assert told.stderr == f"letterlock: INVALID_FIELD: out of range ({limit})\n"


async def test_the_limits_of_a_retention_are_in_range(
    tmp_path: Path, gateway: str, businesses: FakeBusinesses
) -> None:
    for days in ("0.0035", "30"):
        creating = (*OPERATOR, "business", "create", "Shop", "--retention", days)
        code, _, err = await letterlock(tmp_path, gateway, *creating)
        assert (code, err) == (0, "")
    assert [made.retention.ToMilliseconds() for made in businesses.made] == [302_400, 2_592_000_000]

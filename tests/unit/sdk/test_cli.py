"""The `letterlock` command as a process, against an in-process gateway; and what it shows."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import secrets
import signal
import sys
from collections import deque
from pathlib import Path

import grpc
import pytest
from letterlock.business.client import BusinessClient
from letterlock.business.events import Event, status_name
from letterlock.cli.device import account_of, find_code, is_message
from letterlock.cli.explain import explain
from letterlock.cli.output import (
    Output,
    cell,
    error_line,
    event_row,
    exit_code,
    message_row,
    moment,
    table,
)
from letterlock.cli.settings import (
    Settings,
    forget_business,
    forget_number,
    profile_path,
    read_profile,
    save_number,
    save_token,
)
from letterlock.cli.watch import watch_row
from letterlock.content.v1 import content_pb2
from letterlock.device.device import Device
from letterlock.device.events import IncomingMessage, Receipt
from letterlock.device.store import FileStore, MemoryStore
from letterlock.errors import (
    Busy,
    DeviceError,
    Forbidden,
    InvalidRequest,
    LetterlockError,
    NotFound,
    Replaced,
    Unavailable,
    UnknownRecipient,
)
from letterlock.v1 import errors_pb2, messaging_pb2

from tests.harness.fakes_relay import CODE, ConnectPlan, FakeRelay, serving_relay
from tests.harness.fakes_sdk import NUMBER, TOKEN, FakeGateway, serving
from tests.unit.sdk.test_admin import certificate

USER = "+4915112345679"


async def letterlock(
    folder: Path, target: str, *arguments: str, insecure: bool = True
) -> tuple[int, list[str], str]:
    """Run the command; its exit code, lines of output, and errors."""
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder), "LETTERLOCK_GATEWAY": target}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from letterlock.cli.commands import main; main()",
        *(("--insecure",) if insecure else ()),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=folder,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode().splitlines(), err.decode()


async def test_send_status_and_receive(tmp_path: Path) -> None:
    gateway = FakeGateway()
    gateway.write("hello", "again")
    token = ("--token", TOKEN)
    async with serving(gateway) as target:
        sending = ("send", "--from", NUMBER, "--to", USER, "--key", "k", "hi there")
        code, lines, _ = await letterlock(tmp_path, target, *token, *sending)
        assert (code, json.loads(lines[0])["message_id"]) == (0, "id-k")
        code, lines, _ = await letterlock(
            tmp_path, target, *token, "status", "--from", NUMBER, "--key", "k"
        )
        assert json.loads(lines[0])["status"] == "ACCEPTED"
        code, lines, _ = await letterlock(
            tmp_path, target, *token, "receive", "--number", NUMBER, "--no-wait"
        )
    assert code == 0
    texts = [json.loads(line)["content"]["text"]["body"] for line in lines]
    assert texts == ["hello", "again"]
    assert not gateway.inbox
    assert gateway.messages["k"].content.text.body == "hi there"


async def test_errors_are_one_line_and_an_exit_code(tmp_path: Path) -> None:
    sending = ("send", "--from", NUMBER, "--to", USER, "hi")
    async with serving(FakeGateway()) as target:
        code, lines, err = await letterlock(tmp_path, target, "--token", "wrong", *sending)
        assert (code, lines) == (3, [])
        assert err == "letterlock: UNAUTHENTICATED: unauthenticated\n"
        code, _, err = await letterlock(tmp_path, target, *sending)
        assert code == 2
        assert err.startswith("letterlock: INVALID_FIELD: no token for this number")
        assert NUMBER not in err
        code, _, err = await letterlock(tmp_path, target, "business", "list")
        assert code == 2
        assert "operator.token" in err


def test_tokens_are_kept_in_the_profile_and_found_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    profile_path().parent.mkdir()
    profile_path().write_text('gateway = "example:1"\nca = "/a \\"quoted\\" path"\n')
    save_token("a" * 32, [NUMBER], 'to"ken')
    save_token("b" * 32, [USER], "other")
    assert profile_path().stat().st_mode & 0o777 == 0o600
    settings = Settings(profile=read_profile())
    assert settings.business_token(NUMBER) == 'to"ken'
    assert settings.business_token(USER) == "other"
    assert save_number("c" * 32, "+49111111") is None
    save_number("a" * 32, "+49222222")
    assert Settings(profile=read_profile()).business_token("+49222222") == 'to"ken'
    assert settings.gateway == "example:1"
    assert settings.ca == '/a "quoted" path'
    assert Settings(given_gateway="given:2", profile=read_profile()).gateway == "given:2"
    assert "ken" not in repr(settings)
    assert forget_number("+49333333") is None
    assert forget_number("+49222222") == profile_path()
    assert forget_business("c" * 32) is None
    assert forget_business("a" * 32) == profile_path()
    assert read_profile()["tokens"] == {"b" * 32: "other", USER: "other"}
    assert read_profile()["gateway"] == "example:1"
    profile_path().write_text("not toml at all")
    with pytest.raises(InvalidRequest, match="profile"):
        read_profile()


def test_a_local_data_folder_is_found(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    assert settings.ca is None
    with pytest.raises(InvalidRequest, match="token"):
        settings.operator_token()
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "ca.crt").write_text("")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "operator.token").write_text("op\n")
    (tmp_path / "verification").mkdir()
    (tmp_path / "verification" / ("a" * 32)).write_text("123456")
    assert settings.ca == str(tmp_path / "tls" / "ca.crt")
    assert Settings(data=tmp_path, insecure=True).ca is None
    assert settings.operator_token() == "op"
    assert find_code(settings, "a" * 32) == "123456"
    assert find_code(settings, "b" * 32) is None
    assert find_code(settings, "../keys/operator.token") is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("x"), 2),
        (Forbidden("x"), 3),
        (NotFound("x"), 4),
        (Replaced("x"), 5),
        (Busy("x"), 6),
        (Unavailable("x"), 7),
        (DeviceError("x"), 5),
        (UnknownRecipient("x"), 4),
        (LetterlockError("x"), 1),
    ],
)
def test_exit_codes(error: LetterlockError, code: int) -> None:
    assert exit_code(error) == code


def test_an_error_line_says_when_to_come_back() -> None:
    line = error_line(Busy("full", reason="QUEUE_FULL", retry_after=1.5))
    assert line == "letterlock: QUEUE_FULL: full; try again in 1.5 s"


def test_a_stranger_does_not_steer_the_terminal() -> None:
    assert "\x1b" not in cell("\x1b[2Jgone")
    event = messaging_pb2.Event(event_id="e")
    event.message.content.text.body = "\x1b]0;title\x07"
    shown = watch_row(Event(event, lambda _: None))
    assert "\x1b" not in cell(shown["what"])


def test_every_kind_of_event_has_a_row() -> None:
    for kind in ("message", "status", "identity_change", "undecryptable"):
        event = messaging_pb2.Event(event_id="e")
        getattr(event, kind).user_id = "f" * 32
        row = event_row(Event(event, lambda _: None))
        assert (row["kind"], row["user_id"]) == (kind, "f" * 32)
    failed = messaging_pb2.Event(event_id="e")
    failed.status.status = messaging_pb2.MESSAGE_STATUS_FAILED
    failed.status.failure.hop = messaging_pb2.HOP_RELAY
    failed.status.failure.reason = errors_pb2.ERROR_REASON_MAILBOX_FULL
    failed.status.failure.retryable = True
    row = event_row(Event(failed, lambda _: None))
    why = {"hop": "RELAY", "reason": "MAILBOX_FULL", "retryable": True}
    assert (row["status"], row["failure"]) == ("FAILED", why)
    kept = messaging_pb2.Message(status=failed.status.status, failure=failed.status.failure)
    assert message_row(kept) == {"status": "FAILED", "failure": why}
    assert event_row(Event(messaging_pb2.Event(event_id="e"), lambda _: None))["kind"] == ""
    assert Event(failed, lambda _: None).status_name == "FAILED"
    assert Event(messaging_pb2.Event(), lambda _: None).status_name is None
    assert status_name(99) == "99"  # type: ignore[arg-type]


def test_what_was_not_decrypted_says_why_and_what_is_done_about_it() -> None:
    proto = messaging_pb2.Event(event_id="e")
    lost = proto.undecryptable
    lost.user_id, lost.message_id = "f" * 32, "a" * 32
    lost.reason = messaging_pb2.UndecryptableMessage.REASON_NO_SESSION
    lost.resend_requested = True
    event = Event(proto, lambda _: None)
    row = event_row(event)
    assert (row["reason"], row["resend_requested"]) == ("NO_SESSION", True)
    assert watch_row(event)["what"] == "NO_SESSION, asked for again"
    lost.reason, lost.resend_requested = 99, False  # type: ignore[assignment]
    assert watch_row(Event(proto, lambda _: None))["what"] == "99, given up"
    healed = messaging_pb2.Event(event_id="e")
    healed.message.resent = True
    healed.message.content.text.body = "hi"
    assert watch_row(Event(healed, lambda _: None))["what"] == "hi (sent again)"
    assert event_row(Event(healed, lambda _: None))["resent"] is True


async def test_an_empty_key_is_refused(tmp_path: Path) -> None:
    gateway = FakeGateway()
    sending = ("send", "--from", NUMBER, "--to", USER, "--key", "", "hi")
    async with serving(gateway) as target:
        code, lines, err = await letterlock(tmp_path, target, "--token", TOKEN, *sending)
        async with BusinessClient(target, TOKEN, number=NUMBER, insecure=True) as client:
            with pytest.raises(InvalidRequest, match="key"):
                await client.send(to=USER, text="hi", idempotency_key="")
    assert (code, lines) == (2, [])
    assert err.startswith("letterlock: INVALID_FIELD: empty key (key: 1 to 64 characters")
    assert not gateway.messages


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        (
            "failed to connect to all addresses; last error: Connection refused",
            "nothing answers at host:1; is letterlockd running? (--gateway)",
        ),
        (
            "failed to connect: CERTIFICATE_VERIFY_FAILED: self signed certificate",
            "the certificate of host:1 is not vouched for by ca.crt (--ca)",
        ),
        ("failed to connect: WRONG_VERSION_NUMBER", "no TLS at host:1 (--gateway)"),
        ("failed to connect: Failed parsing HTTP/2", "host:1 does not speak gRPC"),
        ("failed to connect: Handshake read failed (Socket closed)", "in the TLS handshake"),
        ("Socket closed", "UNAVAILABLE: Socket closed"),
        ("Hostname Verification Check failed", "the certificate is not made out to host:1"),
        ("the stream was cut off", "the stream was cut off"),
    ],
)
def test_errors_of_the_connection_say_what_to_look_at(detail: str, said: str) -> None:
    error = explain(Unavailable(detail), server="gateway", target="host:1", ca="ca.crt")
    assert said in str(error)
    assert exit_code(error) == 7


async def test_no_gateway_and_the_wrong_server(tmp_path: Path) -> None:
    asking = ("--token", TOKEN, "status", "--from", NUMBER, "--key", "k")
    code, _, err = await letterlock(tmp_path, "127.0.0.1:1", *asking)
    told = "nothing answers at 127.0.0.1:1; is letterlockd running? (--gateway)"
    assert (code, err) == (7, f"letterlock: UNAVAILABLE: {told}\n")
    async with serving_relay(FakeRelay()) as target:
        code, _, err = await letterlock(tmp_path, target, *asking)
    told = f"this is not a gateway at {target} (--gateway)"
    assert (code, err) == (1, f"letterlock: UNIMPLEMENTED: {told}\n")


async def test_an_untrusted_certificate_is_one_line(tmp_path: Path) -> None:
    made, key = certificate()
    other, _ = certificate()
    (tmp_path / "ca.crt").write_bytes(other)
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, made)]))
    await server.start()
    options = ("--ca", "ca.crt", "--token", TOKEN)
    asking = ("status", "--from", NUMBER, "--key", "k")
    target = f"127.0.0.1:{port}"
    code, _, err = await letterlock(tmp_path, target, *options, *asking, insecure=False)
    await server.stop(None)
    told = f"the certificate of {target} is not vouched for by ca.crt (--ca)"
    assert (code, err) == (7, f"letterlock: UNAVAILABLE: {told}\n")


async def test_tls_on_one_side_only_is_told_as_such(tmp_path: Path) -> None:
    made, key = certificate()
    (tmp_path / "ca.crt").write_bytes(made)
    server = grpc.aio.server()
    sealed = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, made)]))
    plain = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    asking = ("--token", TOKEN, "status", "--from", NUMBER, "--key", "k")
    sealed_at, plain_at = f"127.0.0.1:{sealed}", f"127.0.0.1:{plain}"
    ended = await asyncio.gather(
        letterlock(tmp_path, sealed_at, *asking),
        letterlock(tmp_path, plain_at, "--ca", "ca.crt", *asking, insecure=False),
    )
    await server.stop(None)
    assert [(code, err) for code, _, err in ended] == [
        (7, f"letterlock: UNAVAILABLE: {told}\n")
        for told in (
            f"{sealed_at} hangs up on plaintext: it expects TLS, without --insecure (--gateway)",
            f"no TLS at {plain_at} (--gateway)",
        )
    ]


async def test_malformed_numbers_are_refused_here(tmp_path: Path) -> None:
    token = ("--token", TOKEN)
    sending = ("send", "--from", NUMBER, "--to", USER[1:], "hi")
    code, _, err = await letterlock(tmp_path, "127.0.0.1:1", *token, *sending)
    assert code == 2
    assert "neither a phone number nor an id (--to: " in err
    assert "+ and 7 to 15 digits, or a user id of 32 hex characters" in err
    sending = ("send", "--from", NUMBER[1:], "--to", USER, "hi")
    code, _, err = await letterlock(tmp_path, "127.0.0.1:1", *token, *sending)
    assert code == 2
    assert err.startswith("letterlock: INVALID_PHONE_NUMBER: not a phone number")
    assert NUMBER[1:] not in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("send", "--from", NUMBER, "--to", USER, "--ttl", "nan", "hi"), "--ttl: 1 second to "),
        (
            ("business", "update", "0" * 32, "--retention", "inf"),
            "from 5 minutes (0.0035) to 30 days",
        ),
        (("business", "create", "Shop", "--retention", "1e300"), "--retention: in days, "),
    ],
)
async def test_unusable_times_are_one_line(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    code, _, err = await letterlock(tmp_path, "127.0.0.1:1", "--token", TOKEN, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert told in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("send", "--ttl", "abc", "hi"), "'--ttl': 'abc' is not a valid float"),
        (("business", "update", "--identity-changes", "x", "id"), "is not one of 'accept', 'hold'"),
        (("send", "hi"), "Missing option '--from'"),
        (("--colour", "send"), "No such option '--colour'"),
        (("inbox", "policy", "--number", NUMBER, "--max-attempts", "1001"), "1<=x<=1000"),
        (("inbox", "policy", "--number", NUMBER, "--keep", "nan"), "keep: 0 to 168 hours"),
        (("device", "receive", "--seconds", "nan"), "seconds: 0 to "),
    ],
)
async def test_bad_options_are_one_line_before_anybody_is_asked(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    code, lines, err = await letterlock(tmp_path, "127.0.0.1:1", "--token", TOKEN, *arguments)
    assert (code, lines, err.count("\n")) == (2, [], 1)
    assert err.startswith("letterlock: INVALID_FIELD: ")
    assert told in err


@pytest.mark.parametrize("columns", [80, 400])
def test_no_id_is_broken_or_cut_on_a_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = Output(as_json=False)
    out.is_json = False
    ids = [secrets.token_hex(16) for _ in range(4)]
    scannable = secrets.token_hex(70)
    out.row({"user_id": ids[0], "scannable": scannable, "tokens": ids[2:]})
    row = {"event_id": ids[0], "user_id": ids[1], "tokens": ids[2:]}
    out.rows([row], tuple(row))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert all(id_ in shown.split() for id_ in (*ids, scannable))
    assert ("━" in shown) is (columns == 400)
    seen = {"time": "12:00:00", "kind": "identity_change", "user_id": ids[0], "what": "x " * 200}
    out.console.print(table([seen], tuple(seen)))
    assert ids[0] in capsys.readouterr().out.split()


async def test_an_address_without_a_port_names_its_option(tmp_path: Path) -> None:
    asking = ("--token", TOKEN, "status", "--from", NUMBER, "--key", "k")
    code, _, err = await letterlock(tmp_path, "nonsense", *asking)
    told = "letterlock: INVALID_FIELD: nonsense must be host:port (--gateway)\n"
    assert (code, err) == (2, told)


def test_times_are_in_utc() -> None:
    berlin = datetime.timezone(datetime.timedelta(hours=2))
    assert moment(datetime.datetime(2026, 7, 1, 1, 0, tzinfo=berlin)) == "2026-06-30T23:00:00.000Z"
    event = messaging_pb2.Event()
    event.event_time.FromMilliseconds(1)
    event.message.sent_time.FromMilliseconds(2)
    row = event_row(Event(event, lambda _: None))
    assert row["time"] == watch_row(Event(event, lambda _: None))["time"]
    assert (row["time"], row["sent_time"]) == (
        "1970-01-01T00:00:00.001Z",
        "1970-01-01T00:00:00.002Z",
    )


async def registered(folder: Path, relay: str, name: str, number: str) -> None:
    made = ("device", "register", "--state", name, "--code", CODE, number)
    code, _, err = await letterlock(folder, "", "--relay", relay, *made)
    assert code == 0, err


async def test_a_taken_state_file_is_told_before_a_code_is_asked_for(tmp_path: Path) -> None:
    relay = FakeRelay()
    async with serving_relay(relay) as target:
        await registered(tmp_path, target, "a", NUMBER)
    again = ("device", "register", "--state", "a", USER)
    code, _, err = await letterlock(tmp_path, "", "--relay", "127.0.0.1:1", *again)
    told = "a device is registered in a already; --state names another file"
    assert (code, err) == (5, f"letterlock: DEVICE_STATE: {told}\n")


async def test_a_device_without_a_relay_ends_and_keeps_its_message(tmp_path: Path) -> None:
    relay = FakeRelay()
    sending = ("device", "send", "--state", "a", "--to", USER)
    receiving = ("device", "receive", "--state", "b", "--count")
    waiting = ("--token", TOKEN, "receive", "--number", NUMBER, "--no-wait")
    async with serving_relay(relay) as target:
        await registered(tmp_path, target, "a", NUMBER)
        await registered(tmp_path, target, "b", USER)
        for arguments in ((*sending, "one"), (*receiving, "1")):
            code, lines, err = await letterlock(tmp_path, "", "--relay", target, *arguments)
            assert (code, len(lines), err) == (0, 1, "")
    gone = "127.0.0.1:1"
    ended = await asyncio.gather(
        letterlock(tmp_path, "", "--relay", gone, *sending, "two"),
        letterlock(tmp_path, "", "--relay", gone, *receiving, "1"),
        letterlock(tmp_path, gone, *waiting),
    )
    for (code, lines, err), server in zip(ended, ("relay", "relay", "gateway"), strict=True):
        told = f"nothing answers at {gone}; is letterlockd running? (--{server})"
        assert (code, lines) == (7, [])
        assert err.splitlines()[-1] == f"letterlock: UNAVAILABLE: {told}"
    assert ended[0][2].startswith("the message is kept in a, ")
    assert ended[1][2].splitlines()[:-1] == [f"{ended[1][2].splitlines()[-1]}; trying again"]
    assert [len(err.splitlines()) for _, _, err in ended] == [2, 2, 1]
    async with serving_relay(relay) as target:
        code, _, err = await letterlock(tmp_path, "", "--relay", target, *sending, "three")
        assert (code, err) == (0, "")
        _, lines, _ = await letterlock(tmp_path, "", "--relay", target, *receiving, "2")
    assert [json.loads(line)["content"]["text"]["body"] for line in lines] == ["two", "three"]


async def test_an_unregistered_device_is_told_how_and_makes_no_file(tmp_path: Path) -> None:
    for arguments in (("send", "--to", USER, "hi"), ("receive",)):
        code, lines, err = await letterlock(tmp_path, "", "device", *arguments)
        assert (code, lines) == (5, [])
        assert "letterlock-device.db" in err
        assert "`letterlock device register`" in err
        assert err.count("\n") == 1
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("text", ["", "x" * 20_000])
async def test_a_text_that_may_not_be_sent_is_one_line(tmp_path: Path, text: str) -> None:
    async with serving_relay(FakeRelay()) as target:
        await registered(tmp_path, target, "a", NUMBER)
        sending = ("device", "send", "--state", "a", "--to", USER, text)
        code, lines, err = await letterlock(tmp_path, "", "--relay", target, *sending)
    assert (code, lines, err.count("\n")) == (2, [], 1)
    assert "content.text.body" in err
    assert "16384 bytes" in err


def test_only_what_somebody_said_counts_as_a_message() -> None:
    def incoming(content: content_pb2.Content) -> IncomingMessage:
        payload = content_pb2.Payload(message_id=bytes(16), content=content)
        return IncomingMessage(bytes(16), 1, payload, on_ack=lambda _: None, sequence=1)

    assert is_message(incoming(content_pb2.Content(text=content_pb2.Text(body="x"))))
    assert is_message(incoming(content_pb2.Content(reaction=content_pb2.Reaction(emoji="x"))))
    assert not is_message(incoming(content_pb2.Content(typing=content_pb2.Typing())))
    receipt = content_pb2.ReadReceipt(message_ids=[bytes(16)])
    assert not is_message(incoming(content_pb2.Content(read_receipt=receipt)))
    assert not is_message(Receipt(bytes(16), bytes(16), "DELIVERED"))


def test_recipients() -> None:
    assert account_of(USER, "--to") == USER
    assert account_of("0f" * 16, "--to") == b"\x0f" * 16
    for wrong in ("anna", USER[1:], "0f" * 15, ""):
        with pytest.raises(InvalidRequest, match="neither a phone number"):
            account_of(wrong, "--to")


async def test_ctrl_c_in_the_middle_of_a_send_says_so_and_the_message_is_kept(
    tmp_path: Path,
) -> None:
    relay, state = FakeRelay(), tmp_path / "device.db"
    async with serving_relay(relay) as target:
        async with Device(target, store=FileStore(state), insecure=True) as device:
            await device.register(NUMBER, await device.request_verification(NUMBER), CODE)
            account = device.account_id
        async with Device(target, store=MemoryStore(), insecure=True) as other:
            await other.register(USER, await other.request_verification(USER), CODE)
            relay.plans[account] = deque([ConnectPlan(answers=False)])
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                # A parent in the background may have told its children to ignore Ctrl-C.
                "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
                "from letterlock.cli.commands import main; main()",
                *("--insecure", "device", "send", "--state", str(state), "--to", USER, "hello"),
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "LETTERLOCK_RELAY": target},
            )
            await relay.until(lambda: len(relay.submitted) == 1)
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
            assert process.returncode == 130, err.decode()
            assert "the message is kept in" in err.decode()
            assert "Traceback" not in err.decode()
            async with Device(target, store=FileStore(state), insecure=True) as device:
                assert device.unsent == 1
                await device.connect()
                await relay.until(lambda: len(relay.received) == 2)
            event = await other.next_event()
            assert isinstance(event, IncomingMessage)
            assert event.text == "hello"
            assert len(relay.submitted) == 1

"""What can be set: every setting with its default, bounds, unit and meaning. Values only.

`config` reads them from their sources; the descriptions here are what `letterlockd init` writes
into the settings file. No setting is a secret: keys and tokens are files below the data folder.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from letterlockd.limits import (
    MAX_PRE_KEY_GRACE_DAYS,
    MAX_PRE_KEY_ROTATION_DAYS,
    MAX_STALE_SESSION_DAYS,
)

__all__ = ["ENVIRONMENT_PREFIX", "Section", "Settings"]

ENVIRONMENT_PREFIX = "LETTERLOCK_"

_MAX_PORT = 65_535


def _address(text: str) -> str:
    form = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", text)
    if form is None:
        raise ValueError("must be host:port, with an IPv6 address in brackets")
    if int(form[2]) > _MAX_PORT:
        raise ValueError(f"must be host:port, with a port of {_MAX_PORT} at most")
    return text


def _loopback(text: str) -> str:
    if not text:
        return text
    host = _address(text).rpartition(":")[0].strip("[]")
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ValueError("must be an address of this machine alone (127.0.0.1, [::1] or localhost)")
    return text


Address = Annotated[str, AfterValidator(_address)]
LoopbackAddress = Annotated[str, AfterValidator(_loopback)]


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GatewaySection(Section):
    """The gateway role, with the registry."""

    listen: Address = Field(
        default="127.0.0.1:7443", description="Where business backends connect."
    )
    relay: Address = Field(
        default="127.0.0.1:7444",
        description="The relay to use. `serve` uses its own and ignores this.",
    )
    relay_ca: Path | None = Field(
        default=None, description="PEM file that vouches for the relay. Not set: the local CA."
    )
    relay_name: str = Field(
        default="",
        description="Name in the relay's certificate, where it is not the one in `relay`.",
    )
    workers: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Ratchet processes. One for each core that is to be used.",
    )
    metrics: LoopbackAddress = Field(
        default="", description="Where Prometheus may ask, this machine only. Empty: nowhere."
    )
    pre_key_rotation_days: int = Field(
        default=7,
        ge=1,
        le=MAX_PRE_KEY_ROTATION_DAYS,
        description="Age at which signed and last-resort pre-keys are replaced, in days.",
    )
    pre_key_grace_days: int = Field(
        default=30,
        ge=1,
        le=MAX_PRE_KEY_GRACE_DAYS,
        description=(
            "How long replaced pre-keys still open first messages before they are destroyed, in "
            "days. Below 30, first messages of users that were long under way can be lost."
        ),
    )
    stale_session_days: int = Field(
        default=30,
        ge=1,
        le=MAX_STALE_SESSION_DAYS,
        description=(
            "How long a session is sent with while nothing comes back on it, in days; then the "
            "next message opens a new one."
        ),
    )


class RelaySection(Section):
    """The relay role."""

    listen: Address = Field(
        default="127.0.0.1:7444", description="Where devices and gateways connect."
    )
    verification: Literal["file", "command"] = Field(
        default="file",
        description=(
            "How verification codes reach users. file: into files below <data>/verification, for "
            "development; command: by a program of yours."
        ),
    )
    verification_command: list[str] = Field(
        default=[],
        description="Program and arguments; gets two lines on standard input, number and code.",
    )
    metrics: LoopbackAddress = Field(
        default="", description="Where Prometheus may ask, this machine only. Empty: nowhere."
    )

    @model_validator(mode="after")
    def _command_is_given(self) -> Self:
        if self.verification == "command" and not self.verification_command:
            raise ValueError("verification = command needs verification_command")
        return self


class TlsSection(Section):
    """Certificates of the servers. Without own ones a local CA below <data>/tls makes them."""

    names: list[str] = Field(
        default=[], max_length=100, description="Host names and addresses besides the local ones."
    )
    certificate: Path | None = Field(default=None, description="Own certificate chain, PEM.")
    key: Path | None = Field(default=None, description="Own private key, PEM.")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are given together or not at all")
        return self


class LimitsSection(Section):
    """Bounds of each server."""

    calls: int = Field(
        default=20_000, ge=10, le=1_000_000, description="Calls in flight; an open stream is one."
    )
    streams_per_connection: int = Field(
        default=256, ge=1, le=10_000, description="Calls at a time on one connection."
    )


class StoreSection(Section):
    """Storage."""

    max_bytes: int | None = Field(
        default=None,
        ge=16 * 1024 * 1024,
        description="Size of each store at most. Not set: the disk's.",
    )
    sweep_seconds: float = Field(
        default=5.0,
        ge=0.1,
        le=3_600,
        description="Time between two looks for what is due, in seconds.",
    )


def passphrase_source(text: str) -> str:
    """A `keys.passphrase_from` as it is; empty is none. Raises `ValueError`."""
    if re.fullmatch(r"|prompt|file:/.+|credential:[A-Za-z0-9._-]+|fd:[0-9]{1,6}", text) is None:
        raise ValueError("must be prompt, file:/<absolute path>, credential:<name> or fd:<number>")
    return text


class KeysSection(Section):
    """How the master keys below <data>/keys are protected."""

    protection: Literal["file", "passphrase", "command"] = Field(
        default="file",
        description=(
            "How new master keys are kept; `letterlockd keys rotate` makes one. file: in clear, "
            "for the owner alone; passphrase: under Argon2id; command: by a program of yours."
        ),
    )
    passphrase_from: Annotated[str, AfterValidator(passphrase_source)] = Field(
        default="",
        description=(
            "Where the passphrase is: prompt, file:/<path>, credential:<name> (systemd) or "
            "fd:<number>."
        ),
    )
    command: list[str] = Field(
        default=[],
        description=(
            "Program and arguments; gets wrap or unwrap as one more argument, and one line on "
            "standard input."
        ),
    )
    command_seconds: float = Field(
        default=30.0, ge=1, le=300, description="How long the program may take, in seconds."
    )

    @model_validator(mode="after")
    def _is_set_up(self) -> Self:
        if self.protection == "passphrase" and not self.passphrase_from:
            raise ValueError("protection = passphrase needs passphrase_from")
        if self.protection == "command" and not self.command:
            raise ValueError("protection = command needs command")
        return self


class LogSection(Section):
    """Logs, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="From which on."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, else json."
    )


class TracesSection(Section):
    """Traces of single messages, for OpenTelemetry. Needs letterlock[otel]."""

    share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Of all messages, how many are traced: 0 none, 0.01 one in a hundred, 1 all.",
    )
    exporter: str = Field(
        default="otlp",
        pattern=r"^[a-z0-9_]{1,64}$",
        description=(
            "Where spans go: an installed exporter's name. Its address comes from OTEL_EXPORTER_… "
            "in the environment."
        ),
    )


class HealthSection(Section):
    """What the health service tells."""

    bound_seconds: float = Field(
        default=10.0,
        ge=1,
        le=300,
        description=(
            "How long nothing may come out of a part of the messages' way before it is "
            "NOT_SERVING, in seconds."
        ),
    )


class ServeSection(Section):
    """The supervisor of `letterlockd serve`, and stopping."""

    drain_seconds: float = Field(
        default=10.0,
        ge=0,
        le=300,
        description="What open calls get to end when stopping, in seconds.",
    )
    max_restarts: int = Field(
        default=5, ge=0, le=1_000, description="Restarts of a role within `restart_window_seconds`."
    )
    restart_window_seconds: float = Field(
        default=60.0, ge=1, le=86_400, description="See `max_restarts`; in seconds."
    )


class Settings(BaseModel):
    """All settings of the daemon."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data_folder: Path = Field(
        default=Path("letterlock-data"),
        description="Stores, keys and certificates. Private to the daemon.",
    )
    reflection: bool = Field(
        default=True, description="Whether the servers describe their API (gRPC)."
    )
    gateway: GatewaySection = GatewaySection.model_construct()
    relay: RelaySection = RelaySection.model_construct()
    tls: TlsSection = TlsSection.model_construct()
    limits: LimitsSection = LimitsSection.model_construct()
    store: StoreSection = StoreSection.model_construct()
    keys: KeysSection = KeysSection.model_construct()
    log: LogSection = LogSection.model_construct()
    health: HealthSection = HealthSection.model_construct()
    traces: TracesSection = TracesSection.model_construct()
    serve: ServeSection = ServeSection.model_construct()

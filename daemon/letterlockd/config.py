"""Settings: read once at start from a file, the environment and the command line; then frozen.

    defaults  <  letterlock.toml  <  LETTERLOCK_<SECTION>__<KEY>  <  command line

A setting that does not exist, or is out of its bounds, is an error that names it, where it came
from, and the nearest one that exists. No setting is a secret: keys and tokens are files below the
data folder. Only `cli`, `supervisor` and `app` know this module.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from letterlockd.errors import EnvironmentFault

__all__ = ["ConfigFault", "Effective", "Loaded", "Settings", "default_file", "effective", "load"]

ENVIRONMENT_PREFIX = "LETTERLOCK_"
DEFAULT_FILE = Path("letterlock.toml")


class ConfigFault(EnvironmentFault):
    """A setting is unknown, of the wrong kind or out of its bounds; the message names it."""

    reason = "CONFIG_INVALID"


def _address(text: str) -> str:
    form = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", text)
    if form is None or int(form[2]) > 65_535:
        raise ValueError("must be host:port, with an IPv6 address in brackets")
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


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GatewaySection(_Section):
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


class RelaySection(_Section):
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


class TlsSection(_Section):
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


class LimitsSection(_Section):
    """Bounds of each server."""

    calls: int = Field(
        default=20_000, ge=10, le=1_000_000, description="Calls in flight; an open stream is one."
    )
    streams_per_connection: int = Field(
        default=256, ge=1, le=10_000, description="Calls at a time on one connection."
    )


class StoreSection(_Section):
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


class LogSection(_Section):
    """Logs, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="From which on."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, else json."
    )


class ServeSection(_Section):
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


class Settings(BaseSettings):
    """All settings of the daemon."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        validate_default=False,
    )

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
    log: LogSection = LogSection.model_construct()
    serve: ServeSection = ServeSection.model_construct()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`load` merges the sources itself, so that it knows where each value came from."""
        return (init_settings,)


class Effective(NamedTuple):
    """One setting as it is in force."""

    key: str
    value: object
    origin: str
    description: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each key that is not at its default where it came from."""

    settings: Settings
    origins: Mapping[str, str]


def load(file: Path | None, overrides: Mapping[str, object]) -> Loaded:
    """Read the settings. `file` None: ./letterlock.toml if it exists. `overrides` by dotted key.

    Raises `ConfigFault`.
    """
    layers = [
        _file_layer(file),
        ("environment", dict(_flat(_environment()))),
        ("command line", dict(overrides)),
    ]
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        values |= layer
        origins |= dict.fromkeys(layer, origin)
    _refuse_unknown(origins)
    try:
        return Loaded(Settings(**_nested(values)), origins)
    except ValidationError as error:
        raise ConfigFault(_explained(error, origins)) from None


def effective(loaded: Loaded) -> Iterator[Effective]:
    """Every setting in force, in the order of the default file."""
    for key, field in _fields():
        value: object = loaded.settings
        for part in key.split("."):
            value = getattr(value, part)
        yield Effective(key, value, loaded.origins.get(key, "default"), field)


def default_file() -> str:
    """The text of a settings file with every setting at its default, commented out."""
    lines = [
        "# Settings of letterlockd. Everything here is at its default; uncomment to change.",
        "",
    ]
    section = ""
    for setting in effective(Loaded(Settings(), {})):
        table, _, name = setting.key.rpartition(".")
        if table != section:
            lines += [f"[{table}]", ""]
            section = table
        shown = "" if setting.value is None else f" {_toml(setting.value)}"
        lines += [f"# {setting.description}", f"# {name} ={shown}", ""]
    return "\n".join(lines)


def _file_layer(file: Path | None) -> tuple[str, dict[str, object]]:
    path = file or DEFAULT_FILE
    if file is None and not path.exists():
        return "default", {}
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigFault(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigFault(f"{path} is not TOML: {error}") from None
    layer = {key: _from_folder(path.parent, key, value) for key, value in _flat(read)}
    return str(path), layer


def _from_folder(folder: Path, key: str, value: object) -> object:
    """Paths in a file are meant from the file's own folder."""
    is_path = key in {"data_folder", "gateway.relay_ca", "tls.certificate", "tls.key"}
    return str(folder / value) if is_path and isinstance(value, str) else value


def _environment() -> dict[str, Any]:
    """What the environment sets. Names without `__` below our prefix may be others' (the SDK's)."""
    names = [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX) and "__" in name]
    spelled = {name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".") for name in names}
    _refuse_unknown(dict.fromkeys(sorted(spelled), "environment"))
    try:
        return EnvSettingsSource(Settings)()
    except ValueError as error:  # a list that is not JSON
        raise ConfigFault(f"environment: {error}") from None


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nested(values: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        table, _, name = key.rpartition(".")
        (nested.setdefault(table, {}) if table else nested)[name] = value
    return nested


def _refuse_unknown(origins: Mapping[str, str]) -> None:
    known = [key for key, _ in _fields()]
    for key, origin in origins.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise ConfigFault(f"{origin}: there is no setting {key}; did you mean {near}?")


def _fields() -> Iterator[tuple[str, str]]:
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            for inner, inner_field in section.model_fields.items():
                yield f"{name}.{inner}", inner_field.description or ""
        else:
            yield name, field.description or ""


def _explained(error: ValidationError, origins: Mapping[str, str]) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"][:2] if not isinstance(part, int))
    text = first["msg"].removeprefix("Value error, ")
    return f"{origins.get(key, 'default')}: {key}: {text}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value) if isinstance(value, int | float) else f'"{value}"'

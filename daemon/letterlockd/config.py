"""Settings: read once at start from a file, the environment and the command line; then frozen.

    defaults  <  letterlock.toml  <  LETTERLOCK_<SECTION>__<KEY>  <  command line

A setting that does not exist, or is out of its bounds, is an error that names it, where it came
from, and the nearest one that exists. What can be set is in `settings`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from letterlockd.errors import EnvironmentFault
from letterlockd.settings import ENVIRONMENT_PREFIX, Section, Settings

__all__ = ["ConfigFault", "Effective", "Loaded", "default_file", "effective", "load"]

DEFAULT_FILE = Path("letterlock.toml")


class ConfigFault(EnvironmentFault):
    """A setting is unknown, of the wrong kind or out of its bounds; the message names it."""

    reason = "CONFIG_INVALID"


class Effective(NamedTuple):
    """One setting as it is in force."""

    key: str
    value: object
    origin: str
    description: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, for each key that is not at its default where it came from, and the settings
    file, which need not exist."""

    settings: Settings
    origins: Mapping[str, str]
    file: Path = DEFAULT_FILE


def load(file: Path | None, overrides: Mapping[str, object], *, must_exist: bool = True) -> Loaded:
    """Read the settings. `file` None: ./letterlock.toml if it exists. `overrides` by dotted key.
    Not `must_exist`: a `file` that is still to be made is as one that sets nothing.

    Raises `ConfigFault`.
    """
    layers = [
        _file_layer(file, must_exist=must_exist and file is not None),
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
        return Loaded(Settings(**_nested(values)), origins, file or DEFAULT_FILE)
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


def _file_layer(file: Path | None, *, must_exist: bool) -> tuple[str, dict[str, object]]:
    path = file or DEFAULT_FILE
    if not must_exist and not path.exists():
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
        if isinstance(section, type) and issubclass(section, Section):
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

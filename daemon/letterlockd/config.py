"""Settings: read once at start from a file, the environment and the command line; then frozen.

    defaults  <  letterlock.toml  <  LETTERLOCK_<SECTION>__<KEY>  <  command line

A setting that does not exist, or is out of its bounds, is an error that names it, where it came
from, and the nearest one that exists. What can be set is in `settings`.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from letterlockd.errors import EnvironmentFault
from letterlockd.settings import ENVIRONMENT_PREFIX, Section, Settings

__all__ = [
    "ConfigFault",
    "Effective",
    "Loaded",
    "default_file",
    "effective",
    "effective_file",
    "load",
]

DEFAULT_FILE = Path("letterlock.toml")

_CLIENTS = frozenset({"LETTERLOCK_GATEWAY", "LETTERLOCK_RELAY"})
"""Addresses for the `letterlock` command and the SDK, which the daemon's tables are named like."""

_SIMILAR = 0.7
"""How alike (0 to 1) two names are for one to be a typo of the other; lower proposes nonsense."""


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
        ("environment", _environment()),
        ("command line", _with_lists(overrides)),
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
        yield Effective(key, value, loaded.origins.get(key, "default"), field.description or "")


def effective_file(loaded: Loaded) -> str:
    """The settings in force as the text of a settings file; where each comes from as a comment.
    Paths are as they are from the present folder."""
    lines, section = [], ""
    for setting in effective(loaded):
        table, _, name = setting.key.rpartition(".")
        if table != section:
            lines += ["", f"[{table}]"]
            section = table
        unset = setting.value is None
        shown = f"# {name} is not set" if unset else f"{name} = {_toml(setting.value)}"
        lines.append(f"{shown}  # {setting.origin}")
    return "\n".join(lines)


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


def _environment() -> dict[str, object]:
    """What the environment sets. Names without `__` below our prefix may be others' (the SDK's)."""
    ours = {name: text for name, text in os.environ.items() if name.startswith(ENVIRONMENT_PREFIX)}
    _refuse_single_underscore(name for name in ours if "__" not in name)
    spelled = {_key(name): text for name, text in ours.items()}
    known = {key for key, _ in _fields()}
    layer = {key: text for key, text in spelled.items() if "." in key or key in known}
    _refuse_unknown(dict.fromkeys(sorted(layer), "environment"))
    return _with_lists(layer)


def _with_lists(layer: Mapping[str, object]) -> dict[str, object]:
    """The layer with lists that are given as text, in JSON form, read."""
    lists = {key for key, field in _fields() if get_origin(field.annotation) is list}
    return {key: _list(value) if key in lists else value for key, value in layer.items()}


def _list(value: object) -> object:
    """What is no JSON stays as it is, and is refused with all else that is no list."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _refuse_single_underscore(names: Iterable[str]) -> None:
    """`LETTERLOCK_GATEWAY_WORKERS` would be ignored without a word, as `LETTERLOCK_LOG` would."""
    meant: dict[str, str] = {}
    for key in (key for key, _ in _fields() if "." in key):
        section = _variable(key.partition(".")[0])
        meant |= {_variable(key).replace("__", "_"): _variable(key), section: f"{section}__<KEY>"}
    for name in sorted(meant.keys() & set(names) - _CLIENTS):
        raise ConfigFault(f"environment: {name} sets nothing; did you mean {meant[name]}?")


def _key(variable: str) -> str:
    return variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")


def _variable(key: str) -> str:
    return ENVIRONMENT_PREFIX + key.replace(".", "__").upper()


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
            near = difflib.get_close_matches(key, known, n=1, cutoff=_SIMILAR)
            hint = f"did you mean {near[0]}?" if near else "`letterlockd config` shows all"
            raise ConfigFault(f"{origin}: there is no setting {key}; {hint}")


def _fields() -> Iterator[tuple[str, FieldInfo]]:
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            for inner, inner_field in section.model_fields.items():
                yield f"{name}.{inner}", inner_field
        else:
            yield name, field


def _explained(error: ValidationError, origins: Mapping[str, str]) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"][:2] if not isinstance(part, int))
    told = _variable(key) if origins.get(key) == "environment" else key
    rule = _within(key) if first["type"] == "finite_number" else _rule(first, _unit(key))
    return f"{_origin(key, origins)}: {told}: {rule}"


def _within(key: str) -> str:
    """Both bounds of a number: what is no number is neither too small nor too large."""
    marks = dict(_fields())[key].metadata
    bounds = [getattr(mark, name) for name in ("ge", "le") for mark in marks if hasattr(mark, name)]
    return f"must be a number from {' to '.join(map(str, bounds))}{_unit(key)}"


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """Where a setting comes from; of a rule on a whole table, where its settings do."""
    own = [origin for name, origin in origins.items() if name == key or name.startswith(f"{key}.")]
    return " and ".join(dict.fromkeys(own)) or "default"


def _rule(error: ErrorDetails, unit: str) -> str:
    """What a value must be, in our words where we have some."""
    context = error.get("ctx", {})
    match error["type"]:
        case "greater_than_equal":
            return f"must be {context['ge']} or more{unit}"
        case "less_than_equal":
            return f"must be {context['le']} or less{unit}"
        case "int_parsing" | "int_type" | "int_from_float":
            return f"must be a whole number{unit}"
        case "float_parsing" | "float_type":
            return f"must be a number{unit}"
        case "bool_parsing" | "bool_type":
            return "must be true or false"
        case "literal_error":
            return f"must be {context['expected']}"
        case "list_type":
            return 'must be a list, such as ["a", "b"]'
        case "too_long":
            return f"must have {context['max_length']} entries or fewer"
    return error["msg"].removeprefix("Value error, ")


def _unit(key: str) -> str:
    return next((f" ({unit})" for unit in ("bytes", "seconds") if key.endswith(f"_{unit}")), "")


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # A JSON string is a TOML string.
    return (
        str(value) if isinstance(value, int | float) else json.dumps(str(value), ensure_ascii=False)
    )

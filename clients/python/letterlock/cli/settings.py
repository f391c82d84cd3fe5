"""Where the CLI finds targets, tokens and certificates.

    option  >  environment (LETTERLOCK_*)  >  profile.toml  >  files of a local data folder

The profile is a TOML file in the user's configuration folder, readable by its owner alone:

    gateway = "gateway.example:7443"
    relay = "relay.example:7444"
    ca = "/path/to/ca.crt"
    [tokens]
    "<business id>" = "<business token>"
    "+491511234567" = "<business token of this number>"

Knows no network and no command.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from letterlock.errors import InvalidRequest

DEFAULT_GATEWAY = "127.0.0.1:7443"
DEFAULT_RELAY = "127.0.0.1:7444"
DEFAULT_DATA = Path("letterlock-data")
PROFILE = "profile.toml"

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_ID = re.compile(r"[0-9a-fA-F]{32}")


def profile_path() -> Path:
    """Where the profile is."""
    return Path(click.get_app_dir("letterlock")) / PROFILE


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options and the environment said; the rest is looked up when it is needed."""

    data: Path = DEFAULT_DATA
    given_gateway: str | None = None
    given_relay: str | None = None
    given_ca: str | None = None
    given_token: str | None = field(default=None, repr=False)
    insecure: bool = False
    profile: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def gateway(self) -> str:
        """Where the gateway is, host:port."""
        return self.given_gateway or self._from_profile("gateway") or DEFAULT_GATEWAY

    @property
    def relay(self) -> str:
        """Where the relay is, host:port."""
        return self.given_relay or self._from_profile("relay") or DEFAULT_RELAY

    @property
    def ca(self) -> str | None:
        """The authority to trust; None: the system's."""
        if self.insecure:
            return None
        local = self.data / "tls" / "ca.crt"
        found = self.given_ca or self._from_profile("ca")
        return found or (str(local) if local.exists() else None)

    def operator_token(self) -> str:
        """The operator's token. Raises InvalidRequest."""
        if self.given_token:
            return self.given_token
        path = self.data / "keys" / "operator.token"
        try:
            return path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise InvalidRequest(
                f"no operator token in {path}", field="token", limit="--token, or --data FOLDER"
            ) from None

    def business_token(self, number: str) -> str:
        """The token of a business number. Raises InvalidRequest."""
        check_phone_number(number)
        token = self.given_token or _tokens(self.profile).get(number)
        if not isinstance(token, str):
            limit = "--token, LETTERLOCK_TOKEN, or `letterlock token issue --save BUSINESS_ID`"
            raise InvalidRequest("no token for this number", field="token", limit=limit)
        return token

    def _from_profile(self, name: str) -> str | None:
        value = self.profile.get(name)
        return value if isinstance(value, str) else None


def check_phone_number(number: str) -> None:
    """Raises InvalidRequest for what cannot be a phone number in E.164 form."""
    if not _E164.fullmatch(number):
        raise InvalidRequest(
            "not a phone number",
            reason="INVALID_PHONE_NUMBER",
            field="number",
            limit="+ and 7 to 15 digits",
        )


def check_user(user: str, typed_as: str) -> None:
    """Raises InvalidRequest for what is neither a phone number nor an id. `typed_as`: the option or
    argument."""
    if not user.startswith("+") and not _ID.fullmatch(user):
        raise InvalidRequest(
            "neither a phone number nor an id",
            field=typed_as,
            limit="+ and 7 to 15 digits, or a user id of 32 hex characters",
        )


def read_profile() -> dict[str, object]:
    """The profile; empty when there is none. Raises InvalidRequest."""
    path = profile_path()
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"{path} cannot be read: {error}", field="profile", limit="a TOML file"
        ) from None


def save_token(business_id: str, numbers: Iterable[str], token: str) -> Path:
    """Keep the token of a business, and for its numbers. Gives the profile's path."""
    return _save_tokens({business_id: token, **dict.fromkeys(numbers, token)})


def save_number(business_id: str, number: str) -> Path | None:
    """Have the token that is kept for a business serve a new number of it, too. Gives the
    profile's path; None where no token is kept."""
    token = _tokens(read_profile()).get(business_id)
    return _save_tokens({number: token}) if isinstance(token, str) else None


def forget_business(business_id: str) -> Path | None:
    """Drop the token that is kept for a business, and for its numbers. Gives the profile's path;
    None where none is kept."""
    known = _tokens(read_profile())
    if (token := known.get(business_id)) is None:
        return None
    return _write_tokens({name: kept for name, kept in known.items() if kept != token})


def forget_number(number: str) -> Path | None:
    """Drop the token that is kept for a number. Gives the profile's path; None where none is."""
    known = _tokens(read_profile())
    if known.pop(number, None) is None:
        return None
    return _write_tokens(known)


def forget_token(token_id: str) -> Path | None:
    """Drop a token wherever it is kept; its text names its id. Gives the profile's path; None where
    it is not kept."""
    known = _tokens(read_profile())
    left = {name: kept for name, kept in known.items() if not _is_token(kept, token_id)}
    return None if left == known else _write_tokens(left)


def _is_token(kept: object, token_id: str) -> bool:
    return isinstance(kept, str) and kept.split(".")[1:-1] == [token_id]


def _save_tokens(tokens: Mapping[str, str]) -> Path:
    return _write_tokens(_tokens(read_profile()) | dict(tokens))


def _tokens(profile: Mapping[str, object]) -> dict[str, object]:
    known = profile.get("tokens")
    return dict(known) if isinstance(known, Mapping) else {}


def _write_tokens(tokens: Mapping[str, object]) -> Path:
    profile = read_profile()
    lines = [
        f"{key} = {json.dumps(value)}" for key, value in profile.items() if isinstance(value, str)
    ]
    lines += ["", "[tokens]", *(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in tokens.items())]
    path = profile_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".new")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write("\n".join(lines) + "\n")
    aside.replace(path)
    return path

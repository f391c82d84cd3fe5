"""What `keys status` says to people, and what `keys rotate` refuses before it writes."""

import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from letterlockd.app import keys
from letterlockd.app.keys import KeyStatus, StoreStatus
from letterlockd.app.parts import open_store
from letterlockd.app.stores import STORES
from letterlockd.cli import main
from letterlockd.errors import EnvironmentFault
from letterlockd.exit_codes import ExitCode
from letterlockd.layout import Layout
from letterlockd.sealing.protection import UNPROTECTED
from letterlockd.sealing.provider import FileKeyProvider, make_key, named_key, staged
from letterlockd.settings import Settings

SECRET = b"correct horse battery\n"


def lines(day_keys: int, first_day: str, last_day: str) -> list[str]:
    store = StoreStatus("relay", "k1", 0, day_keys, first_day, last_day)
    return KeyStatus("relay", "relay.key", "file", "k1", False, [store]).lines()


def test_days_are_shown_where_there_are_any() -> None:
    assert lines(0, "", "")[1].endswith("day keys: 0")
    assert lines(2, "2026-01-01", "2026-01-02")[1].endswith(
        "day keys: 2 (2026-01-01 to 2026-01-02)"
    )


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A master key in clear, of a data folder without stores."""
    path = Layout(tmp_path / "data").master_key("gateway")
    FileKeyProvider(path)
    return path


def rotate(folder: Path, *arguments: str) -> Result:
    chosen = ["--data", str(folder / "data"), *arguments]
    return CliRunner().invoke(main, ["keys", "rotate", *chosen])


def under(protection: str, folder: Path) -> list[str]:
    """Settings for new keys of this protection; every way is set up."""
    (folder / "secret").write_bytes(SECRET)
    values = {
        "keys.protection": protection,
        "keys.passphrase_from": f"file:{folder / 'secret'}",
        "keys.command": json.dumps(["/bin/false"]),
    }
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


@pytest.mark.parametrize("protection", ["file", "command"])
@pytest.mark.parametrize("name", ["secret", "missing"])
def test_a_new_passphrase_that_no_key_would_get_is_refused(
    tmp_path: Path, key: Path, protection: str, name: str
) -> None:
    before = key.read_bytes()
    source = ["--new-passphrase-from", f"file:{tmp_path / name}"]
    ran = rotate(tmp_path, *under(protection, tmp_path), *source)
    assert ran.exit_code == ExitCode.CONFIG
    assert f"--new-passphrase-from: keys.protection is {protection}," in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert [path.name for path in key.parent.iterdir()] == [key.name]
    assert key.read_bytes() == before


@pytest.mark.parametrize("source", ["nonsense", "fd:x", "file:secret"])
def test_a_new_passphrase_from_nowhere_is_refused(tmp_path: Path, key: Path, source: str) -> None:
    ran = rotate(tmp_path, *under("passphrase", tmp_path), "--new-passphrase-from", source)
    assert ran.exit_code == ExitCode.USAGE
    assert "must be prompt, file:/" in ran.stderr
    assert named_key(key)[0] == "file"


def test_the_documented_way_from_clear_to_a_passphrase(tmp_path: Path, key: Path) -> None:
    ran = rotate(tmp_path, *under("passphrase", tmp_path))
    assert ran.exit_code == 0, ran.stderr
    assert named_key(key)[0] == "passphrase"


@pytest.mark.parametrize(
    ("protection", "kept"),
    [("file", "kept as file, as before"), ("passphrase", "kept as passphrase (before: file)")],
)
def test_a_rotation_says_how_the_key_is_kept_and_what_follows(
    tmp_path: Path, key: Path, protection: str, kept: str
) -> None:
    ran = rotate(tmp_path, *under(protection, tmp_path))
    first, last = ran.stdout.splitlines()
    assert first == f"{key} is now key {named_key(key)[1]}, {kept}"
    assert last == "copy keys/ to where you keep it again; backups made before need the former key"


def test_a_key_that_comes_to_be_in_clear_is_told(tmp_path: Path, key: Path) -> None:
    assert rotate(tmp_path, *under("passphrase", tmp_path)).exit_code == 0
    ran = rotate(tmp_path, *under("file", tmp_path))
    assert "kept as file (before: passphrase)" in ran.stdout


def test_a_staged_key_in_clear_does_not_pass_for_one_under_a_passphrase(
    tmp_path: Path, key: Path
) -> None:
    make_key(staged(key), UNPROTECTED)
    files = {path: path.read_bytes() for path in key.parent.iterdir()}
    ran = rotate(tmp_path, *under("passphrase", tmp_path))
    assert ran.exit_code == ExitCode.CONFIG
    assert "finish it with keys.protection = file" in ran.stderr
    assert files == {path: path.read_bytes() for path in key.parent.iterdir()}
    assert rotate(tmp_path).exit_code == 0
    assert rotate(tmp_path, *under("passphrase", tmp_path)).exit_code == 0
    assert named_key(key)[0] == "passphrase"


async def test_another_passphrase_waits_until_the_daemon_is_stopped(
    tmp_path: Path, key: Path
) -> None:
    settings = Settings(data_folder=tmp_path / "data")
    async with AsyncExitStack() as opened:
        await open_store(settings, "registry", STORES["registry"], opened)
        with pytest.raises(EnvironmentFault, match="another daemon: stop it first") as caught:
            await keys.rotate(settings, wait_seconds=0, new_passphrase_from="file:/elsewhere")
    assert caught.value.reason == "DATA_FOLDER_LOCKED"
    assert [path.name for path in key.parent.iterdir()] == [key.name]

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from letterlockd.sealing.errors import MasterKeyFault, SealBroken
from letterlockd.sealing.provider import FileKeyProvider


async def test_first_start_makes_a_private_key_that_later_starts_use(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    first = FileKeyProvider(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(base64.b64decode(path.read_bytes())) == 32
    assert os.listdir(path.parent) == ["master.key"]
    again = FileKeyProvider(path)
    assert again.key_id == first.key_id
    assert await again.unwrap(await first.wrap(b"key", b"for"), b"for") == b"key"


async def test_another_key_or_context_does_not_unwrap(tmp_path: Path) -> None:
    ours, theirs = FileKeyProvider(tmp_path / "a"), FileKeyProvider(tmp_path / "b")
    assert ours.key_id != theirs.key_id
    wrapped = await ours.wrap(b"key", b"for")
    for provider, context in ((theirs, b"for"), (ours, b"other")):
        with pytest.raises(SealBroken):
            await provider.unwrap(wrapped, context)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610])
def test_a_key_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    FileKeyProvider(path)
    path.chmod(mode)
    with pytest.raises(MasterKeyFault) as caught:
        FileKeyProvider(path)
    assert caught.value.reason == "MASTER_KEY_PERMISSIONS"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"not base64!",
        base64.b64encode(bytes(31)),
        base64.b64encode(bytes(33)),
        base64.b64encode(bytes(32))[:-1],
        base64.b64encode(bytes(32)) + b"\n" + base64.b64encode(bytes(32)),
        os.urandom(32),
    ],
)
def test_malformed_keys_are_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "master.key"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(MasterKeyFault) as caught:
        FileKeyProvider(path)
    assert caught.value.reason == "MASTER_KEY_INVALID"
    assert path.read_bytes() == content


def test_a_folder_in_the_place_of_the_key(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyFault) as caught:
        FileKeyProvider(tmp_path)
    assert caught.value.reason == "MASTER_KEY_PERMISSIONS"


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MasterKeyFault) as caught:
        FileKeyProvider(tmp_path / "file" / "master.key")
    assert caught.value.reason == "MASTER_KEY_PERMISSIONS"

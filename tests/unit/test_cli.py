"""The command line: first start, and each fault as one line with its exit code."""

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from letterlockd.app import deletions
from letterlockd.cli import main
from letterlockd.exit_codes import ExitCode
from letterlockd.layout import KeyFileFault, Layout, prepare_keys
from letterlockd.registry import tokens


def letterlockd(
    folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "letterlockd", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_init_makes_what_is_missing_and_replaces_nothing(tmp_path: Path) -> None:
    first = letterlockd(tmp_path, "init")
    assert first.returncode == 0, first.stderr
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    private = [path for path in files if path.suffix not in {".crt", ".toml"}]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert "ca.crt" in first.stdout
    assert "operator.token" in first.stdout
    again = letterlockd(tmp_path, "init")
    assert again.returncode == 0
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_init_makes_the_settings_file_that_is_named(tmp_path: Path) -> None:
    first = letterlockd(tmp_path, "init", "--config", "etc/my.toml")
    assert first.returncode == 0, first.stderr
    made = (tmp_path / "etc" / "my.toml").read_text()
    assert "# workers = 2" in made
    assert "etc/my.toml" in first.stdout
    assert not (tmp_path / "letterlock.toml").exists()
    (tmp_path / "etc" / "my.toml").write_text("data_folder = 'd'\n")
    assert letterlockd(tmp_path, "init", "--config", "etc/my.toml").returncode == 0
    assert (tmp_path / "etc" / "my.toml").read_text() == "data_folder = 'd'\n"
    assert (tmp_path / "etc" / "d" / "keys").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--bogus",), "No such option '--bogus'"),
        (("nope",), "No such command 'nope'"),
        (("backup",), "Missing argument 'DESTINATION'"),
        (("keys", "rotate", "--wait", "-4"), "'--wait': must be 0 to 86400 seconds"),
    ],
)
def test_what_is_typed_wrongly_is_told_in_one_line(arguments: tuple[str, ...], told: str) -> None:
    ran = CliRunner().invoke(main, arguments)
    assert (ran.exit_code, ran.stdout) == (ExitCode.USAGE, "")
    assert told in ran.stderr
    assert "--help`)" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_init_leaves_a_folder_of_something_else_alone(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").touch()
    run = letterlockd(tmp_path, "init", "--data", "photos")
    assert run.returncode == ExitCode.DATA_FOLDER
    assert "holiday.jpg" in run.stderr
    assert "Traceback" not in run.stderr
    assert [path.name for path in folder.iterdir()] == ["holiday.jpg"]


def test_init_takes_an_empty_file_system(tmp_path: Path) -> None:
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    assert letterlockd(tmp_path, "init", "--data", "disk").returncode == 0


def test_the_operators_token_fits_its_hash(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    prepare_keys(layout)
    bearer = tokens.parse(layout.operator_token.read_text().strip())
    assert tokens.matches(bearer, layout.operator_digest())
    assert set(layout.gateway_hashes()) == {"local"}
    assert layout.gateway_credential().startswith("gw.local.")


@pytest.mark.parametrize("content", [b"", b"zz", b"\xff" * 10, b"0" * 2_000])
def test_a_damaged_key_file_is_named(tmp_path: Path, content: bytes) -> None:
    layout = Layout(tmp_path)
    prepare_keys(layout)
    (layout.keys / "operator.hash").write_bytes(content)
    with pytest.raises(KeyFileFault, match=r"operator\.hash"):
        layout.operator_digest()


def test_config_prints_settings_with_their_origin(tmp_path: Path) -> None:
    run = letterlockd(
        tmp_path, "config", "--set", "gateway.workers=3", LETTERLOCK_LOG__LEVEL="debug"
    )
    lines = run.stdout.splitlines()
    assert "workers = 3  # command line" in lines
    assert 'level = "debug"  # environment' in lines
    assert 'listen = "127.0.0.1:7443"  # default' in lines
    assert "# relay_ca is not set  # default" in lines
    assert tomllib.loads(run.stdout)["gateway"]["workers"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["serve", "--set", "gateway.lisen=1"], ExitCode.CONFIG, ["gateway.listen"]),
        (["relay", "--set", "log.level"], ExitCode.CONFIG, ["KEY=VALUE"]),
        (["relay", "--set", "tls.names=[x"], ExitCode.CONFIG, ["tls.names", '["a", "b"]']),
        (["gateway", "--config", "none.toml"], ExitCode.CONFIG, ["none.toml"]),
        (["serve", "--nonsense"], ExitCode.USAGE, ["--nonsense"]),
        (["keys", "rotate", "--wait", "-1"], ExitCode.USAGE, ["--wait", "0 to 86400"]),
        (["keys", "rotate", "--wait", "nan"], ExitCode.USAGE, ["--wait"]),
        (["keys", "status"], ExitCode.DATA_FOLDER, ["holds no store"]),
        (["deletions"], ExitCode.DATA_FOLDER, ["holds no store"]),
        (["verify", "--no-seals"], ExitCode.DATA_FOLDER, ["holds no store"]),
        (["nonsense"], ExitCode.USAGE, ["nonsense"]),
        (["init", "--data", "/proc/nowhere"], ExitCode.DATA_FOLDER, ["/proc/nowhere"]),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    tmp_path: Path, arguments: list[str], code: ExitCode, words: list[str]
) -> None:
    run = letterlockd(tmp_path, *arguments)
    assert run.returncode == code
    assert "Traceback" not in run.stderr
    for word in words:
        assert word in run.stderr


def prepared(folder: Path) -> Path:
    data = folder / "letterlock-data"
    prepare_keys(Layout(data))
    return data


def relay(folder: Path) -> subprocess.CompletedProcess[str]:
    return letterlockd(folder, "relay", "--set", "relay.listen=127.0.0.1:0")


def test_a_master_key_that_others_can_read(tmp_path: Path) -> None:
    key = prepared(tmp_path) / "keys" / "relay.key"
    key.write_text("x")
    key.chmod(0o644)
    run = relay(tmp_path)
    assert run.returncode == ExitCode.KEYS
    assert "MASTER_KEY_PERMISSIONS" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_foreign_data_folder(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    (data / "relay").mkdir()
    (data / "relay" / "holiday.jpg").touch()
    run = relay(tmp_path)
    assert run.returncode == ExitCode.DATA_FOLDER
    assert "DATA_FOLDER_FOREIGN" in run.stderr


def test_an_unusable_certificate(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    (data / "tls").mkdir()
    (data / "tls" / "ca.crt").write_text("nonsense")
    run = relay(tmp_path)
    assert run.returncode == ExitCode.TLS
    assert "ca.crt" in run.stderr or "ca.key" in run.stderr


def test_missing_keys_say_how_to_make_them(tmp_path: Path) -> None:
    run = letterlockd(tmp_path, "gateway", "--set", "gateway.listen=127.0.0.1:0")
    assert run.returncode == ExitCode.KEYS
    assert "letterlockd init" in run.stderr


def test_no_deletions_are_said_and_an_empty_list_for_programs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(deletions, "deleted_hours", lambda _: [])
    asked = ["deletions", "--data", str(tmp_path)]
    told = CliRunner().invoke(main, asked)
    assert (told.exit_code, told.stdout, told.stderr) == (0, "", "nothing has been removed yet\n")
    told = CliRunner().invoke(main, [*asked, "--json"])
    assert (told.exit_code, told.stdout, told.stderr) == (0, "[]\n", "")


ASKED = ("keys", "rotate", "--set", "keys.passphrase_from=prompt")


def test_a_prompt_whose_input_ends_is_told_as_a_missing_passphrase(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, [*ASKED, "--data", str(tmp_path / "data")], input="")
    assert ran.exit_code == ExitCode.KEYS
    assert "keys.passphrase_from: the input ended before a passphrase was given" in ran.stderr


def test_ctrl_c_at_a_prompt_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prompt(*arguments: object, **options: object) -> str:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise click.Abort from None  # as click does

    monkeypatch.setattr(click, "prompt", prompt)
    ran = CliRunner().invoke(main, [*ASKED, "--data", str(tmp_path / "data")])
    assert (ran.exit_code, ran.stderr) == (
        ExitCode.INTERRUPTED,
        "letterlockd: ended by Ctrl-C\n",
    )

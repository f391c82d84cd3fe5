from pathlib import Path

import pytest
from letterlockd import config
from letterlockd.config import ConfigFault, default_file, effective, effective_file, load
from letterlockd.settings import Settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "letterlock.toml"
    path.write_text(text)
    return path


def test_without_anything_the_defaults_hold() -> None:
    loaded = load(None, {})
    assert loaded.settings == Settings()
    assert loaded.settings.gateway.listen == "127.0.0.1:7443"
    assert loaded.settings.relay.listen == "127.0.0.1:7444"
    assert {setting.origin for setting in effective(loaded)} == {"default"}


def test_each_source_wins_over_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "[gateway]\nworkers = 3\nlisten = '127.0.0.1:1'\nrelay = '127.0.0.1:2'\n")
    monkeypatch.setenv("LETTERLOCK_GATEWAY__WORKERS", "4")
    monkeypatch.setenv("LETTERLOCK_GATEWAY__LISTEN", "127.0.0.1:3")
    loaded = load(None, {"gateway.workers": "5"})
    gateway = loaded.settings.gateway
    assert (gateway.workers, gateway.listen, gateway.relay) == (5, "127.0.0.1:3", "127.0.0.1:2")
    origins = {setting.key: setting.origin for setting in effective(loaded)}
    assert origins["gateway.workers"] == "command line"
    assert origins["gateway.listen"] == "environment"
    assert origins["gateway.relay"] == "letterlock.toml"
    assert origins["relay.listen"] == "default"


def test_paths_in_a_file_are_meant_from_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    path = write(folder, "data_folder = 'data'\n[gateway]\nrelay_ca = '/abs/ca.crt'\n")
    settings = load(path, {}).settings
    assert settings.data_folder == folder / "data"
    assert settings.gateway.relay_ca == Path("/abs/ca.crt")
    assert load(path, {"data_folder": "here"}).settings.data_folder == Path("here")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[gateway]\nlisen = 'x:1'\n", ["gateway.lisen", "gateway.listen", "letterlock.toml"]),
        ("[gatway]\nlisten = 'x:1'\n", ["gatway.listen", "gateway.listen"]),
        ("data_foldr = 'x'\n", ["data_foldr", "data_folder"]),
        ("gateway = 3\n", ["gateway"]),
        ("[gateway]\nworkers = 0\n", ["gateway.workers", "1", "letterlock.toml"]),
        ("[gateway]\nworkers = 65\n", ["gateway.workers", "64"]),
        ("[gateway]\nworkers = 'many'\n", ["gateway.workers"]),
        ("[gateway]\nlisten = 'localhost'\n", ["gateway.listen", "host:port"]),
        ("[relay]\nlisten = 'a:65536'\n", ["relay.listen", "host:port", "65535"]),
        ("[gateway]\nlisten = '127.0.0.1:99999'\n", ["gateway.listen", "65535"]),
        ("[relay]\nmetrics = '0.0.0.0:9000'\n", ["relay.metrics", "this machine"]),
        ("[relay]\nverification = 'command'\n", ["relay", "verification_command"]),
        ("[tls]\ncertificate = 'a'\n", ["tls", "key"]),
        ("[store]\nmax_bytes = 1\n", ["store.max_bytes"]),
        ("[log]\nlevel = 'loud'\n", ["log.level"]),
        ("[health]\nbound_seconds = 0\n", ["health.bound_seconds"]),
        ("[traces]\nshare = 2\n", ["traces.share"]),
        ("[traces]\nexporter = '../x'\n", ["traces.exporter"]),
        ("[gateway\n", ["letterlock.toml", "TOML"]),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, named: list[str]) -> None:
    write(tmp_path, text)
    with pytest.raises(ConfigFault) as caught:
        load(None, {})
    assert caught.value.reason == "CONFIG_INVALID"
    for part in named:
        assert part in caught.value.message


@pytest.mark.parametrize("name", ["LETTERLOCK_GATEWAY__LISEN", "LETTERLOCK_GATWAY__LISTEN"])
def test_a_typo_in_the_environment_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "127.0.0.1:1")
    with pytest.raises(ConfigFault, match=r"environment: .*did you mean gateway\.listen\?"):
        load(None, {})


def test_the_sdks_variables_are_not_the_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTERLOCK_CA", "/somewhere/ca.crt")
    monkeypatch.setenv("LETTERLOCK_GATEWAY", "127.0.0.1:8443")
    monkeypatch.setenv("LETTERLOCK_RELAY", "127.0.0.1:8444")
    assert load(None, {}).settings == Settings()
    monkeypatch.setenv("LETTERLOCK_GATEWAY__WORKERS", "3")
    assert load(None, {}).settings.gateway.workers == 3


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("LETTERLOCK_GATEWAY__WORKERS", "many", "must be a whole number"),
        ("LETTERLOCK_LOG__LEVEL", "loud", "must be 'debug', 'info', 'warning' or 'error'"),
        ("LETTERLOCK_TLS__NAMES", "relay.example.net", 'must be a list, such as ["a", "b"]'),
        ("LETTERLOCK_REFLECTION", "perhaps", "must be true or false"),
        ("LETTERLOCK_LOG", "debug", "sets nothing; did you mean LETTERLOCK_LOG__<KEY>?"),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(
    name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigFault) as caught:
        load(None, {})
    between = " " if told.startswith("sets") else ": "
    assert caught.value.message == f"environment: {name}{between}{told}"


def test_what_is_given_as_text_is_read_by_the_kind_of_its_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LETTERLOCK_TLS__NAMES", '["a.example"]')
    monkeypatch.setenv("LETTERLOCK_DATA_FOLDER", "/somewhere")
    monkeypatch.setenv("LETTERLOCK_RELAY__LISTEN", "[::1]:7444")
    text = {
        "gateway.listen": "[::1]:7443",
        "keys.command": '["kms"]',
        "store.max_bytes": "99999999",
    }
    settings = load(None, text).settings
    assert (settings.tls.names, settings.keys.command) == (["a.example"], ["kms"])
    assert (settings.gateway.listen, settings.relay.listen) == ("[::1]:7443", "[::1]:7444")
    assert (settings.data_folder, settings.store.max_bytes) == (Path("/somewhere"), 99_999_999)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match=r"missing\.toml cannot be read"):
        load(tmp_path / "missing.toml", {})


def test_the_default_file_names_every_setting_and_changes_none(tmp_path: Path) -> None:
    text = default_file()
    write(tmp_path, text)
    assert load(None, {}).settings == Settings()
    for setting in effective(load(None, {})):
        assert f"# {setting.key.rpartition('.')[2]} =" in text
        assert setting.description in text


def test_uncommenting_the_default_file_changes_nothing(tmp_path: Path) -> None:
    lines = [
        line.removeprefix("# ") if " = " in line and not line.endswith(".") else line
        for line in default_file().splitlines()
    ]
    write(tmp_path, "\n".join(lines))
    settings = load(None, {}).settings
    assert settings.model_copy(update={"data_folder": Settings().data_folder}) == Settings()


def test_what_is_in_force_can_be_a_settings_file(tmp_path: Path) -> None:
    overrides = {
        "tls.names": ["a.example", "\U0001f600ü"],
        "gateway.relay_name": 'q"\\x',
        "store.max_bytes": 2**30,
        "data_folder": "/somewhere",
        "serve.drain_seconds": 2.5,
        "reflection": False,
    }
    loaded = load(None, overrides)
    again = load(write(tmp_path, effective_file(loaded)), {})
    assert again.settings == loaded.settings


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[store]\nmax_bytes = 1", "store.max_bytes: must be 16777216 or more (bytes)"),
        ("[gateway]\nworkers = 65", "gateway.workers: must be 64 or less"),
        ("[gateway]\nworkers = 'many'", "gateway.workers: must be a whole number"),
        ("[store]\nsweep_seconds = 0", "store.sweep_seconds: must be 0.1 or more (seconds)"),
        (
            "[health]\nbound_seconds = nan",
            "health.bound_seconds: must be a number from 1 to 300 (seconds)",
        ),
        ("[log]\nlevel = 'loud'", "log.level: must be 'debug', 'info', 'warning' or 'error'"),
        ("[tls]\nnames = 'a'", 'tls.names: must be a list, such as ["a", "b"]'),
        ("reflection = 'x'", "reflection: must be true or false"),
        ("colour = 3", "there is no setting colour; `letterlockd config` shows all"),
        ("[tls]\nkey = 'a'", "tls: certificate and key are given together or not at all"),
    ],
)
def test_a_mistake_is_told_in_our_words_with_its_place(
    tmp_path: Path, text: str, told: str
) -> None:
    write(tmp_path, text)
    with pytest.raises(ConfigFault) as caught:
        load(None, {})
    assert caught.value.message == f"letterlock.toml: {told}"


def test_a_rule_for_two_settings_names_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "[relay]\nverification = 'command'\n")
    monkeypatch.setenv("LETTERLOCK_RELAY__METRICS", "127.0.0.1:1")
    with pytest.raises(ConfigFault, match=r"^letterlock\.toml and environment: relay: "):
        load(None, {})


def test_a_variable_with_one_underscore_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTERLOCK_GATEWAY_WORKERS", "3")
    with pytest.raises(
        ConfigFault,
        match=r"LETTERLOCK_GATEWAY_WORKERS .*did you mean LETTERLOCK_GATEWAY__WORKERS\?",
    ):
        load(None, {})


def test_settings_are_frozen() -> None:
    settings = load(None, {}).settings
    with pytest.raises(ValueError, match="frozen"):
        settings.gateway.workers = 3  # type: ignore[misc]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_no_number_is_told_both_bounds_of_every_setting(value: str) -> None:
    numbers = [key for key, field in config._fields() if field.annotation is float]
    assert "health.bound_seconds" in numbers
    for key in numbers:
        with pytest.raises(ConfigFault, match=r"must be a number from \S+ to \S+") as caught:
            load(None, {key: value})
        assert key in caught.value.message

import re

import pytest
from letterlockd import exit_codes
from letterlockd.config import ConfigFault
from letterlockd.errors import BrokenInvariant, EnvironmentFault
from letterlockd.exit_codes import ExitCode, of_error, restart_helps
from letterlockd.layout import KeyFileFault
from letterlockd.rpc.server import ListenFault
from letterlockd.rpc.tls import TlsFault
from letterlockd.sealing.errors import MasterKeyFault
from letterlockd.store.port import StoreUnavailable

TABLE = re.findall(
    r"^\| (\d+) \| (\w+) \|.*\| (yes|no|-) \|$", exit_codes.__doc__ or "", re.MULTILINE
)


def test_the_table_in_the_docstring_is_the_code() -> None:
    assert [(int(code), name) for code, name, _ in TABLE] == [(c.value, c.name) for c in ExitCode]


@pytest.mark.parametrize(("code", "restarted"), [(int(c), r) for c, _, r in TABLE if r != "-"])
def test_what_is_restarted_is_what_the_table_says(code: int, restarted: str) -> None:
    assert restart_helps(code, was_ready=False) == (restarted == "yes")


def test_a_role_that_ran_or_was_killed_is_started_again() -> None:
    assert restart_helps(-9, was_ready=False)
    assert restart_helps(ExitCode.LISTEN, was_ready=True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigFault("x"), ExitCode.CONFIG),
        (EnvironmentFault("x", reason="DATA_FOLDER_FOREIGN"), ExitCode.DATA_FOLDER),
        (EnvironmentFault("x", reason="DATA_FOLDER_LOCKED"), ExitCode.DATA_FOLDER),
        (MasterKeyFault("x", reason="MASTER_KEY_MISSING"), ExitCode.KEYS),
        (MasterKeyFault("x", reason="MASTER_KEY_WRONG"), ExitCode.KEYS),
        (MasterKeyFault("x", reason="MASTER_KEY_PERMISSIONS"), ExitCode.KEYS),
        (KeyFileFault("x"), ExitCode.KEYS),
        (TlsFault("x"), ExitCode.TLS),
        (ListenFault("x"), ExitCode.LISTEN),
        (StoreUnavailable("x"), ExitCode.STORE_LOST),
        (EnvironmentFault("x", reason="SOMETHING_NEW"), ExitCode.ENVIRONMENT),
        (BrokenInvariant("x"), ExitCode.BUG),
    ],
)
def test_each_fault_has_its_code(error: EnvironmentFault, code: ExitCode) -> None:
    assert of_error(error) == code

"""`letterlockd`: arguments in, one clear line and an exit code out.

Imports what a command needs when it runs: `serve` never imports gRPC, and `--version` nothing.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import click

from letterlockd.config import ConfigFault, Loaded, default_file, effective_file
from letterlockd.exit_codes import ExitCode
from letterlockd.layout import Layout, lost_keys, prepare_keys
from letterlockd.options import Command, OneLine, with_first_settings, with_settings
from letterlockd.readiness import Ready
from letterlockd.settings import Settings, passphrase_source

__all__ = ["main"]

_MAX_WAIT_SECONDS = 86_400


@click.group(cls=OneLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("letterlock"), prog_name="letterlockd")
def main() -> None:
    """Letterlock's daemon: a gateway that speaks end-to-end encryption for businesses, and the
    blind relay that carries its messages.

    Settings come from letterlock.toml, from LETTERLOCK_<SECTION>__<KEY> and from --set.
    """
    # Read when gRPC is imported, and handed down to every child: its native log is not JSON and
    # knows no redaction.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


@main.command()
@with_first_settings
def init(loaded: Loaded, forwarded: list[str]) -> None:
    """Make the data folder, keys, tokens, certificates and a settings file; replaces nothing."""
    from datetime import UTC, datetime

    from letterlockd.files import write_file
    from letterlockd.rpc.tls import local_identity

    layout = Layout(loaded.settings.data_folder)
    made = prepare_keys(layout)
    if loaded.settings.tls.certificate is None:
        local_identity(layout.tls, loaded.settings.tls.names, datetime.now(UTC))
    if not loaded.file.exists():
        write_file(loaded.file, default_file().encode(), mode=0o644)
        made.append(loaded.file)
    for path in made:
        click.echo(f"made {path}")
    click.echo(f"clients trust {layout.ca}")
    click.echo(f"the operator's token is in {layout.operator_token}")


@main.command()
@with_settings
def serve(loaded: Loaded, forwarded: list[str]) -> None:
    """Run relay and gateway, each in its own process, until SIGTERM."""
    from letterlockd.app.passphrases import held_fd
    from letterlockd.supervisor import Plan, supervise
    from letterlockd.telemetry import set_up_logs

    layout = Layout(loaded.settings.data_folder)
    prepare_keys(layout)
    settings = _held(loaded.settings)
    set_up_logs("serve", level=settings.log.level, style=settings.log.format)

    def command(role: str, ready_fd: int, pinned: Mapping[str, str]) -> list[str]:
        decided = [part for key in pinned for part in ("--set", f"{key}={pinned[key]}")]
        decided += ["--set", f"keys.passphrase_from={settings.keys.passphrase_from}"]
        role_command = [sys.executable, "-P", "-m", "letterlockd", role, *forwarded, *decided]
        return [*role_command, "--ready-fd", str(ready_fd), "--until-stdin-ends"]

    plan = Plan(
        command=command,
        max_restarts=settings.serve.max_restarts,
        window_seconds=settings.serve.restart_window_seconds,
        drain_seconds=settings.serve.drain_seconds,
        inherited=held_fd(settings.keys.passphrase_from),
    )
    tell = functools.partial(_tell, layout)
    sys.exit(asyncio.run(supervise(plan, tell)))


def _role_options(command: Command) -> Command:
    ready = click.option("--ready-fd", type=int, hidden=True)
    watch = click.option("--until-stdin-ends", is_flag=True, hidden=True)
    return ready(watch(command))


@main.command()
@with_settings
@_role_options
def gateway(
    loaded: Loaded, forwarded: list[str], ready_fd: int | None, until_stdin_ends: bool
) -> None:
    """Run the gateway, with the registry, until SIGTERM."""
    from letterlockd.app.gateway import run_gateway

    sys.exit(
        run_gateway(_held(loaded.settings), ready_fd=ready_fd, until_stdin_ends=until_stdin_ends)
    )


@main.command()
@with_settings
@_role_options
def relay(
    loaded: Loaded, forwarded: list[str], ready_fd: int | None, until_stdin_ends: bool
) -> None:
    """Run the relay until SIGTERM."""
    from letterlockd.app.relay import run_relay

    sys.exit(
        run_relay(_held(loaded.settings), ready_fd=ready_fd, until_stdin_ends=until_stdin_ends)
    )


@main.command()
@with_settings
def config(loaded: Loaded, forwarded: list[str]) -> None:
    """Print every setting in force as a settings file, and where each comes from."""
    click.echo(effective_file(loaded))


@main.group()
def keys() -> None:
    """Look at and rotate the master keys."""


@keys.command("status")
@with_settings
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def keys_status(loaded: Loaded, forwarded: list[str], as_json: bool) -> None:
    """Say how each master key is kept and what is under it; opens no key that is protected."""
    from letterlockd.app.keys import status

    found = status(loaded.settings)
    if as_json:
        click.echo(json.dumps([key.as_json() for key in found], indent=2))
    for key in () if as_json else found:
        click.echo("\n".join(key.lines()))


def _usable_wait(_: click.Context, __: click.Parameter, wait: float) -> float:
    if not 0 <= wait <= _MAX_WAIT_SECONDS:  # NaN is not, either
        raise click.BadParameter(f"must be 0 to {_MAX_WAIT_SECONDS} seconds")
    return wait


def _usable_source(_: click.Context, __: click.Parameter, source: str) -> str:
    try:
        return passphrase_source(source)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@keys.command("rotate")
@with_settings
@click.option(
    "--wait",
    default=60.0,
    callback=_usable_wait,
    help="Seconds that a running daemon gets for it [60].",
)
@click.option(
    "--new-passphrase-from",
    default="",
    callback=_usable_source,
    help="Where the new key's passphrase is, if it is another one; only while no daemon runs.",
)
def keys_rotate(
    loaded: Loaded, forwarded: list[str], wait: float, new_passphrase_from: str
) -> None:
    """Replace each master key, and every business's key that seals day keys, and destroy the old
    ones. A running daemon does it without a stop; otherwise it is done here."""
    from letterlockd.app.keys import rotate

    protection = loaded.settings.keys.protection
    if new_passphrase_from and protection != "passphrase":
        raise ConfigFault(
            f"--new-passphrase-from: keys.protection is {protection}, so no new key would get a "
            "passphrase; set keys.protection to passphrase, and keys.passphrase_from"
        )
    settings = _held(loaded.settings)
    new = _hold(new_passphrase_from, confirm=True) or settings.keys.passphrase_from
    for line in asyncio.run(rotate(settings, wait_seconds=wait, new_passphrase_from=new)):
        click.echo(line)


@main.command("backup")
@with_settings
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--with-keys", is_flag=True, help="Also keys/ and tls/: who has it reads it all.")
def backup_command(
    loaded: Loaded, forwarded: list[str], destination: Path, with_keys: bool
) -> None:
    """Copy the stores, as they are now, to a new folder; a daemon may run."""
    from letterlockd.app.backup import backup

    made = backup(
        loaded.settings.data_folder,
        destination,
        with_keys=with_keys,
        program=version("letterlock"),
    )
    for stored in made.stores:
        click.echo(f"{stored.store}: {stored.size} bytes, master key {stored.master_key_id}")
    if not with_keys:
        click.echo("not in it: keys/ and tls/, which you keep elsewhere")


@main.command("restore")
@with_settings
@click.argument("source", type=click.Path(path_type=Path))
def restore_command(loaded: Loaded, forwarded: list[str], source: Path) -> None:
    """Put a backup's stores into a data folder that has none. What may have been used since the
    backup is not used again: conversations open new sessions when they next send."""
    from letterlockd.app.backup import restore

    made = asyncio.run(restore(loaded.settings, source))
    for stored in made.stores:
        click.echo(f"{stored.store}: as of {made.made_at}, needs master key {stored.master_key_id}")
    layout = Layout(loaded.settings.data_folder)
    missing = [layout.keys] if lost_keys(layout) else []
    if loaded.settings.tls.certificate is None and not layout.ca.exists():
        missing.append(layout.tls)
    if missing:
        names = " and ".join(str(folder) for folder in missing)
        click.echo(f"before the start, put the original's files there: {names}")


@main.command("deletions")
@with_settings
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def deletions_command(loaded: Loaded, forwarded: list[str], as_json: bool) -> None:
    """List what was removed because its time was over: what, when and how many, never whose.
    `verify` checks that nobody has changed the list."""
    from letterlockd.app.deletions import deleted_hours

    found = deleted_hours(loaded.settings.data_folder)
    if as_json:
        click.echo(json.dumps([hour.as_json() for hour in found], indent=2))
    for hour in () if as_json else found:
        click.echo(hour.line())
    if not found and not as_json:
        click.echo("nothing has been removed yet", err=True)


@main.command("verify")
@with_settings
@click.option("--backup", type=click.Path(path_type=Path), help="Look at this backup instead.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--no-seals", is_flag=True, help="Open no seal: needs no key.")
@click.option("--only", hidden=True)
def verify_command(
    loaded: Loaded,
    forwarded: list[str],
    backup: Path | None,
    as_json: bool,
    no_seals: bool,
    only: str | None,
) -> None:
    """Look at every record, index entry, counter and seal of the stores, and report. Changes
    nothing; a daemon may run. Ends with code 12 when something is wrong."""
    from letterlockd.app.passphrases import held_fd
    from letterlockd.app.stores import existing
    from letterlockd.app.verify import VerifyStopped, verify_all, verify_one

    stores = backup or loaded.settings.data_folder
    if only is not None:
        found = verify_one(loaded.settings, stores, only, seals=not no_seals)
        click.echo(json.dumps(found.as_json()))
        return
    settings = loaded.settings if no_seals else _held(loaded.settings)
    source = settings.keys.passphrase_from
    arguments = [*forwarded, "--set", f"keys.passphrase_from={source}"]
    arguments += ["--backup", str(stores)] + ["--no-seals"] * no_seals
    try:
        reports = verify_all(existing(stores), arguments, held_fd(source))
    except VerifyStopped as stopped:
        sys.exit(stopped.code)
    if as_json:
        click.echo(json.dumps([report.as_json() for report in reports], indent=2))
    for report in () if as_json else reports:
        click.echo("\n".join(report.lines()))
    if any(report.wrong for report in reports):
        sys.exit(ExitCode.DAMAGED)


def _held(settings: Settings) -> Settings:
    """Settings whose passphrase can be read again and again, asked for now if need be."""
    layout = Layout(settings.data_folder)
    is_first = not any(layout.master_key(role).exists() for role in ("gateway", "relay"))
    held = _hold(settings.keys.passphrase_from, confirm=is_first)
    return settings.model_copy(
        update={"keys": settings.keys.model_copy(update={"passphrase_from": held})}
    )


def _hold(source: str, *, confirm: bool) -> str:
    from letterlockd.app.passphrases import hold, no_passphrase

    def ask() -> str:
        try:
            text: str = click.prompt(
                "Passphrase of the master key",
                hide_input=True,
                confirmation_prompt=confirm,
                err=True,
            )
        except click.Abort as ended:
            if isinstance(ended.__context__, EOFError):
                raise no_passphrase() from None
            raise
        return text

    return hold(source, ask)


def _tell(layout: Layout, relay: Ready, gateway: Ready) -> None:
    """What a person at the terminal needs next; logs have it for everybody else."""
    if not sys.stdout.isatty():
        return
    from rich.console import Console
    from rich.panel import Panel

    Console().print(
        Panel.fit(
            f"businesses connect to  [bold]{gateway.address}[/]\n"
            f"devices connect to     [bold]{relay.address}[/]\n"
            f"clients trust          {layout.ca}\n"
            f"operator's token       {layout.operator_token}\n\n"
            f"next: [bold]letterlock --help[/]; Ctrl-C stops",
            title="letterlockd serves",
        )
    )

"""The commands around the pipeline: psql, the UI, and the end of what is embedded."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
from psycopg2.extensions import make_dsn, parse_dsn

from user_processing import settings
from user_processing.cli.output import command, say
from user_processing.cli.session import CommandError, confirm
from user_processing.embedded import postgres as embedded
from user_processing.embedded.programs import binary
from user_processing.internals.interruptible import restore_interrupt
from user_processing.paths import data_dir

_HOST = "127.0.0.1"
_PORTS_TRIED = 100
_OPENS_WITHIN = 300.0  # seconds
_ENDS_WITHIN = 5.0  # seconds: of the server that the last process to end has left


def psql(folder: Path) -> int:
    """Run psql on the users' database, in this folder; returns its exit code."""
    url = settings.load().service("USERS_POSTGRES_URL")
    program = "psql" if url else str(binary("psql"))
    dsn = parse_dsn(url or embedded.dsn("users"))
    # Everybody can read a command line.
    password = {"PGPASSWORD": dsn.pop("password")} if "password" in dsn else {}
    # Ctrl-C is for psql; this process stays, since the embedded server runs for as long as it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.call([program, make_dsn(**dsn)], env={**os.environ, **password}, cwd=folder)
    except FileNotFoundError:
        raise CommandError(
            "The program psql is not installed, which USERS_POSTGRES_URL needs. Install Postgres's client."
        ) from None


def dev(port: int) -> None:
    """Become `dagster dev`; a process beside it says where the UI is, when it is there."""
    if not _is_free(port):
        other = next((it for it in range(port + 1, min(port + _PORTS_TRIED, 65536)) if _is_free(it)), None)
        advice = f"Use another: {command(f'dev --port {other}', f'dev UI_PORT={other}')}" if other else "Use another."
        raise CommandError(f"Port {port} of {_HOST} is taken. {advice}")
    say("Starting the UI, the schedule, the sensor and the queue. Ctrl-C ends them.")
    sys.stderr.flush()
    restore_interrupt()
    _announce(f"http://{_HOST}:{port}", os.getpid())
    arguments = ["dev", "--host", _HOST, "--port", str(port), "--log-level", "warning"]
    if not Path("workspace.yaml").exists():
        arguments += ["-m", "user_processing"]
    os.execv(sys.executable, [sys.executable, "-W", "ignore", "-m", "dagster", *arguments])  # noqa: S606


def stop(*, idle: bool) -> None:
    """Stop the embedded Postgres; with `idle`, only if nothing uses it.

    Raises:
        CommandError: something uses it.
    """
    folder = data_dir() / "postgres"
    if idle and not embedded.is_unused(folder, wait_seconds=_ENDS_WITHIN):
        raise CommandError("The embedded Postgres is in use. End what uses it first, such as `make dev`.")
    embedded.stop(folder)


def reset(*, yes: bool) -> None:
    """Delete the data folder.

    Raises:
        CommandError: something uses it, or nobody has said yes.
    """
    folder = data_dir()
    if not folder.exists():
        say(f"Nothing is there to delete: {folder} does not exist.")
        return
    used = f"{folder} is in use. End what uses it first, such as `{command('dev')}`. Nothing was deleted."
    if not embedded.is_unused(folder / "postgres", wait_seconds=_ENDS_WITHIN):
        raise CommandError(used)
    if not yes:
        what = "all users and all runs of the embedded Postgres, the files of the days, the logs"
        confirm(f"This deletes {folder}: {what}.", "Delete it?", otherwise="Nothing was deleted.")
    with embedded.reserved(folder / "postgres") as reserved:
        if not reserved:
            raise CommandError(used)
        embedded.stop(folder / "postgres")
        shutil.rmtree(folder)
    say(f"{folder} is deleted.")
    chosen = settings.load()
    for name in ("USERS_POSTGRES_URL", "DAGSTER_POSTGRES_URL", "USERS_FILES_URL"):
        if getattr(chosen, name.lower()):
            say(f"What {name} names is left as it is.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: a port whose last connections are about to be forgotten is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise CommandError(
                f"Port {port} of {_HOST} cannot be used: {error.strerror}. Use one above 1023."
            ) from None
    return True


def _announce(url: str, parent: int) -> None:
    """Leave a process behind that says once where the UI is; nobody's child, so none to wait for."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    if os.fork():
        os._exit(0)
    deadline = time.monotonic() + _OPENS_WITHIN
    while time.monotonic() < deadline and psutil.pid_exists(parent):
        try:
            with urllib.request.urlopen(f"{url}/server_info", timeout=5):  # noqa: S310 - http
                say(f"The UI is on {url}")
                break
        except OSError:
            time.sleep(0.3)
    os._exit(0)

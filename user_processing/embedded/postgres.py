"""Postgres from a wheel: started by the first process that needs it, stopped after the last one is gone.

The data is in the data folder, readable by its owner only. How the wheel's programs are run is for `programs`.

Who lives is told by four file locks, which the kernel releases however a process ends:

- `users.lock`, shared: every process that uses the server. Whoever holds it alone knows that nobody does.
- `server.lock`, exclusive: inherited by the postmaster and its children. Whoever gets it knows that none is left.
- `reaper.lock`, exclusive: the process that waits for `users.lock` and then stops the server (`reaper`).
- `start.lock`, exclusive: one process at a time decides whether a server and a reaper have to be started.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil

from user_processing import paths
from user_processing.embedded import reaper
from user_processing.embedded.programs import OR_ANOTHER_SERVER, EmbeddedPostgresError, as_somebody, binary, pg_ctl, run

DATABASES = ("dagster", "users")

_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 103  # bytes: sun_path on macOS, 107 on Linux
_LARGEST_LOG = 10_000_000  # bytes
_one_thread = threading.Lock()


def default_folder() -> Path:
    """Where the server keeps its data if nobody says otherwise: `postgres` in the data folder."""
    return paths.data_dir() / "postgres"


def dsn(database: str, folder: Path | None = None) -> str:
    """The libpq URL of a database of the embedded server, which runs at least until this process ends.

    Args:
        database: one of `DATABASES`, or `postgres`.
        folder: where the server keeps its data; None for `default_folder()`.

    Raises:
        EmbeddedPostgresError: the server could not be started.
    """
    with _one_thread:
        return f"postgresql://postgres@/{database}?host={quote(str(_running(folder or default_folder())), safe='')}"


@functools.cache
def _running(folder: Path) -> Path:
    """Start the server of `folder` unless it runs, and count this process as one of its users.

    Returns:
        The folder of its Unix socket.
    """
    try:
        paths.make_private_folder(folder)
        folder.chmod(0o700)
        # Never closed: held until the process ends. While a reaper stops the server, this waits for it.
        _lock(folder / "users.lock", fcntl.LOCK_SH)
    except OSError as error:
        message = f"The embedded Postgres cannot keep its data in {folder}: {error.strerror}."
        advice = f"Set USERS_DATA_DIR to a folder that you may write. {OR_ANOTHER_SERVER}"
        raise EmbeddedPostgresError(f"{message} {advice}") from None
    sockets = _socket_folder(folder)
    with _held(folder / "start.lock"):
        if not _answers(sockets):
            _start(folder, sockets)
        _spawn_reaper(folder)
    return sockets


def stop(folder: Path | None = None) -> None:
    """Stop the server of `folder` (None: of `default_folder()`) now, whoever uses it."""
    folder = folder or default_folder()
    if reaper.runs(folder):
        with contextlib.suppress(EmbeddedPostgresError):  # it stopped by itself in the meantime
            run(folder, *pg_ctl("stop", "--mode=fast"))


@contextlib.contextmanager
def reserved(folder: Path) -> Iterator[bool]:
    """Keep others from using the server of `folder` within the block; false, and nothing kept, if one does already."""
    try:
        users_lock = _lock(folder / "users.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        yield True
        return
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(users_lock)


def is_unused(folder: Path, *, wait_seconds: float) -> bool:
    """Whether no process uses the server of `folder`.

    A server that the last process has just left stops within a second or two: that is waited for.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        with reserved(folder) as free:
            if free or time.monotonic() > deadline:
                return free
        time.sleep(0.1)


def _lock(path: Path, operation: int) -> int:
    """An open file descriptor that holds the lock; closing it, or the end of the process, releases it.

    Raises:
        BlockingIOError: with LOCK_NB, when another process holds the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _held(path: Path) -> Iterator[int]:
    descriptor = _lock(path, fcntl.LOCK_EX)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _socket_folder(folder: Path) -> Path:
    """`folder`, or where its path cannot be that of a Unix socket, a private folder among the temporary files."""
    if _fits(folder):
        return folder
    name = f"user_processing-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    sockets = Path(tempfile.gettempdir()) / name
    if not _fits(sockets):
        raise EmbeddedPostgresError(
            f"A Unix socket cannot be in {sockets}. Set TMPDIR to a shorter path without a comma."
        )
    with contextlib.suppress(FileExistsError):
        sockets.mkdir(mode=0o700)
    status = sockets.lstat()
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) != stat.S_IRWXU:
        raise EmbeddedPostgresError(
            f"The folder {sockets} belongs to somebody else or is open to others. Remove it, or set TMPDIR."
        )
    return sockets


def _fits(folder: Path) -> bool:
    # To libpq, a comma stands between the names of two hosts.
    return "," not in str(folder) and len(os.fsencode(folder / _SOCKET)) <= _LONGEST_SOCKET_PATH


def _answers(sockets: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(sockets / _SOCKET)) == 0


def _start(folder: Path, sockets: Path) -> None:
    _kill_orphans(folder)
    # The lock is free when the last process of an earlier server is gone.
    with _held(folder / "server.lock") as server_lock:
        _initialise(folder)
        # What a killed server left names a process id that may be another program's by now.
        for stale in (folder / "data" / "postmaster.pid", sockets / _SOCKET, sockets / f"{_SOCKET}.lock"):
            stale.unlink(missing_ok=True)
        log = folder / "log"
        if log.exists() and log.stat().st_size > _LARGEST_LOG:
            log.unlink()
        # A list of folders to Postgres, and part of a command line to the shell that pg_ctl starts it with.
        quoted = shlex.quote('"{}"'.format(str(sockets).replace('"', '""')))
        options = f"-c listen_addresses='' -c unix_socket_directories={quoted} -c max_connections=200"
        start = pg_ctl("start", f"--log={log.name}", f"--options={options} -c log_checkpoints=off")
        run(folder, *start, inherited=(server_lock,), log=log)


def _kill_orphans(folder: Path) -> None:
    """Kill what is left of a server whose postmaster was killed.

    Its children mean to end by themselves, but one that finds a lock in shared memory held by another that is dead
    waits for it for ever (seen with Postgres 18's I/O workers). What they had not committed is lost either way.
    """
    data, processes = (folder / "data").resolve(), {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "postgres" and process.cwd() == str(data):
                processes[process.pid] = process
    with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
        if int((data / "postmaster.pid").read_text().split()[0]) in processes:
            return  # a postmaster that is just shutting down
    for process in processes.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _initialise(folder: Path) -> None:
    """Make the cluster with its databases beside its place, then move it there: it is whole or absent."""
    data, new = folder / "data", folder / "data.new"
    if data.exists():
        return
    shutil.rmtree(new, ignore_errors=True)
    options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions")
    locale = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    run(folder, str(binary("initdb")), f"--pgdata={new.name}", *options, *locale)
    create = "".join(f"CREATE DATABASE {database};\n" for database in DATABASES)
    run(folder, str(binary("postgres")), "--single", "-D", new.name, "postgres", stdin=create)
    new.rename(data)


def _spawn_reaper(folder: Path) -> None:
    """Leave behind, unless it is there, the process that stops the server once nobody uses it."""
    try:
        reaper_lock = _lock(folder / "reaper.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    try:
        stop = as_somebody(*pg_ctl("stop", "--mode=fast"))
        subprocess.run(
            # Isolated, it may not find the wheel by itself: in the user's own packages, or by PYTHONPATH.
            [sys.executable, "-I", reaper.__file__, str(folder), str(reaper_lock), *stop],
            check=True,
            pass_fds=(reaper_lock,),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(reaper_lock)

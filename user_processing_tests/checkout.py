"""A checkout of the project in a folder of its own, for which nothing is configured, and its commands."""

import contextlib
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
from user_processing_tests.conftest import Row

ROOT = Path(user_processing.__file__).parents[1]
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
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command.format(port=port)}"],
                cwd=self.folder,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        serving = Serving(process, f"http://127.0.0.1:{port}")
        try:
            wait_for(serving.answers)
            yield serving
        finally:
            serving.kill(signal.SIGKILL)

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


class Serving:
    """A `dagster dev` that runs."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        self._process = process
        self.url = url

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(get(f"{self.url}/server_info"))
        return False

    def kill(self, how: signal.Signals) -> int:
        """Send a signal to it and all of its processes that are left; returns its exit code."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, how)
        return self._process.wait()


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

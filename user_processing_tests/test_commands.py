"""The README's commands, as they stand there, in a checkout of their own that nothing is configured for."""

import contextlib
import datetime as dt
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

import user_processing
from user_processing.embedded import postgres as embedded
from user_processing_tests.conftest import Row

ROOT = Path(user_processing.__file__).parents[1]
ONE_SHOT = [
    "dagster asset materialize -m user_processing --select '*' --partition 2023-01-01",
    "dagster asset materialize -m user_processing --select '*' --partition-range 2023-01-01...2023-01-31",
    "dg launch --assets '*' --partition 2023-01-02",
    """dagster job execute -m user_processing -j user_processing --tags '{"dagster/partition": "2023-01-03"}'""",
]
DEV = ["dagster dev", "dg dev"]
BESIDE_DEV = [
    """dagster job launch -w workspace.yaml -j user_processing --tags '{"dagster/partition": "2023-04-01"}'""",
    "dagster job backfill -w workspace.yaml -j user_processing --from 2023-04-02 --to 2023-04-03 --noprompt",
]

pytestmark = pytest.mark.xdist_group("checkout")

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
        known = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "USER", "MAKE"))}
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

    def start(self, command: str, log: Path) -> "subprocess.Popen[bytes]":
        with log.open("wb") as output:
            return subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def query(self, statement: str) -> list[Row]:
        dsn = embedded.dsn("users", self.folder / ".local" / "postgres")
        connection = psycopg2.connect(dsn)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()
        finally:
            connection.close()

    def days(self) -> list[str]:
        """The days that are stored, oldest first; none while there is no table."""
        if self.query("SELECT to_regclass('user_loads')") == [(None,)]:
            return []
        return [day for (day,) in self.query("SELECT partition_date::text FROM user_loads ORDER BY 1")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    checkout.run("make .env")
    yield checkout
    checkout.run("python -m user_processing stop")


def wait_for(condition: Callable[[], object], *, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)


def get(url: str, query: str | None = None) -> Any:  # noqa: ANN401
    body = json.dumps({"query": query}).encode() if query else None
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"} if body else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(get(f"http://127.0.0.1:{port}/server_info"))
    return False


def readme_commands() -> list[str]:
    """The command lines of the README, as they stand there."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for line in "".join(blocks).splitlines() if line and not line.startswith("#")]


def test_every_command_of_the_readme_is_run_here_or_by_ci() -> None:
    run_by_ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [command for command in readme_commands() if command not in run_by_ci] == [*ONE_SHOT, *DEV, *BESIDE_DEV]


@pytest.mark.parametrize("command", ONE_SHOT)
def test_a_command_of_the_readme_stores_its_days(checkout: Checkout, command: str) -> None:
    first, last = (found := re.findall(r"\d{4}-\d\d-\d\d", command))[0], found[-1]
    said = checkout.run(command)
    count = dt.date.fromisoformat(last).toordinal() - dt.date.fromisoformat(first).toordinal() + 1
    assert checkout.query(
        "SELECT count(*), count(DISTINCT partition_date) FROM users "
        f"WHERE partition_date BETWEEN '{first}' AND '{last}'"
    ) == [(count, count)]
    # What is embedded is said once each, with the variable that changes it.
    assert len(re.findall(r"the embedded Postgres in .* Set USERS_POSTGRES_URL", said)) == 1
    assert len(re.findall(r"the embedded stand-in\. Set USER_API_URL", said)) == 1


@pytest.mark.parametrize(
    ("days", "said"),
    [
        ("--partition-range 2023-01-05...2023-01-02", "Give the earlier day first"),
        ("--partition 2022-12-31", "2022-12-31"),
        ("--partition tomorrow", "tomorrow"),
        ("", "partition"),
    ],
)
def test_days_that_cannot_be_are_refused(checkout: Checkout, days: str, said: str) -> None:
    before = checkout.days()
    finished = checkout.try_to(f"dagster asset materialize -m user_processing --select '*' {days}")
    assert finished.returncode != 0
    assert said in finished.stdout
    assert checkout.days() == before


def test_the_definitions_are_valid_for_both_families_of_commands(checkout: Checkout) -> None:
    for command in ("dagster definitions validate", "dg check defs"):
        said = checkout.run(command, PYTHONWARNINGS="default::DeprecationWarning")
        assert "DeprecationWarning" not in "".join(line for line in said.splitlines() if "user_processing" in line)


def test_make_run_takes_the_days_it_is_told_and_shows_what_is_stored(checkout: Checkout) -> None:
    said = checkout.run("make -o .venv/installed run FROM=2023-03-01 TO=2023-03-03")
    assert {"2023-03-01", "2023-03-02", "2023-03-03"} <= set(checkout.days())
    assert re.search(r"^2023-03-03 +1\b", said, re.MULTILINE)
    assert "make dev" in said
    (password,) = checkout.query("SELECT password FROM users WHERE partition_date = '2023-03-03'")[0]
    assert password not in said.partition("users of")[2]


def test_make_run_takes_the_newest_complete_day_if_it_is_told_none(checkout: Checkout) -> None:
    checkout.run("make -o .venv/installed run")
    newest = checkout.run("date -u -d yesterday +%F").strip()
    assert newest in checkout.days()


def test_make_psql_opens_the_users_database(checkout: Checkout) -> None:
    assert "(0 rows)" in checkout.run("echo 'SELECT 1 WHERE false' | make -o .venv/installed psql")


def test_make_help_lists_every_target(checkout: Checkout) -> None:
    said = checkout.run("make help")
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    assert [line.split()[0] for line in said.splitlines()] == sorted(targets[1].split(), key=said.index)


def test_beside_a_running_dagster_dev_a_job_and_a_backfill_are_launched(checkout: Checkout, tmp_path: Path) -> None:
    log = tmp_path / "dev.log"
    dev = checkout.start(f"{DEV[0]} --port 38517", log)
    try:
        wait_for(lambda: answers(38517))
        for command in BESIDE_DEV:
            checkout.run(command)
        wait_for(lambda: {"2023-04-01", "2023-04-02", "2023-04-03"} <= set(checkout.days()))
        # One instance: the UI knows of runs that were made by other commands before it was opened.
        runs = get("http://127.0.0.1:38517/graphql", "{ runsOrError { ... on Runs { results { status jobName } } } }")
        assert len(runs["data"]["runsOrError"]["results"]) > 3
        # Killed, not stopped.
        os.killpg(dev.pid, signal.SIGKILL)
    finally:
        if dev.poll() is None:
            os.killpg(dev.pid, signal.SIGKILL)
        dev.wait()
    checkout.run("dagster asset materialize -m user_processing --select '*' --partition 2023-04-04")
    assert "2023-04-04" in checkout.days()


def test_dg_dev_serves_the_same_project(checkout: Checkout, tmp_path: Path) -> None:
    log = tmp_path / "dev.log"
    dev = checkout.start(f"{DEV[1]} --port 38518", log)
    try:
        wait_for(lambda: answers(38518))
        said = get("http://127.0.0.1:38518/graphql", "{ assetNodes { assetKey { path } } }")
        assert len(said["data"]["assetNodes"]) == 4
        os.killpg(dev.pid, signal.SIGINT)
        assert dev.wait() == 0
    finally:
        if dev.poll() is None:
            os.killpg(dev.pid, signal.SIGKILL)
            dev.wait()

"""What Dagster's daemon makes of runs whose processes die, on the real daemon."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from user_processing.embedded import postgres as embedded
from user_processing_tests.support.checkout import Checkout, Serving, checkout_in, wait_for
from user_processing_tests.support.recorded_api import RecordedApi

pytestmark = pytest.mark.xdist_group("daemon")

RUNS = "{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }"
PIDS = '{ logsForRun(runId: "%s") { ... on EventConnection { events { ... on MessageEvent { message } } } } }'


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    with checkout_in(tmp_path) as checkout:
        yield checkout


class Blocking:
    """Holds the API's answers back until it is told to let them go."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go = threading.Event()

    def __call__(self, query: dict[str, str], page: dict[str, Any]) -> object:
        if query["seed"] in {"2023-05-01", "2023-05-02"}:
            self.asked.set()
            self.go.wait()
        return page


def runs(dev: Serving, day: str) -> dict[str, str]:
    """The runs of a day, newest first, with their status."""
    found = dev.graphql(RUNS)["runsOrError"]["results"]
    return {run["runId"]: run["status"] for run in found if {"key": "dagster/partition", "value": day} in run["tags"]}


def launch(checkout: Checkout, day: str) -> None:
    tags = json.dumps({"dagster/partition": day})
    checkout.run(f"dagster job launch -w workspace.yaml -j user_processing --tags '{tags}'")


def kill_worker(dev: Serving, run: str) -> None:
    messages = dev.graphql(PIDS % run)["logsForRun"]["events"]
    (pid,) = re.findall(r"Started process for run \(pid: (\d+)\)", json.dumps(messages))
    os.kill(int(pid), signal.SIGKILL)


def test_a_killed_run_is_marked_failed_and_its_day_is_stored_by_the_retry(
    checkout: Checkout, recorded_api: RecordedApi, tmp_path: Path
) -> None:
    environment = {"USER_API_URL": recorded_api.url, "USERS_PER_DAY": "20"}

    with checkout.serving("dagster dev --port {port}", tmp_path / "dev.log", **environment) as dev:
        recorded_api.tamper = blocking = Blocking()
        launch(checkout, "2023-05-01")
        assert blocking.asked.wait(60)
        (killed,) = runs(dev, "2023-05-01")
        kill_worker(dev, killed)
        wait_for(lambda: runs(dev, "2023-05-01")[killed] == "FAILURE")
        blocking.go.set()
        wait_for(lambda: "SUCCESS" in runs(dev, "2023-05-01").values())

        # As a machine that loses power: the run's process, the code server, the daemon, the webserver.
        recorded_api.tamper = blocking = Blocking()
        launch(checkout, "2023-05-02")
        assert blocking.asked.wait(60)
        (killed,) = runs(dev, "2023-05-02")
        kill_worker(dev, killed)
        dev.kill(signal.SIGKILL)
    blocking.go.set()
    with checkout.serving("dagster dev --port {port}", tmp_path / "again.log", **environment) as dev:
        wait_for(lambda: runs(dev, "2023-05-02")[killed] == "FAILURE")
        wait_for(lambda: "SUCCESS" in runs(dev, "2023-05-02").values())
    assert checkout.query(
        "SELECT partition_date::text, count(*), count(DISTINCT email) FROM users "
        "WHERE partition_date >= '2023-05-01' AND partition_date <= '2023-05-02' GROUP BY 1 ORDER BY 1"
    ) == [("2023-05-01", 20, 20), ("2023-05-02", 20, 20)]


def test_a_killed_command_line_is_marked_failed_and_gives_its_slot_back(
    checkout: Checkout, recorded_api: RecordedApi, tmp_path: Path
) -> None:
    environment = {"USER_API_URL": recorded_api.url, "USERS_PER_DAY": "20"}
    materialize = "dagster asset materialize -m user_processing --select '*' --partition 2023-05-01"
    checkout.run("dagster instance concurrency set user_api 1", DAGSTER_HOME=str(checkout.folder))
    recorded_api.tamper = blocking = Blocking()

    with checkout.serving("dagster dev --port {port}", tmp_path / "dev.log", **environment) as dev:
        with subprocess.Popen(
            ["bash", "-c", f"exec {materialize}"],
            cwd=checkout.folder,
            env=checkout.environment | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as command:
            assert blocking.asked.wait(60)
            ((killed, status),) = runs(dev, "2023-05-01").items()
            assert status == "STARTED"
            # The pool has one slot, so this one waits.
            launch(checkout, "2023-05-03")
            assert list(runs(dev, "2023-05-03").values()) == ["QUEUED"]
            command.kill()
        wait_for(lambda: runs(dev, "2023-05-01")[killed] == "FAILURE", seconds=60)
        wait_for(lambda: list(runs(dev, "2023-05-03").values()) == ["SUCCESS"])
        blocking.go.set()
        checkout.run(materialize, **environment)
        # Dagster cannot retry what no code location has started.
        assert sorted(runs(dev, "2023-05-01").values()) == ["FAILURE", "SUCCESS"]
        messages = json.dumps(dev.graphql(PIDS % killed))
    assert f"Process {command.pid} on {socket.gethostname()}, which executed it, is gone." in messages
    assert checkout.days().count("2023-05-01") == 1


def test_a_daemon_that_has_nothing_to_do_writes_nothing_but_ticks(
    checkout: Checkout, recorded_api: RecordedApi, tmp_path: Path
) -> None:
    checkout.run("dagster asset materialize -m user_processing --select '*' --partition $(date -u -d yesterday +%F)")
    dsn = embedded.dsn("dagster", checkout.folder / ".local" / "postgres")

    def rows() -> dict[str, int]:
        """How many rows were ever added to each table of Dagster's."""
        with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT relname, n_tup_ins FROM pg_stat_user_tables")
            return dict(cursor.fetchall())

    def ticks() -> int:
        with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM job_ticks WHERE status = 'SKIPPED' AND tick_body ~ 'api_availability'")
            (count,) = cursor.fetchone() or (0,)
            return int(count)

    environment = {"USER_API_URL": recorded_api.url, "USER_API_POKE_INTERVAL": "5"}
    with checkout.serving("dagster dev --port {port}", tmp_path / "dev.log", **environment):
        wait_for(lambda: ticks() >= 2)
        before, seen = rows(), ticks()
        wait_for(lambda: ticks() >= seen + 3)
        # What was written has been counted by the time that as many ticks again are there.
        wait_for(lambda: rows()["job_ticks"] >= before["job_ticks"] + 3)
        added = {table: count - before.get(table, 0) for table, count in rows().items()}
    assert {table for table, count in added.items() if count} == {"job_ticks"}

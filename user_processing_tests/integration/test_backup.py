"""A backup taken while a run stores days, and what the sensor asks for once it is restored (docs/operations.md)."""

import datetime as dt
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import dagster as dg
import psycopg2
import pytest

from user_processing import automation
from user_processing.days.runs import RunDays
from user_processing.definitions import defs
from user_processing.embedded import postgres as embedded
from user_processing.embedded import programs
from user_processing.source.user_api import UserApi
from user_processing_tests.support.pipeline import Pipeline
from user_processing_tests.support.recorded_api import RecordedApi, Row

Query = Callable[..., list[Row]]

DAYS = [f"2023-01-{day:02}" for day in range(1, 31)]
BEFORE = 3
"""Days that are stored before the backup, at the least."""


class Database:
    """The database of the users, as somebody sees it who runs Postgres's own programs."""

    def __init__(self, server: Path, url: str, query: Query, file: Path) -> None:
        self.server = server
        self.url = url
        self.query = query
        self.file = file

    def back_up(self) -> None:
        command = [str(programs.binary("pg_dump")), "--format=custom", f"--dbname={self.url}", f"--file={self.file}"]
        subprocess.run(command, check=True)

    def back_up_amid_a_day(self) -> None:
        """Back up while a run has rows in a transaction that it has not committed."""
        wait_for(lambda: self.query("SELECT to_regclass('user_loads')") != [(None,)])
        wait_for(lambda: self.query("SELECT count(*) FROM user_loads")[0][0] >= BEFORE)
        with closing(psycopg2.connect(self.url)) as connection, connection, connection.cursor() as cursor:
            # The ledger's row comes last in a day's transaction: the users are there by then.
            cursor.execute("LOCK TABLE user_loads IN SHARE MODE")
            waiting = "SELECT 1 FROM pg_locks WHERE relation = 'user_loads'::regclass AND NOT granted"
            wait_for(lambda: self.query(waiting))
            self.back_up()

    def restore(self) -> None:
        """As it was when it was backed up; what was in it since is gone."""
        name = psycopg2.extensions.parse_dsn(self.url)["dbname"]
        with closing(psycopg2.connect(embedded.dsn("postgres", self.server))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
                cursor.execute(f"CREATE DATABASE {name}")
        arguments = ("--exit-on-error", "--single-transaction", f"--dbname={self.url}", self.file)
        subprocess.run([programs.binary("pg_restore"), *arguments], check=True)

    def stored(self) -> dict[str, tuple[int, list[Row]]]:
        """Each day with the number of rows that the ledger says, and its rows."""
        rows: dict[str, list[Row]] = {}
        for day, *row in self.query("SELECT partition_date::text, * FROM users ORDER BY 1, email, username"):
            rows.setdefault(day, []).append(tuple(row))
        ledger: dict[str, int] = dict(self.query("SELECT partition_date::text, rows FROM user_loads"))
        assert ledger.keys() == rows.keys()
        return {day: (ledger[day], rows[day]) for day in sorted(ledger)}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"


def tick(pipeline: Pipeline, api: RecordedApi) -> tuple[list[list[str]], list[str | None]]:
    """The days that the sensor asks for, run by run, and those that it reports to Dagster."""
    noon = dt.datetime(2023, 1, 31, 12, tzinfo=dt.UTC)
    with dg.build_sensor_context(
        instance=pipeline.instance,
        repository_def=defs.get_repository_def(),
        resources={"user_api": UserApi(url=api.url)},
    ) as context:
        result = automation.evaluate_sensor(context, context.resources.user_api, pipeline.postgres, now=noon)
    asked = [[*(RunDays.of(request.tags) or ())] for request in result.run_requests or []]
    events = result.asset_events or []
    return asked, [event.partition for event in events if isinstance(event, dg.AssetMaterialization)]


@pytest.fixture
def users(server: Path, database: str, query: Query, tmp_path: Path) -> Database:
    return Database(server, database, query, tmp_path / "users.dump")


@pytest.fixture
def api(pipeline: Pipeline, recorded_api: RecordedApi, users: Database, monkeypatch: pytest.MonkeyPatch) -> RecordedApi:
    """The API from which one run has stored all days, while another thread has backed up the database."""
    monkeypatch.setenv("USERS_CATCHUP", "true")
    pipeline.ask(recorded_api)
    with ThreadPoolExecutor(1) as thread:
        backup = thread.submit(users.back_up_amid_a_day)
        assert pipeline.run(DAYS[0], DAYS[-1], users_per_day=20).success
        backup.result()
    return recorded_api


def test_a_backup_amid_a_run_holds_whole_days_and_the_sensor_asks_for_the_others(
    users: Database, pipeline: Pipeline, api: RecordedApi
) -> None:
    before = users.stored()
    assert [*before] == DAYS
    users.restore()
    restored = users.stored()
    kept, gone = DAYS[: len(restored)], DAYS[len(restored) :]
    assert len(kept) >= BEFORE
    assert gone
    assert restored == {day: before[day] for day in kept}

    assert tick(pipeline, api) == ([gone], [])
    assert pipeline.run(gone[0], gone[-1], users_per_day=20).success
    assert users.stored() == before
    assert tick(pipeline, api) == ([], [])


def test_days_that_only_the_restored_ledger_knows_are_reported_to_dagster(
    users: Database, pipeline: Pipeline, api: RecordedApi
) -> None:
    users.restore()
    kept = [*users.stored()]
    # Dagster's own database has come back from a backup that is older still.
    with dg.DagsterInstance.ephemeral() as pipeline.instance:
        assert tick(pipeline, api) == ([DAYS[len(kept) :]], kept)

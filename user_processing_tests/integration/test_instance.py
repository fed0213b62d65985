"""The parts of Dagster's instance that are this project's own."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psycopg2
import pytest
import sqlalchemy

from user_processing.days.runs import FAILED_DAYS, STOPPED_AT
from user_processing.embedded import postgres as embedded
from user_processing.internals.storage import PROCESS, AgeingComputeLogs, WatchedRuns
from user_processing_tests.support.checkout import ROOT, wait_for
from user_processing_tests.support.recorded_api import Row

DAY = 24 * 60 * 60  # seconds
LOCKED_BY = """
SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database AND datname = current_database()
WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted"""


def polls(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """What two polls of the monitoring daemon, one after the other, learn of a run."""
    run = instance.get_run_by_id(run_id)
    assert run
    return [instance.run_launcher.check_run_worker_health(run).status.value for _ in range(2)]


def test_a_run_is_known_to_live_until_it_ends(
    instance: dg.DagsterInstance, query: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_processing.internals.storage._HEARTBEAT", 0.05)
    alive = ["RUNNING", "RUNNING"]

    @dg.op
    def at_work(context: dg.OpExecutionContext) -> None:
        assert polls(instance, context.run_id) == alive
        (first,) = query(LOCKED_BY)
        query("SELECT pg_terminate_backend(%s)", first)
        wait_for(lambda: query(LOCKED_BY) not in ([], [first]))
        assert polls(instance, context.run_id) == alive

    @dg.job
    def job() -> None:
        at_work()

    run_id = job.execute_in_process(instance=instance).run_id
    wait_for(lambda: not query(LOCKED_BY))
    # Had it not ended, it would count as dead from the second poll on.
    assert polls(instance, run_id) == ["RUNNING", "NOT_FOUND"]


def test_a_run_whose_machine_falls_silent_counts_as_dead(
    instance: dg.DagsterInstance, query: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_processing.internals.storage._LONGEST_SILENCE", "100ms")
    monkeypatch.setattr("user_processing.internals.storage._HEARTBEAT", 3600)

    @dg.op
    def silent(context: dg.OpExecutionContext) -> None:
        wait_for(lambda: not query(LOCKED_BY))
        assert polls(instance, context.run_id) == ["RUNNING", "NOT_FOUND"]

    @dg.job
    def job() -> None:
        silent()

    job.execute_in_process(instance=instance)


def test_a_run_that_cannot_get_its_lock_goes_on_and_never_counts_as_dead(
    instance: dg.DagsterInstance, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_processing.internals.storage._LOCKED_WITHIN", 0.1)

    @dg.job
    def job() -> None:
        pass

    run_id = str(uuid4())
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [run_id])
        assert job.execute_in_process(instance=instance, run_id=run_id).success
    assert polls(instance, run_id) == ["RUNNING", "RUNNING"]


def test_the_queue_waits_for_the_code_server_and_keeps_the_limits_of_the_settings(instance: dg.DagsterInstance) -> None:
    settings = instance.get_concurrency_config()
    queue = settings.run_queue_config
    assert queue
    assert (queue.max_user_code_failure_retries, queue.user_code_failure_retry_delay) == (1_000_000, 15)
    assert queue.max_concurrent_runs == 16
    (lanes,) = queue.tag_concurrency_limits
    assert (lanes["key"], lanes["limit"]) == ("user_processing/lane", 1)
    assert settings.pool_config.default_pool_limit == 4
    assert settings.pool_config.pool_granularity
    assert settings.pool_config.pool_granularity.value == "run"


def test_a_run_that_repeats_another_does_not_carry_what_became_of_that(instance: dg.DagsterInstance) -> None:
    days = {"dagster/partition": "2023-01-01"}
    became = {FAILED_DAYS: "2023-01-01", STOPPED_AT: "2023-01-01", PROCESS: "1 on a machine"}
    first = instance.add_run(dg.DagsterRun(job_name="user_processing", tags=days | became))
    again = dg.DagsterRun(
        job_name="user_processing", tags=days | became, parent_run_id=first.run_id, root_run_id=first.run_id
    )
    instance.add_run(again)
    stored = instance.get_run_by_id(again.run_id)
    assert stored
    assert {key: value for key, value in stored.tags.items() if key in days | became} == days


def test_the_webserver_goes_on_after_a_restart_of_postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "postgres"
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", embedded.dsn("dagster", folder))
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        # What `dagster-webserver` does, with the defaults of its command line.
        instance.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3600, max_overflow=20)
        schedules = instance.schedule_storage
        assert schedules

        def ask() -> list[int]:
            """One request that needs all three storages, each over the connection that it keeps."""
            return [
                len(instance.get_runs()),
                len(instance.event_log_storage.get_asset_records()),
                len(schedules.all_instigator_state()),
            ]

        assert ask() == [0, 0, 0]
        embedded.stop(folder)
        # This process believes that it runs.
        start = f"from user_processing.embedded import postgres as p; p.dsn('dagster', p.Path({str(folder)!r}))"
        subprocess.run([sys.executable, "-c", start], check=True)
        assert ask() == [0, 0, 0]
        assert isinstance(instance.run_storage, WatchedRuns)
        with instance.run_storage.connect() as connection:
            assert connection.execute(sqlalchemy.text("SHOW statement_timeout")).scalar_one() == "15s"
    embedded.stop(folder)


def test_what_runs_print_is_kept_for_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_DATA_DIR", str(tmp_path))
    logs = AgeingComputeLogs.from_config_value(None, {"days_kept": 30})
    kept = tmp_path / "compute_logs"
    for run, days in {"old": 31, "young": 29}.items():
        with logs.capture_logs([run, "compute_logs", "step"]):
            pass
        moment = time.time() - days * DAY
        os.utime(kept / run / "compute_logs", (moment, moment))
    with logs.capture_logs(["new", "compute_logs", "step"]):
        pass
    assert {run.name for run in kept.iterdir()} == {"young", "new"}
    assert logs.is_capture_complete(["young", "compute_logs", "step"])


def test_the_limit_of_a_pool_may_be_changed(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """The daemon asks for this where the limit of a queued run's pool is not the one of `dagster.yaml`."""
    for limit in (4, 4, 7, 2):
        settings = (tmp_path / "dagster.yaml").read_text()
        (tmp_path / "dagster.yaml").write_text(re.sub(r"default_limit: \d+", f"default_limit: {limit}", settings))
        with dg.DagsterInstance.from_config(str(tmp_path)) as changed:
            changed.event_log_storage.initialize_concurrency_limit_to_default("user_api")
        assert [pool.limit for pool in instance.event_log_storage.get_pool_limits()] == [limit]

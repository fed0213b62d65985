"""The parts of Dagster's instance that are this project's own."""

import os
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psycopg2
import pytest
from dagster._core.launcher import WorkerStatus

from user_processing.instance import AgeingComputeLogs
from user_processing_tests.checkout import wait_for
from user_processing_tests.conftest import Row

DAY = 24 * 60 * 60  # seconds
LOCKED_BY = """
SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database AND datname = current_database()
WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted"""


def polls(instance: dg.DagsterInstance, run_id: str) -> list[WorkerStatus]:
    """What two polls of the monitoring daemon, one after the other, learn of a run."""
    run = instance.get_run_by_id(run_id)
    assert run
    return [instance.run_launcher.check_run_worker_health(run).status for _ in range(2)]


def test_a_run_is_known_to_live_until_it_ends(
    instance: dg.DagsterInstance, query: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_processing.instance._HEARTBEAT", 0.05)
    alive = [WorkerStatus.RUNNING, WorkerStatus.RUNNING]

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
    assert polls(instance, run_id) == [WorkerStatus.RUNNING, WorkerStatus.NOT_FOUND]


def test_a_run_whose_machine_falls_silent_counts_as_dead(
    instance: dg.DagsterInstance, query: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_processing.instance._LONGEST_SILENCE", "100ms")
    monkeypatch.setattr("user_processing.instance._HEARTBEAT", 3600)

    @dg.op
    def silent(context: dg.OpExecutionContext) -> None:
        wait_for(lambda: not query(LOCKED_BY))
        assert polls(instance, context.run_id) == [WorkerStatus.RUNNING, WorkerStatus.NOT_FOUND]

    @dg.job
    def job() -> None:
        silent()

    job.execute_in_process(instance=instance)


def test_a_run_that_cannot_get_its_lock_goes_on_and_never_counts_as_dead(
    instance: dg.DagsterInstance, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_processing.instance._LOCKED_WITHIN", 0.1)

    @dg.job
    def job() -> None:
        pass

    run_id = str(uuid4())
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [run_id])
        assert job.execute_in_process(instance=instance, run_id=run_id).success
    assert polls(instance, run_id) == [WorkerStatus.RUNNING, WorkerStatus.RUNNING]


def test_what_runs_print_is_kept_for_a_time(tmp_path: Path) -> None:
    logs = AgeingComputeLogs.from_config_value(None, {"base_dir": str(tmp_path), "days_kept": 30})
    for run, days in {"old": 31, "young": 29}.items():
        with logs.capture_logs([run, "compute_logs", "step"]):
            pass
        moment = time.time() - days * DAY
        os.utime(tmp_path / run / "compute_logs", (moment, moment))
    with logs.capture_logs(["new", "compute_logs", "step"]):
        pass
    assert {run.name for run in tmp_path.iterdir()} == {"young", "new"}
    assert logs.is_capture_complete(["young", "compute_logs", "step"])


def test_the_limit_of_a_pool_may_be_changed(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """The daemon asks for this where the limit of a queued run's pool is not the one of `dagster.yaml`."""
    for limit in (4, 4, 7, 2):
        settings = (tmp_path / "dagster.yaml").read_text()
        (tmp_path / "dagster.yaml").write_text(re.sub(r"default_limit: \d+", f"default_limit: {limit}", settings))
        with dg.DagsterInstance.from_config(str(tmp_path)) as changed:
            changed.event_log_storage.initialize_concurrency_limit_to_default("user_api")
        assert [pool.limit for pool in instance.event_log_storage.get_pool_limits()] == [limit]

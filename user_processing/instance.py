"""Parts of Dagster's instance, named in `dagster.yaml`: its storage, the launcher of its runs, what they print.

The storage is the Postgres of `DAGSTER_POSTGRES_URL`, or else the embedded one: Dagster's configuration has no way
to say "this variable, or else that". The launcher is Dagster's own, and can answer whether a run's process lives: the
storage knows, by a lock that each process at work on a run holds. What runs print is kept as Dagster does, for a time.
"""

import contextlib
import datetime as dt
import os
import shutil
import socket
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import dagster as dg
import sqlalchemy
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage, PostgresRunStorage
from dagster_postgres.utils import create_pg_engine

from user_processing import variables
from user_processing.embedded import postgres as embedded

_PROCESS = f"{HIDDEN_TAG_PREFIX}user_processing/process"

# Shared, so that a process whose connection broke need not wait until Postgres has noticed. In a transaction, which
# keeps its connection behind a pooler too. Postgres gives up one that is silent: its machine may have lost power.
_HOLD = sqlalchemy.text(
    "SELECT pg_advisory_xact_lock_shared(hashtextextended(:run_id, 0)), "
    "set_config('idle_in_transaction_session_timeout', :silence, true)"
)
_STILL_HERE = sqlalchemy.text("SELECT 1")
_NOBODY_HOLDS = sqlalchemy.text("SELECT pg_try_advisory_xact_lock(hashtextextended(:run_id, 0))")
_LONGEST_SILENCE = "60s"
_HEARTBEAT = 5  # seconds
_LOCKED_WITHIN = 10  # seconds

_ENDS = {dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED}


class WatchedRuns(PostgresRunStorage):
    """Runs, for each of which the process at work on it holds a lock: when that dies, Postgres releases the lock.

    Every run passes here in its own process when it starts, whatever started it and whichever executor it has. One that
    cannot get the lock goes on without the tag, and is not watched.
    """

    def __init__(self, postgres_url: str) -> None:
        # They are there: the storage around it has made them.
        super().__init__(postgres_url, should_autocreate_tables=False)
        self._ended: dict[str, threading.Event] = {}

    def handle_run_event(
        self, run_id: str, event: dg.DagsterEvent, update_timestamp: dt.datetime | None = None
    ) -> None:
        """Lock before the run is said to be STARTED, release after it is said to have ended."""
        if event.event_type is dg.DagsterEventType.RUN_START:
            locked = threading.Event()
            self._ended[run_id] = threading.Event()
            arguments = (run_id, locked, self._ended[run_id])
            threading.Thread(target=self._keep_locked, args=arguments, daemon=True).start()
            if locked.wait(_LOCKED_WITHIN):
                self.add_run_tags(run_id, {_PROCESS: f"{os.getpid()} on {socket.gethostname()}"})
        super().handle_run_event(run_id, event, update_timestamp)
        if event.event_type in _ENDS and run_id in self._ended:
            self._ended.pop(run_id).set()

    def nobody_is_at_work_on(self, run_id: str) -> bool:
        """Whether no process holds the lock of this run."""
        with self.connect() as connection:
            return bool(connection.execute(_NOBODY_HOLDS, {"run_id": run_id}).scalar_one())

    def _keep_locked(self, run_id: str, locked: threading.Event, ended: threading.Event) -> None:
        engine = create_pg_engine(self.postgres_url, poolclass=sqlalchemy.NullPool)
        while not ended.is_set():
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError), engine.connect() as connection:
                connection.execute(_HOLD, {"run_id": run_id, "silence": _LONGEST_SILENCE})
                locked.set()
                while not ended.wait(_HEARTBEAT):
                    connection.execute(_STILL_HERE)
            # Postgres was restarted, or the network is gone: once more.
            ended.wait(1)


class Events(PostgresEventLogStorage):
    """Events, and the pools, whose limit may be changed in `dagster.yaml`."""

    def initialize_concurrency_limit_to_default(self, concurrency_key: str) -> bool:
        """Make a pool anew, with the limit that `dagster.yaml` says.

        Dagster's own goes on in a transaction that Postgres has given up when the pool is there already. The daemon
        meets that after a change of the limit, and launches no queued run any more.
        """
        self.delete_concurrency_limit(concurrency_key)
        return super().initialize_concurrency_limit_to_default(concurrency_key)


class InstanceStorage(DagsterPostgresStorage):
    """Runs, events and schedules in Postgres, over connections that are kept.

    Dagster's own storage connects anew for everything it writes: 163 times in a run of two days, which takes
    2.5 to 3.5 s with them and 1.4 to 1.9 s without. A kept connection is tried before it is used, since the server may
    have been restarted.
    """

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
        self._run_storage = WatchedRuns(postgres_url)
        self._event_log_storage = Events(postgres_url, should_autocreate_tables=False)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = create_pg_engine(  # noqa: SLF001 - what its optimize_for_webserver replaces too
                postgres_url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=20, pool_pre_ping=True
            )

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing to configure in `dagster.yaml`: no secret can end up there."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: object) -> Self:
        """Called by Dagster in every process that has an instance."""
        del config_value
        url = variables.service("DAGSTER_POSTGRES_URL") or embedded.dsn("dagster")
        return cls(_with_driver(url), inst_data=inst_data)


class WatchedRunLauncher(DefaultRunLauncher):
    """Starts runs as Dagster does by default, in processes of the code server, and can tell whether one lives.

    Dagster's own cannot: a run whose process was killed stays STARTED until its maximum runtime.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._missed: set[str] = set()

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: the monitoring daemon asks."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Look whether a process holds the run's lock; one whose connection broke has until the next look for it."""
        process, runs = run.tags.get(_PROCESS), self._instance.run_storage
        if process is None or not isinstance(runs, WatchedRuns) or not runs.nobody_is_at_work_on(run.run_id):
            self._missed.discard(run.run_id)
        elif run.run_id in self._missed:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"Process {process}, which was at work on it, is gone.")
        else:
            self._missed.add(run.run_id)
        return CheckRunHealthResult(WorkerStatus.RUNNING)


class AgeingComputeLogs(LocalComputeLogManager):
    """What runs print, in local files, until it is `days_kept` days old; Dagster itself would keep it for ever."""

    def __init__(self, base_dir: str, days_kept: int, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data=inst_data)
        self._days_kept = days_kept

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """The folder, and a number of days."""
        return {"base_dir": dg.StringSource, "days_kept": dg.IntSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Called by Dagster in every process that has an instance."""
        return cls(**config_value, inst_data=inst_data)

    @contextlib.contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext]:
        """Clear away what is too old, then keep what this run prints."""
        self._purge()
        with super().capture_logs(log_key) as context:
            yield context

    def _purge(self) -> None:
        oldest = time.time() - self._days_kept * 24 * 60 * 60
        for printed in Path(self._base_dir).glob("*/compute_logs"):
            # Two runs may clear away the same.
            with contextlib.suppress(FileNotFoundError):
                if printed.stat().st_mtime < oldest:
                    shutil.rmtree(printed.parent, ignore_errors=True)


def _with_driver(url: str) -> str:
    """The URL for SQLAlchemy, which from 2.1 on takes `postgresql://` for psycopg 3; Dagster brings psycopg2."""
    parsed = sqlalchemy.make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg2")
    return parsed.render_as_string(hide_password=False)

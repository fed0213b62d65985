"""The instance's storage, its local files and the logs of its runs, named in `dagster.yaml`.

The storage is the Postgres of `DAGSTER_POSTGRES_URL`, or else the embedded one: Dagster's configuration has no way
to say "this variable, or else that". Each class says which fault of Dagster's it mends, and when it can be deleted.
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
from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX
from dagster._serdes import ConfigurableClassData
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import create_pg_engine, set_pg_statement_timeout
from sqlalchemy.engine.interfaces import DBAPIConnection

from user_processing import paths, settings
from user_processing.days.runs import FAILED_DAYS, STOPPED_AT
from user_processing.embedded import postgres as embedded

PROCESS = f"{HIDDEN_TAG_PREFIX}user_processing/process"

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

# Tags that say what became of a run.
_OF_ONE_RUN = {PROCESS, FAILED_DAYS, STOPPED_AT}

# Read by the daemon. Without it a backfill of assets is failed, and all of its queued runs are cancelled, when the code
# server is away for ten seconds (dagster-io/dagster#18640, #28204). To be deleted when Dagster waits by itself.
_BACKFILLS_WAIT = ("DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR", "1")

_ENDS = {dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED}


class KeptConnections:
    """A storage in Postgres that keeps a connection, and tries it before it is used: Postgres may have been restarted.

    Dagster's storages connect anew for everything they write. In the webserver they keep a connection, and do not try
    it: the first request after a restart of Postgres is answered with HTTP 500, and is lost if it was a launch.

    It can be deleted when Dagster has `pool_pre_ping` (dagster-io/dagster#33879, #33961), and a pool
    outside the webserver as well (#33935, #33936).
    """

    postgres_url: str
    _engine: sqlalchemy.Engine

    def keep_connections(self, *, max_overflow: int = 20, pool_recycle: int = -1) -> None:
        """Connect through a pool from now on."""
        self._engine = create_pg_engine(
            self.postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            pool_pre_ping=True,
            pool_recycle=pool_recycle,
            max_overflow=max_overflow,
        )

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        """Called in the webserver, with what its command line says."""
        self.keep_connections(max_overflow=max_overflow, pool_recycle=pool_recycle)

        @sqlalchemy.event.listens_for(self._engine, "connect")
        def limit(connection: DBAPIConnection, _: object) -> None:
            set_pg_statement_timeout(connection, statement_timeout)


class WatchedRuns(KeptConnections, PostgresRunStorage):
    """Runs, for each of which the process at work on it holds a lock: when that dies, Postgres releases the lock.

    Every run passes here in its own process when it starts, whatever started it and whichever executor it has. One that
    cannot get the lock goes on without the tag, and is not watched.

    Dagster has no such thing for runs of its default launcher and of the command line (dagster-io/dagster#4319). The
    lock can be deleted together with the `check_run_worker_health` of `launchers`.
    """

    def __init__(self, postgres_url: str) -> None:
        super().__init__(postgres_url, should_autocreate_tables=False)
        self._ended: dict[str, threading.Event] = {}

    def add_run(self, dagster_run: dg.DagsterRun) -> dg.DagsterRun:
        """Add a run without what the run that it repeats has come to; Dagster copies all tags.

        If it dies with its process, it must not count as failed by itself; and while it lives, not as dead. This can be
        deleted when Dagster lets a project say which tags a retry leaves out (TAGS_TO_MAYBE_OMIT_ON_RETRY is its list).
        """
        if dagster_run.parent_run_id:
            kept = {key: value for key, value in dagster_run.tags.items() if key not in _OF_ONE_RUN}
            dagster_run = dagster_run.with_tags(kept)
        return super().add_run(dagster_run)

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
                self.add_run_tags(run_id, {PROCESS: f"{os.getpid()} on {socket.gethostname()}"})
        super().handle_run_event(run_id, event, update_timestamp)
        if event.event_type in _ENDS and run_id in self._ended:
            self._ended.pop(run_id).set()

    def run_lock_is_free(self, run_id: str) -> bool:
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


class Schedules(KeptConnections, PostgresScheduleStorage):
    """Schedules, sensors, their ticks, and backfills."""


class Events(KeptConnections, PostgresEventLogStorage):
    """Events, and the pools, whose limit may be changed in `dagster.yaml`."""

    def initialize_concurrency_limit_to_default(self, concurrency_key: str) -> bool:
        """Make a pool anew, with the limit that `dagster.yaml` says.

        Dagster's own goes on in a transaction that Postgres has given up when the pool is there already. The daemon
        meets that after a change of the limit, and launches no queued run any more. It can be deleted when
        dagster-io/dagster#33552 is closed (#33890 mends it).
        """
        self.delete_concurrency_limit(concurrency_key)
        return super().initialize_concurrency_limit_to_default(concurrency_key)


class InstanceStorage(DagsterPostgresStorage):
    """Runs, events and schedules in Postgres, over connections that are kept.

    Dagster's own storage connects anew for everything it writes: 163 times in a run of two days, which takes
    2.5 to 3.5 s with them and 1.4 to 1.9 s without.
    """

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
        # The tables are there: the storage around these has made them.
        self._run_storage = WatchedRuns(postgres_url)
        self._event_log_storage = Events(postgres_url, should_autocreate_tables=False)
        self._schedule_storage = Schedules(postgres_url, should_autocreate_tables=False)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage.keep_connections()

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing to configure in `dagster.yaml`: no secret can end up there."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: object) -> Self:
        """Called by Dagster in every process that has an instance."""
        del config_value
        os.environ.setdefault(*_BACKFILLS_WAIT)
        url = settings.load().service("DAGSTER_POSTGRES_URL") or embedded.dsn("dagster")
        return cls(_with_driver(url), inst_data=inst_data)


class DataFolder(LocalArtifactStorage):
    """Dagster's local files, in the data folder. Dagster's own class takes a path, relative to where it is started."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing: USERS_DATA_DIR says where it is."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: object) -> Self:
        """Called by Dagster in every process that has an instance."""
        del config_value
        return cls(str(paths.data_dir()), inst_data)


class AgeingComputeLogs(LocalComputeLogManager):
    """What runs print, in local files of the data folder, until it is `days_kept` days old.

    Dagster's own class takes a path, relative to where it is started, and keeps for ever what is there. This can be
    deleted when `retention` in `dagster.yaml` covers compute logs, but for the folder. An op that deletes would need a
    job and a schedule of its own, since a job of checks holds nothing else, and twice the lines. A run that is in
    progress is never as old: `max_runtime_seconds` ends it before.
    """

    def __init__(self, base_dir: str, days_kept: int, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data=inst_data)
        self._days_kept = days_kept

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """A number of days."""
        return {"days_kept": dg.IntSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Called by Dagster in every process that has an instance."""
        return cls(str(paths.data_dir() / "compute_logs"), **config_value, inst_data=inst_data)

    @contextlib.contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext]:
        """Clear away what is too old, then keep what this run prints."""
        paths.make_data_dir("compute_logs")
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

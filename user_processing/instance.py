"""Parts of Dagster's instance, named in `dagster.yaml`: its storage, the launcher of its runs, what they print.

The storage is the Postgres of `DAGSTER_POSTGRES_URL`, or else the embedded one: Dagster's configuration has no way
to say "this variable, or else that". The launcher is Dagster's own, and can answer whether a run's process lives. What
runs print is kept as Dagster does, for a time.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import dagster as dg
import sqlalchemy
from dagster._config.config_schema import UserConfigSchema
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import ConfigurableClassData, deserialize_value
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine

from user_processing import variables
from user_processing.embedded import postgres as embedded

_THIS_MACHINE = {"localhost", "127.0.0.1", "::1"}


class InstanceStorage(DagsterPostgresStorage):
    """Runs, events and schedules in Postgres, over connections that are kept.

    Dagster's own storage connects anew for everything it writes: 163 times in a run of two days, which takes
    2.5 to 3.5 s with them and 1.4 to 1.9 s without. A kept connection is tried before it is used, since the server may
    have been restarted.
    """

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
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

    Dagster's own cannot: a run whose code server was killed stays STARTED until its maximum runtime.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: the monitoring daemon asks."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Ask the code server that started the run whether it still has it."""
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
            # Started by a command line, not by this launcher.
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        server = json.loads(run.tags[GRPC_INFO_TAG])
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
        except DagsterUserCodeUnreachableError:
            if "socket" in server or server["host"] in _THIS_MACHINE:
                return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The code server that started the run is gone.")
            # Another machine: the network may be what is gone.
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The code server knows nothing of the run.")


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

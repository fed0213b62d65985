"""Runs of the pipeline in processes of their own, with points between their steps at which one of them can die.

A process is forked from one that has imported everything, so it costs 50 ms, not two seconds. Where to die is told by
a `Point`; which points there are is told by a run that nothing happens to. What has to be there afterwards is for the
tests. Nothing here is a test, and nothing of this module runs in the process of the tests but `Worker`.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import struct
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Literal, NamedTuple

import dagster as dg
import psycopg2
import psycopg2.extensions
import sqlalchemy.dialects.postgresql.psycopg2  # noqa: F401 - imported once, before the fork
from dagster_postgres import PostgresEventLogStorage
from upath import UPath

from user_processing import assets
from user_processing.source import contract
from user_processing.source.user_api import UserApi
from user_processing.store import tables
from user_processing.store.day_files import DayFiles
from user_processing.store.postgres import Postgres

PAGE = 100  # users
CHUNK = 16 * 1024  # bytes that COPY is given at once
FAILED = 3
"""Exit code of a process whose pipeline has failed with an error of its own."""

_SECONDS_BEFORE_IT_IS_STUCK = 60

# What the program `dagster` calls; loaded once, before the fork.
(_PROGRAM,) = entry_points(group="console_scripts", name="dagster")
_dagster: Callable[[], None] = _PROGRAM.load()

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload([__name__])


class Point(NamedTuple):
    """A moment of a run: the n-th time, from 1, that it reaches a step."""

    step: str
    time: int


@dataclass(frozen=True)
class Plan:
    """What happens to a run at which point of it, beside what it does."""

    at: Point | None = None
    kill: Literal["run", "postmaster", "server"] = "run"
    """The process itself; or the postmaster; or the postmaster and the process that serves this connection."""
    server: Path | None = None
    """The folder of the Postgres server that is killed."""
    meet: Barrier | None = None
    """Nothing is killed: processes wait for each other."""
    trace: Path | None = None
    """Where every point that is reached is noted, a line each."""


@dataclass(frozen=True)
class Pipeline:
    """A run of the asset functions without Dagster's engine."""

    database: str
    files: Path
    api: str
    day: str
    users_per_day: int
    run_id: str
    plan: Plan = field(default_factory=Plan)

    def __call__(self) -> None:
        points = _Points(self.plan, self.database)
        with contextlib.ExitStack() as stack:
            # Of Dagster's own context they use the log only; to make it takes three times as long as the run.
            context: Any = SimpleNamespace(log=logging.getLogger("light"), instance=None)
            api = UserApi(url=self.api, backoff_seconds=0)
            user_api = stack.enter_context(api.yield_for_execution(context))
            day_files = stack.enter_context(DayFiles(url=str(self.files)).yield_for_execution(context))
            postgres = stack.enter_context(Postgres(url=self.database).yield_for_execution(context))
            config = assets.RawUserConfig(users_per_day=self.users_per_day)
            run = partial(self._run, points)
            try:
                run(assets.users_table, postgres=postgres)
                run(assets.raw_user, config=config, user_api=user_api, day_files=day_files, postgres=postgres)
                run(assets.processed_user_csv, day_files=day_files)
                run(assets.stored_users, day_files=day_files, postgres=postgres)
            except dg.Failure as failure:
                sys.stderr.write(f"{failure.description}\n")
                sys.exit(FAILED)

    def _run(self, points: "_Points", asset: dg.AssetsDefinition, **resources: object) -> None:
        function: Any = asset.op.compute_fn
        function.decorated_fn(_Context(self, asset.key, points.reach), **resources)


class _Context:
    """As much of Dagster's context as the assets use."""

    def __init__(self, pipeline: Pipeline, asset_key: dg.AssetKey, reach: Callable[[str], None]) -> None:
        self.asset_key = asset_key
        self.run = dg.DagsterRun(job_name="light", run_id=pipeline.run_id, tags={"dagster/partition": pipeline.day})
        # A run that fails by itself leaves tags for those who ask for it again.
        self.instance = SimpleNamespace(add_run_tags=lambda *_: None)
        self.log = logging.getLogger("light")
        self._reach = reach

    def add_asset_metadata(self, metadata: Mapping[str, object], partition_key: str) -> None:
        del metadata, partition_key
        self._reach(f"event of {self.asset_key.to_user_string()}: before")


@dataclass(frozen=True)
class Command:
    """`dagster …` as on the command line: Dagster's engine, events and storage, with `folder` as DAGSTER_HOME."""

    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    plan: Plan = field(default_factory=Plan)

    def __call__(self) -> None:
        os.chdir(self.folder)
        os.environ.update(self.environment, DAGSTER_HOME=str(self.folder))
        output = os.open(self.folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, sys.stdout.fileno())
        os.dup2(output, sys.stderr.fileno())
        _Points(self.plan, self.environment["USERS_POSTGRES_URL"])
        warnings.simplefilter("ignore")
        sys.argv = ["dagster", *self.arguments]
        _dagster()


def meeting(processes: int) -> Barrier:
    """Where as many processes wait for each other."""
    return _forking.Barrier(processes)


class Worker:
    """A process of its own, for a run or for something short."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._process = _forking.Process(target=run)
        self._process.start()

    def end(self) -> int:
        """Wait for its end; returns the exit code, or minus the number of the signal that killed it."""
        self._process.join(_SECONDS_BEFORE_IT_IS_STUCK)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
            message = f"It did not end in {_SECONDS_BEFORE_IT_IS_STUCK} s: it waits for a lock, or for an answer."
            raise TimeoutError(message)
        return code


class _Points:
    """Puts the points into the code of this process, for good, and acts at the one that is planned."""

    def __init__(self, plan: Plan, database: str) -> None:
        self._plan = plan
        self._database = database
        self._times: Counter[str] = Counter()
        self._one_thread = threading.Lock()
        self.backend = 0
        """The process that serves the connection which was opened last."""
        contract.LARGEST_PAGE = PAGE
        self._between_pages()
        self._in_files()
        self._in_the_database()
        self._around_events()

    def reach(self, step: str, *, last_act: Callable[[], object] | None = None) -> None:
        """A step is reached: note it, and do here what is planned for here.

        With `last_act` the process goes no further if this is the point: it does that, and dies.
        """
        with self._one_thread:
            self._times[step] += 1
            point = Point(step, self._times[step])
        if self._plan.trace:
            with self._plan.trace.open("a") as trace:
                trace.write(f"{point.time} {point.step}\n")
        if point != self._plan.at:
            return
        if last_act:
            last_act()
        if self._plan.meet:
            self._plan.meet.wait(_SECONDS_BEFORE_IT_IS_STUCK)
            return
        if self._plan.kill != "run":
            assert self._plan.server
            pid = (self._plan.server / "data" / "postmaster.pid").read_text().split()[0]
            os.kill(int(pid), signal.SIGKILL)
            if self._plan.kill == "server" and self.backend:
                with contextlib.suppress(ProcessLookupError):  # it saw the postmaster's end
                    os.kill(self.backend, signal.SIGKILL)
        if self._plan.kill == "run" or last_act:
            os.kill(os.getpid(), signal.SIGKILL)

    def _between_pages(self) -> None:
        page = UserApi.page

        def asking(user_api: UserApi, **query: Any) -> bytes:  # noqa: ANN401
            self.reach("page: before it is asked for")
            body = page(user_api, **query)
            self.reach("page: after it has come")
            return body

        _replace(UserApi, "page", asking)

    def _in_files(self) -> None:
        writing, replace = DayFiles.writing, os.replace

        @contextlib.contextmanager
        def tearing(day_files: DayFiles, path: UPath) -> Iterator[BinaryIO]:
            with writing(day_files, path) as file:
                yield _Tearing(file, lambda: self.reach(f"{_kind(path)}: amid its writing"))  # type: ignore[misc]

        def renaming(source: "os.PathLike[str]", target: "os.PathLike[str]") -> None:
            kind = _kind(Path(target))
            self.reach(f"{kind}: before its rename")
            replace(source, target)
            self.reach(f"{kind}: after its rename")

        _replace(DayFiles, "writing", tearing)
        _replace(os, "replace", renaming)

    def _in_the_database(self) -> None:
        connect = psycopg2.connect

        def connecting(*dsn: str, **options: Any) -> Any:  # noqa: ANN401
            if dsn != (self._database,):  # Dagster's own
                return connect(*dsn, **options)
            connection = connect(*dsn, connection_factory=_Connection)
            connection.points = self
            self.backend = connection.info.backend_pid
            return connection

        _replace(psycopg2, "connect", connecting)

        for function, work in ((tables.create_tables, "tables"), (tables.replace_day, "day")):

            def doing(
                connection: "_Connection",
                *arguments: object,
                function: Callable[..., object] = function,
                work: str = work,
                **options: object,
            ) -> object:
                connection.work = work
                return function(connection, *arguments, **options)

            _replace(tables, function.__name__, doing)

    def _around_events(self) -> None:
        store_event, store_batch = PostgresEventLogStorage.store_event, PostgresEventLogStorage.store_event_batch

        @contextlib.contextmanager
        def around(entries: Sequence[dg.EventLogEntry]) -> Iterator[None]:
            events = [entry.dagster_event for entry in entries if entry.dagster_event]
            keys = [event.asset_key for event in events if event.event_type_value == "ASSET_MATERIALIZATION"]
            assets = sorted({key.to_user_string() for key in keys if key})
            for asset in assets:
                self.reach(f"event of {asset}: before")
            yield
            for asset in assets:
                self.reach(f"event of {asset}: after")

        def storing(storage: PostgresEventLogStorage, entry: dg.EventLogEntry) -> None:
            with around([entry]):
                store_event(storage, entry)

        def storing_batch(storage: PostgresEventLogStorage, entries: Sequence[dg.EventLogEntry]) -> None:
            with around(entries):
                store_batch(storage, entries)

        _replace(PostgresEventLogStorage, "store_event", storing)
        _replace(PostgresEventLogStorage, "store_event_batch", storing_batch)


class _Tearing:
    """A file of which the first half of what is written gets to the disk by itself."""

    def __init__(self, file: BinaryIO, reach: Callable[[], None]) -> None:
        self._file = file
        self._reach = reach

    def write(self, content: bytes) -> int:
        half = self._file.write(content[: len(content) // 2])
        self._file.flush()
        self._reach()
        return half + self._file.write(content[half:])


class _Cursor(psycopg2.extensions.cursor):
    connection: "_Connection"

    def execute(self, query: str | bytes, values: Any = None) -> None:  # type: ignore[override]  # noqa: ANN401
        text = query.decode() if isinstance(query, bytes) else query
        statement = f"{self.connection.work}: {' '.join(text.split()[:3])}"
        self.connection.points.reach(f"{statement}: before")
        super().execute(query, values)
        self.connection.points.reach(f"{statement}: after")

    def copy_expert(self, sql: str, file: Any, size: int = 0) -> None:  # type: ignore[override]  # noqa: ANN401
        del size
        points = self.connection.points
        points.reach("day: COPY: before")
        super().copy_expert(sql, _Handing(file, lambda: points.reach("day: COPY: inside")), CHUNK)
        points.reach("day: COPY: after")


class _Handing:
    """What COPY reads, with a point between one chunk and the next."""

    def __init__(self, file: BinaryIO, reach: Callable[[], None]) -> None:
        self._file = file
        self._reach = reach
        self._read = False

    def read(self, size: int = -1) -> bytes:
        if self._read:
            self._reach()
        self._read = True
        return self._file.read(size)

    def readline(self, size: int = -1) -> bytes:
        """Asked for by psycopg2's types, not by COPY."""
        raise NotImplementedError


class _Connection(psycopg2.extensions.connection):
    points: _Points
    work = ""

    def cursor(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        return super().cursor(*arguments, cursor_factory=_Cursor, **options)

    def commit(self) -> None:
        def send() -> None:
            # The wire protocol's simple query: nobody waits for the answer.
            os.write(self.fileno(), b"Q" + struct.pack("!I", 4 + len(b"COMMIT\0")) + b"COMMIT\0")

        self.points.reach(f"{self.work}: commit: before")
        self.points.reach(f"{self.work}: commit: sent, its answer not awaited", last_act=send)
        super().commit()
        self.points.reach(f"{self.work}: commit: after")


def _kind(path: Path | UPath) -> str:
    """What a file of a day is."""
    if path.parent.name == "pages":
        return "page"
    return {"pages.json": "manifest of the pages", "users.csv": "CSV", "users.json": "manifest of the CSV"}[path.name]


def _replace(owner: object, name: str, value: object) -> None:
    setattr(owner, name, value)

"""Exactly once per day, whatever dies: runs and the server are killed between their steps, and runs meet each other.

Each kill is at a point that is drawn; the seed is printed, and CRASH_SEED sets it. After a kill each day is the old one
or the new one, whole; after the next run it is the new one, and nothing else is left.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import dagster as dg
import psycopg2
import pytest
from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ

from user_processing.columns import NAMES
from user_processing.embedded import postgres as embedded
from user_processing.source import contract
from user_processing.source.user_api import UserApi
from user_processing.store import migrations, tables
from user_processing.store.day_files import DayFiles
from user_processing.store.manifests import CsvManifest
from user_processing.store.postgres import DatabaseUnavailableError, Postgres
from user_processing_tests.support import crashing
from user_processing_tests.support.checkout import ROOT
from user_processing_tests.support.crashing import Command, Plan, Point, Worker
from user_processing_tests.support.pipeline import ALL, Pipeline
from user_processing_tests.support.recorded_api import RecordedApi, Row, recorded_users, stored
from user_processing_tests.support.tables import lines

DAY, NEXT_DAY = "2023-01-01", "2023-01-02"
USERS = 250
BAD_PAGE, BAD_POSITION = 2, 7
# Each of two tests kills that many runs; one test that many servers; each of two that many runs of Dagster's engine.
KILLS_OF_A_RUN, KILLS_OF_THE_SERVER, KILLS_OF_DAGSTER = 45, 18, 5

FILES = {"pages/00001.json", "pages/00002.json", "pages/00003.json", "pages.json", "users.csv", "users.json"}
STORED = {"day: commit: after", "event of stored_users: before", "event of stored_users: after"}
PERHAPS_STORED = {"day: commit: sent, its answer not awaited"}
LOCK = Point("day: SELECT pg_advisory_xact_lock(%s, %s): before", 1)
# What a killed run has to be killed at, whatever else there is.
STEPS = {
    *("page: before it is asked for", "page: after it has come", "page: amid its writing"),
    *(
        f"{kind}: {when} its rename"
        for kind in ("page", "manifest of the pages", "CSV", "manifest of the CSV")
        for when in ("before", "after")
    ),
    *("CSV: amid its writing", "manifest of the pages: amid its writing", "manifest of the CSV: amid its writing"),
    *(f"day: {what}: {when}" for what in ("DELETE FROM users", "COPY", "commit") for when in ("before", "after")),
    *("day: COPY: inside", "day: INSERT INTO user_loads: after", "event of stored_users: before"),
    *PERHAPS_STORED,
}

Query = Callable[..., list[Row]]


class Stored(NamedTuple):
    """What the database holds of a day."""

    rows: Counter[Row]
    rejected: list[Row]
    ledger: list[Row]


NOTHING = Stored(Counter(), [], [])


class People(RecordedApi):
    """The recorded people as another crowd each round, so that a day shows of which round it is."""

    round = 0

    def __init__(self, users: list[Any]) -> None:
        super().__init__(users)
        # Who asked may be dead by now.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]

    def answer(self, query: dict[str, str]) -> dict[str, Any]:
        self.asked.append(query)
        seed, page, results = query["seed"], int(query["page"]), int(query["results"])
        people = [self.person(seed, page, position) for position in range(results)]
        info = {"seed": seed, "results": results, "page": page, "version": "1.4"}
        return {"results": people, "info": info}

    def person(self, seed: str, page: int, position: int) -> dict[str, Any]:
        recorded = self.users[(page * crashing.PAGE + position) % len(self.users)]
        email = f"{self.round}.{seed}.{page}.{position}@example.com"
        if (page, position) == (BAD_PAGE, BAD_POSITION):
            email += "\0"
        # Long, so that COPY takes several chunks.
        login = {"username": recorded["login"]["username"], "password": '",\\' * 200}
        return {**recorded, "location": {"country": "Côte d'Ivoire"}, "login": login, "email": email}

    def page(self, day: str, page: int, results: int) -> bytes:
        """What is sent for it."""
        answer = self.answer({"seed": day, "page": str(page), "results": str(results)})
        return json.dumps(answer, ensure_ascii=False).encode()

    def day(self, day: str, run_id: str, count: int = USERS) -> Stored:
        """What has to be stored when a run of this id has stored this many users in this round."""
        places = [(1 + number // crashing.PAGE, number % crashing.PAGE) for number in range(count)]
        rows = Counter(stored(self.person(day, *place)) for place in places if place != (BAD_PAGE, BAD_POSITION))
        rejected: list[Row] = [(BAD_PAGE, BAD_POSITION, "NUL in email: Postgres cannot store it")]
        return Stored(rows, rejected, [(count, rows.total(), 1, run_id)])


class Site:
    """A database, a folder and an API, and runs that use them."""

    def __init__(self, database: str, folder: Path, api: People) -> None:
        self.database = database
        self.folder = folder
        self.api = api

    def run(self, run_id: str, plan: Plan | None = None, **changes: Any) -> crashing.Pipeline:  # noqa: ANN401
        values = {"files": self.folder, "day": DAY, "users_per_day": USERS, **changes}
        return crashing.Pipeline(database=self.database, api=self.api.url, run_id=run_id, plan=plan or Plan(), **values)

    def points(self, run: Callable[[Plan], crashing.Pipeline | Command]) -> list[Point]:
        """Where such a run can be killed: it is run, and nothing happens to it."""
        trace = self.folder.with_name("trace")
        trace.unlink(missing_ok=True)
        assert Worker(run(Plan(trace=trace))).end() == 0
        lines = (line.split(" ", 1) for line in trace.read_text().splitlines())
        return sorted(Point(step, int(time)) for time, step in lines)

    def stored(self, day: str = DAY) -> Stored:
        """What one snapshot of the database shows of the day."""
        with closing(psycopg2.connect(self.database)) as connection:
            connection.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
            with connection.cursor() as cursor:

                def rows(columns: str, table: str) -> list[Row]:
                    cursor.execute("SELECT to_regclass(%s)", [table])
                    if cursor.fetchone() == (None,):
                        return []
                    cursor.execute(f"SELECT {columns} FROM {table} WHERE partition_date = %s", [day])
                    return cursor.fetchall()

                return Stored(
                    Counter(rows(", ".join(NAMES), "users")),
                    rows("page, position, reason", "rejected_users"),
                    rows("users_requested, rows, rejected, run_id", "user_loads"),
                )

    def files(self, day: str = DAY) -> dict[str, bytes]:
        """The files of the day that have their final names."""
        folder = self.folder / day
        paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part"]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    def check_that_it_is_whole(self, run_id: str, day: str = DAY) -> None:
        """The day is that of this run in table, ledger, quarantine and files, and nothing else is left of any run."""
        assert self.stored(day) == self.api.day(day, run_id)
        files = self.files(day)
        sizes = users_of_pages()
        assert files.keys() == FILES
        for page, size in sizes.items():
            assert files[f"pages/{page:05}.json"] == self.api.page(day, page, size)
        lines = csv.reader(io.StringIO(files["users.csv"].decode(), newline=""))
        assert Counter(tuple(line) for line in lines) == self.api.day(day, run_id).rows
        assert json.loads(files["users.json"])["csv_sha256"] == hashlib.sha256(files["users.csv"]).hexdigest()
        assert [page["sha256"] for page in json.loads(files["pages.json"])["pages"]] == [
            hashlib.sha256(files[f"pages/{page:05}.json"]).hexdigest() for page in sizes
        ]
        assert [path.name for path in self.folder.rglob("*.part")] == []
        with closing(psycopg2.connect(self.database)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            assert cursor.fetchone() == (0,)
            cursor.execute("SELECT count(*) FROM users WHERE partition_date IS NULL")
            assert cursor.fetchone() == (0,)

    def forget(self) -> None:
        """Nothing was ever run here."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with closing(psycopg2.connect(self.database)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {', '.join((*migrations.TABLES, migrations.VERSION_TABLE))}")


def users_of_pages() -> dict[int, int]:
    full, rest = divmod(USERS, crashing.PAGE)
    return dict(enumerate([crashing.PAGE] * full + [rest], start=1))


@pytest.fixture
def seed(record_property: Callable[[str, object], None]) -> int:
    seed = int(os.environ.get("CRASH_SEED") or int.from_bytes(os.urandom(4)))
    say(f"CRASH_SEED={seed}")
    record_property("seed", seed)
    return seed


@pytest.fixture
def people() -> Iterator[People]:
    api = People(recorded_users())
    yield api
    api.close()


@pytest.fixture
def site(database: str, tmp_path: Path, people: People) -> Site:
    return Site(database, tmp_path / "days", people)


def drawn(random: Random, points: list[Point], kills: int) -> list[Point]:
    """Points to die at: each step at one of its times, as far as there are kills; the others are anywhere."""
    times: dict[str, list[Point]] = {}
    for point in points:
        times.setdefault(point.step, []).append(point)
    once = [random.choice(times[step]) for step in random.sample(sorted(times), min(kills, len(times)))]
    chosen = once + random.choices(points, k=kills - len(once))
    random.shuffle(chosen)
    return chosen


def say(line: str) -> None:
    print(line)  # noqa: T201 - shown with a test that fails, and with `pytest -s`


def count(points: list[Point]) -> None:
    for step, kills in sorted(Counter(point.step for point in points).items()):
        say(f"{kills:3} kills at {step}")


@pytest.mark.parametrize("over", ["nothing", "another version of the day"])
def test_a_run_that_is_killed_leaves_whole_days_and_the_next_one_finishes(site: Site, seed: int, over: str) -> None:
    random = Random(seed)
    if over != "nothing":
        assert Worker(site.run("neighbour", day=NEXT_DAY)).end() == 0
        assert Worker(site.run("first")).end() == 0
    neighbour = site.stored(NEXT_DAY)
    points = site.points(lambda plan: site.run("traced", plan))
    assert {point.step for point in points} >= STEPS
    for kill, point in enumerate(chosen := drawn(random, points, KILLS_OF_A_RUN)):
        say(f"kill {kill}: {point}")
        if over == "nothing":
            site.forget()
        before, files_before = site.stored(), site.files()
        site.api.round += 1
        assert Worker(site.run("killed", Plan(at=point))).end() == -signal.SIGKILL
        after, files_after = site.stored(), site.files()
        if point.step in PERHAPS_STORED:
            assert after in (before, site.api.day(DAY, "killed"))
        else:
            assert after == (site.api.day(DAY, "killed") if point.step in STORED else before)
        assert Worker(site.run("next")).end() == 0
        site.check_that_it_is_whole("next")
        whole = site.files()
        assert all(content in (files_before.get(name), whole[name]) for name, content in files_after.items())
        assert site.stored(NEXT_DAY) == neighbour
    count(chosen)


def test_a_server_that_is_killed_leaves_whole_days_and_the_next_run_finishes(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, people: People, seed: int
) -> None:
    server = tmp_path_factory.mktemp("killed") / "postgres"
    site = Site(embedded.dsn("users", server), tmp_path / "days", people)
    random = Random(seed)
    assert Worker(site.run("first")).end() == 0
    points = [
        point
        for point in site.points(lambda plan: site.run("traced", plan))
        if point.step.startswith(("day:", "tables:"))
    ]
    for kill, point in enumerate(chosen := drawn(random, points, KILLS_OF_THE_SERVER)):
        plan = Plan(at=point, kill=random.choice(["postmaster", "server"]), server=server)
        say(f"kill {kill}: {plan.kill}, {plan.at}")
        before = site.stored()
        site.api.round += 1
        code = Worker(site.run("struck", plan)).end()
        assert code in (0, crashing.FAILED, -signal.SIGKILL)
        # As another process would: it looks, finds no server, and starts it again.
        assert Worker(partial(embedded.dsn, "users", server)).end() == 0
        new = site.api.day(DAY, "struck")
        # What the run took for stored is stored.
        assert site.stored() in ([new] if code == 0 or point.step == "day: commit: after" else [before, new])
        assert Worker(site.run("next")).end() == 0
        site.check_that_it_is_whole("next")
    count(chosen)
    embedded.stop(server)


@pytest.mark.parametrize("days", [[DAY], [DAY, NEXT_DAY]], ids=["one day", "a range of days"])
def test_a_whole_dagster_run_that_is_killed_is_finished_by_the_next_one(
    site: Site, query: Query, seed: int, tmp_path: Path, days: list[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    environment = {
        "DAGSTER_POSTGRES_URL": site.database,
        "USERS_POSTGRES_URL": site.database,
        "USER_API_URL": site.api.url,
        "USERS_FILES_URL": str(site.folder),
        "USERS_PER_DAY": str(USERS),
    }
    materialize = ["asset", "materialize", "-m", "user_processing", "--select", "*"]
    partitions = ["--partition", DAY] if len(days) == 1 else ["--partition-range", f"{days[0]}...{days[-1]}"]

    def run(plan: Plan) -> Command:
        return Command([*materialize, *partitions], home, environment, plan)

    def events() -> Counter[tuple[str, str | None]]:
        """Asset and day of the materializations of the newest run."""
        return Counter(
            (json.loads(asset)[0], day)
            for asset, day in query(
                "SELECT asset_key, partition FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION' "
                "AND run_id = (SELECT run_id FROM runs ORDER BY id DESC LIMIT 1)"
            )
        )

    random = Random(seed)
    points = [point for point in site.points(run) if not point.step.startswith("tables:")]
    of_events = [point for point in points if point.step.startswith("event of stored_users")]
    chosen = [
        *random.sample(of_events, 2),
        *drawn(random, [point for point in points if point not in of_events], KILLS_OF_DAGSTER - 2),
    ]
    every_event = Counter(
        [("users_table", None)]
        + [(asset, day) for asset in ("raw_user", "processed_user_csv", "stored_users") for day in days]
    )
    for kill, point in enumerate(chosen):
        say(f"kill {kill}: {point}")
        before = {day: site.stored(day) for day in days}
        site.api.round += 1
        assert Worker(run(Plan(at=point))).end() == -signal.SIGKILL
        [(killed,)] = query("SELECT run_id FROM runs ORDER BY id DESC LIMIT 1")
        recorded = events()
        assert recorded <= every_event
        for day in days:
            new = site.api.day(day, killed)
            assert site.stored(day) in ([new] if ("stored_users", day) in recorded else [before[day], new])
        assert Worker(run(Plan())).end() == 0, (home / "output").read_text()
        [(finished, status)] = query("SELECT run_id, status FROM runs ORDER BY id DESC LIMIT 1")
        assert (finished != killed, status) == (True, "SUCCESS")
        assert events() == every_event
        for day in days:
            site.check_that_it_is_whole(finished, day)
    count(chosen)


@pytest.mark.parametrize("processes", range(2, 9))
def test_of_processes_that_store_one_day_at_once_one_is_stored(site: Site, processes: int) -> None:
    counts = {f"run {number}": 110 + number for number in range(processes)}
    for _ in range(2):
        plan = Plan(at=LOCK, meet=crashing.meeting(processes))
        workers = [
            Worker(site.run(run_id, plan, files=site.folder / run_id, users_per_day=count))
            for run_id, count in counts.items()
        ]
        assert [worker.end() for worker in workers] == [0] * processes
        assert site.stored() in [site.api.day(DAY, run_id, count) for run_id, count in counts.items()]


@pytest.mark.parametrize("processes", range(2, 9, 3))
def test_processes_that_run_one_day_at_once_share_its_files(site: Site, processes: int) -> None:
    plan = Plan(at=Point("page: before it is asked for", 1), meet=crashing.meeting(processes))
    workers = [Worker(site.run(f"run {number}", plan)) for number in range(processes)]
    assert [worker.end() for worker in workers] == [0] * processes
    [(_, _, _, last)] = site.stored().ledger
    site.check_that_it_is_whole(last)


def test_a_server_that_ends_the_connection_within_copy_gets_no_row_printed(
    database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """psycopg2 would print the server's message, which quotes the row that it was at."""
    postgres = Postgres(url=database)
    with postgres.transaction() as connection:
        tables.create_tables(connection)
        backend = connection.info.backend_pid

    class Csv(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                with contextlib.closing(psycopg2.connect(database)) as other, other.cursor() as cursor:
                    cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [backend])
            return super().read(size)

    csv = Csv(lines("canary") * 100_000)
    with pytest.raises(DatabaseUnavailableError):
        with postgres.transaction() as connection:
            tables.replace_day(connection, "2023-01-01", csv, CsvManifest(1, 1, ""), run_id="a run")
    assert capfd.readouterr().err == ""


def job() -> dg.JobDefinition:
    """The assets as the job that Dagster finds again when it runs it once more."""
    resources = {
        "user_api": UserApi(url=dg.EnvVar("CRASH_API"), backoff_seconds=0, attempts=1),
        "postgres": Postgres(url=dg.EnvVar("CRASH_DATABASE")),
        "day_files": DayFiles(url=dg.EnvVar("CRASH_FILES")),
    }
    definitions = dg.Definitions(
        ALL, jobs=[dg.define_asset_job("days", ALL)], resources=resources, executor=dg.in_process_executor
    )
    return definitions.resolve_job_def("days")


RANGE = ["2023-01-01", "2023-01-02", "2023-01-03", "2023-01-04"]
TAGS = {"dagster/asset_partition_range_start": RANGE[0], "dagster/asset_partition_range_end": RANGE[-1]}
Runs = tuple[Callable[..., dg.JobExecutionResult], Callable[[], Counter[tuple[str, str]]]]
PAGES = Counter((day, page) for day in RANGE for page in ("1", "2"))


@pytest.fixture
def first_try(pipeline: Pipeline, recorded_api: RecordedApi, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Runs the range of days, two pages each; and which pages were asked for since the last time one looked."""
    monkeypatch.setattr(contract, "LARGEST_PAGE", 2)
    monkeypatch.setenv("CRASH_API", recorded_api.url)
    monkeypatch.setenv("CRASH_DATABASE", pipeline.postgres.url or "")
    monkeypatch.setenv("CRASH_FILES", str(pipeline.folder))

    def run(**options: Any) -> dg.JobExecutionResult:  # noqa: ANN401
        config = {"ops": {"raw_user": {"config": {"users_per_day": 3}}}}
        return dg.execute_job(
            dg.reconstructable(job), instance=pipeline.instance, run_config=config, tags=TAGS, **options
        )

    def asked() -> Counter[tuple[str, str]]:
        pages = Counter((query["seed"], query["page"]) for query in recorded_api.asked)
        recorded_api.asked.clear()
        return pages

    return run, asked


def error(result: dg.JobExecutionResult) -> str:
    [event] = [event for event in result.all_events if event.is_step_failure]
    failure = event.step_failure_data.user_failure_data
    return str(failure.description if failure else event.step_failure_data.error)


def retry(result: dg.JobExecutionResult, pipeline: Pipeline) -> dg.ReexecutionOptions:
    return dg.ReexecutionOptions.from_failure(result.run_id, pipeline.instance)


def test_a_retry_asks_only_for_pages_that_the_first_try_has_not_left(
    pipeline: Pipeline, recorded_api: RecordedApi, first_try: Runs, query: Query
) -> None:
    def another_seed_on_the_third(query: dict[str, str], page: dict[str, Any]) -> object:
        if (query["seed"], query["page"]) == (RANGE[2], "2"):
            page["info"]["seed"] = "somebody else's"
        return page

    run, asked = first_try
    recorded_api.tamper = another_seed_on_the_third
    first = run()
    assert not first.success
    assert asked() == PAGES
    assert error(first).startswith(
        f"1 of 4 days are not done: {RANGE[2]}. What is stored for them did not change. {RANGE[2]}: "
    )
    assert [(day, values["dagster/row_count"]) for day, values in pipeline.events("raw_user")] == [
        (day, 3) for day in RANGE if day != RANGE[2]
    ]
    # Damaged since: it is no page any more.
    page: Path = pipeline.folder / RANGE[1] / "pages" / "00002.json"
    page.write_bytes(page.read_bytes()[:-9])
    # Asked for with another `inc`, by code that had other columns: its people are others too.
    page = pipeline.folder / RANGE[3] / "pages" / "00001.json"
    fetched = json.loads(page.read_bytes())
    page.write_text(json.dumps({**fetched, "results": [{**user, "nat": "NO"} for user in fetched["results"]]}))
    second = run(reexecution_options=retry(first, pipeline))
    assert not second.success
    assert asked() == Counter({(RANGE[2], "2"): 1, (RANGE[1], "2"): 1, (RANGE[3], "1"): 1})
    recorded_api.tamper = lambda _, page: page
    third = run(reexecution_options=retry(second, pipeline))
    assert third.success
    assert asked() == Counter({(RANGE[2], "2"): 1})
    assert query("SELECT partition_date::text, count(*) FROM users GROUP BY 1 ORDER BY 1") == [
        (day, 3) for day in RANGE
    ]


def test_a_retry_asks_for_no_page_of_the_days_before_the_one_on_which_the_api_went(
    pipeline: Pipeline, recorded_api: RecordedApi, first_try: Runs
) -> None:
    def gone_from_the_third(query: dict[str, str], page: dict[str, Any]) -> object:
        if query["seed"] >= RANGE[2]:
            raise ConnectionAbortedError
        return page

    run, asked = first_try
    recorded_api.tamper = gone_from_the_third
    first = run()
    assert error(first).startswith(
        f"2 of 4 days are not done: {RANGE[2]} to {RANGE[3]}. What is stored for them did not change. {RANGE[2]}: "
    )
    assert [day for day, _ in pipeline.events("raw_user")] == RANGE[:2]
    asked()
    recorded_api.tamper = lambda _, page: page
    assert run(reexecution_options=retry(first, pipeline)).success
    assert set(asked()) == {page for page in PAGES if page[0] >= RANGE[2]}


def test_a_fresh_run_asks_for_every_page_again(first_try: Runs) -> None:
    run, asked = first_try
    for _ in range(2):
        assert run().success
        assert asked() == PAGES

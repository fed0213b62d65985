"""Every day that is due or asked for arrives once, whatever is down: 200 days under a frozen clock, for many seeds.

The ticks are real: what the sensor and the schedule do, on a real instance, a real Postgres and real HTTP. The clock,
the outages and the runs are simulated: what a run stores, and how it ends when something goes away under it. Only polls
that can see something new are made; one between them would see what the one before it saw.
"""

import datetime as dt
import functools
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any
from uuid import uuid4

import dagster as dg
import psycopg2
import pytest

from user_processing import automation
from user_processing.assets import stored_users
from user_processing.catchup import facts
from user_processing.days.cadence import CADENCE
from user_processing.days.runs import FAILED_DAYS, STOPPED_AT, RunDays, spans
from user_processing.definitions import defs
from user_processing.source.user_api import UserApi
from user_processing.store import tables
from user_processing.store.postgres import Postgres
from user_processing_tests.support.dagster_records import ORIGIN
from user_processing_tests.support.recorded_api import RecordedApi
from user_processing_tests.support.tables import say_stored

START = dt.datetime(2023, 1, 1, 12, tzinfo=dt.UTC)
DAYS = 200
QUIET = START + dt.timedelta(days=DAYS - 10)
END = START + dt.timedelta(days=DAYS)
SEEDS = range(8)
MORE_SEEDS = range(20, 26)
KILLED, STOPPED = 0.1, 0.1  # shares of the runs
CANCELLED = 0.1  # share of what somebody asks for
NOWHERE = "postgresql://nobody@127.0.0.1:1/users"
DOWN = "http://127.0.0.1:1/"


class World:
    """A clock, an API, a database, a machine, a daemon, and the runs that are at work."""

    def __init__(self, seed: int, database: str, resources: Any, instance: dg.DagsterInstance) -> None:  # noqa: ANN401
        self.random = random.Random(seed)
        self.now = START
        self.instance = instance
        self.stored: Counter[str] = Counter()
        self.stored_at: dict[str, list[dt.datetime]] = {}
        self.asked: Counter[str] = Counter()
        self.wishes: dict[str, dt.datetime | None] = {}
        """Day → when somebody asked for it; None if they cancelled that."""

        self.ticks = 0
        self._database = database
        self._resources = resources
        self._cursor: str | None = None
        self._last_tick: dt.datetime | None = None
        self._run_keys: set[str | None] = set()
        self._order = itertools.count()
        self._coming: list[tuple[dt.datetime, int, Callable[[], object]]] = []
        self._outages = {part: sorted(self._drawn()) for part in ("api", "database", "daemon", "machine")}
        # Days that break the API's contract the first few times.
        due = CADENCE.due(QUIET)
        self._bad = {day: self.random.randint(1, 4) for day in self.random.sample(due, 12)}
        self._repository = defs.get_repository_def()

    def _drawn(self) -> Iterator[tuple[dt.datetime, dt.datetime]]:
        for _ in range(self.random.randint(4, 12)):
            start = START + (QUIET - START) * self.random.random()
            hours = self.random.choice([0.01, 0.2, 2, 20, 120]) * self.random.uniform(0.5, 2)
            yield start, min(start + dt.timedelta(hours=hours), QUIET)

    def up(self, part: str, moment: dt.datetime | None = None) -> bool:
        return not any(start <= (moment or self.now) < end for start, end in self._outages[part])

    def first_outage(self, part: str, start: dt.datetime, end: dt.datetime) -> tuple[dt.datetime, dt.datetime] | None:
        """The first one that has to do with this span of time."""
        return next(((down, up) for down, up in self._outages[part] if down < end and up > start), None)

    def at(self, moment: dt.datetime, event: Callable[[], object]) -> None:
        heapq.heappush(self._coming, (moment, next(self._order), event))

    def poll_after(self, moment: dt.datetime) -> None:
        """The next poll after this moment: within the minute."""
        self.at(moment + dt.timedelta(seconds=self.random.uniform(1, 60)), self.poll)

    def live(self) -> None:
        """Let everything happen until the end."""
        midnights = [START.replace(hour=0) + dt.timedelta(days=number) for number in range(1, DAYS + 1)]
        for midnight in midnights:
            self.at(midnight, self.tick_of_schedule)
            self.poll_after(midnight + dt.timedelta(seconds=90))
        for outage in itertools.chain(*self._outages.values()):
            for moment in outage:
                self.at(moment, self.tick_of_schedule)
                self.poll_after(moment)
        while self._coming and self._coming[0][0] < END:
            self.now, _, event = heapq.heappop(self._coming)
            event()

    def tick_of_schedule(self) -> None:
        """As Dagster does: the last tick that is due, once, also when it is late."""
        if not (self.up("daemon") and self.up("machine")):
            return
        midnight = self.now.replace(hour=0, minute=0, second=0, microsecond=0)
        if self._last_tick == midnight:
            return
        self._last_tick = midnight
        request = automation.evaluate_schedule(midnight, self._user_api, now=self.now)
        self._launch([request] if isinstance(request, dg.RunRequest) else [], "schedule")

    def poll(self) -> list[str | None]:
        """One tick of the sensor, if anybody is there to make it."""
        if not (self.up("daemon") and self.up("machine")):
            return []
        self.ticks += 1
        postgres = self._resources.postgres if self.up("database") else self._resources.no_postgres
        try:
            context = dg.build_sensor_context(self.instance, self._cursor, repository_def=self._repository)
            result = automation.evaluate_sensor(context, self._user_api, postgres, now=self.now)
        except automation.ApiDownError:
            # The tick fails, and the next one comes all the same.
            return []
        self._cursor = result.cursor
        for event in result.asset_events or []:
            if isinstance(event, dg.AssetMaterialization):
                self.instance.report_runless_asset_event(event)
        return self._launch(result.run_requests or [], "sensor")

    @property
    def _user_api(self) -> UserApi:
        api: UserApi = self._resources.user_api if self.up("api") else self._resources.no_user_api
        return api

    def _launch(self, requests: Sequence[dg.RunRequest], by: str) -> list[str | None]:
        asked = []
        for request in requests:
            key = f"{by} {request.run_key}"
            if key in self._run_keys:
                continue
            self._run_keys.add(key)
            asked.append(request.run_key)
            self._start({**request.tags, **({"dagster/partition": day} if (day := request.partition_key) else {})})
        return asked

    def _start(self, tags: dict[str, str], *, cancelled: bool = False) -> None:
        """A run, which somebody cancels or not."""
        run = dg.DagsterRun(
            job_name="user_processing",
            run_id=str(uuid4()),
            status=dg.DagsterRunStatus.STARTED,
            tags=tags,
            remote_job_origin=ORIGIN,
        )
        self.instance.run_storage.add_historical_run(run, self.now)
        days = list(facts.days_of(run))
        assert days
        assert set(days) <= set(CADENCE.due(self.now))
        self.asked.update(days)
        if cancelled:
            self.at(self.now + dt.timedelta(seconds=30), lambda: self._ends(run, "PIPELINE_CANCELED"))
        else:
            self._fate(run, days)

    def somebody_asks(self, first: str, last: str) -> None:
        """For days, by a launch or a backfill: once the daemon is there, and for days on which nothing is at work."""
        days = list(RunDays(first, last))
        busy = facts.busy(facts.active(self.instance))
        if not (self.up("daemon") and self.up("machine")) or busy.keys() & set(days):
            self.at(self.now + dt.timedelta(hours=1), lambda: self.somebody_asks(first, last))
            return
        cancelled = self.random.random() < CANCELLED
        self.wishes.update(dict.fromkeys(days, None if cancelled else self.now))
        parts = spans(days, self.random.choice([None, 1, 3])) if not cancelled else [RunDays(first, last)]
        for part in parts:
            self._start(part.tags(), cancelled=cancelled)

    def _fate(self, run: dg.DagsterRun, days: list[str]) -> None:
        """Decide what becomes of a run."""
        start = self.now
        end = start + dt.timedelta(minutes=self.random.uniform(0.2, 5) + 0.3 * len(days))
        some = self.random.randrange(len(days))
        bad = [day for day in days if self._bad.get(day)]
        luck = self.random.random()
        if luck < KILLED:
            # Its process alone is killed. The last day that it has committed is one that it could not say so of.
            some = self.random.randint(0, len(days))
            self.at(end, lambda: self._store(days[:some], said=days[: max(some - 1, 0)]))
            self.at(end + dt.timedelta(seconds=20), lambda: self._ends(run, "PIPELINE_FAILURE"))
        elif luck < KILLED + STOPPED:
            # The API answers polls, and not this run.
            self.at(end, lambda: self._stops(run, days[some]))
        elif outage := self.first_outage("machine", start, end):
            # Killed: what it has committed is there, what it was about to say is not. Seen when all is back.
            back = max(outage[1], start)
            said = max(some - 1, 0)
            self.at(outage[0], lambda: self._store(days[:some], said=days[:said]) if self.up("database") else None)
            self.at(back + dt.timedelta(seconds=20), lambda: self._ends(run, "PIPELINE_FAILURE"))
        elif outage := self.first_outage("api", start, end):
            self.at(max(outage[0], start) + dt.timedelta(minutes=2), lambda: self._stops(run, days[some]))
        elif outage := self.first_outage("database", start, end):
            self.at(
                max(outage[0], start), lambda: self._store(days[:some], said=days[:some]) if outage[0] > start else None
            )
            self.at(max(outage[0], start), lambda: self._stops(run, days[some if outage[0] > start else 0]))
        elif bad:
            self._bad.update({day: self._bad[day] - 1 for day in bad})
            self.at(end, lambda: self._ends(run, "PIPELINE_FAILURE", {FAILED_DAYS: ",".join(bad)}))
        else:
            self.at(end, lambda: self._store(days, said=days))
            self.at(end, lambda: self._ends(run, "PIPELINE_SUCCESS"))

    def _stops(self, run: dg.DagsterRun, day: str) -> None:
        self._ends(run, "PIPELINE_FAILURE", {STOPPED_AT: day})

    def _store(self, days: list[str], *, said: list[str]) -> None:
        for day in days:
            self.stored[day] += 1
            self.stored_at[day] = [*self.stored_at.get(day, []), self.now]
        say_stored(self._database, days, at=self.now)
        for day in said:
            self.instance.report_runless_asset_event(dg.AssetMaterialization(stored_users.key, partition=day))

    def _ends(self, run: dg.DagsterRun, kind: str, tags: dict[str, str] | None = None) -> None:
        if tags:
            self.instance.add_run_tags(run.run_id, tags)
        event = dg.DagsterEvent(event_type_value=kind, job_name=run.job_name)
        self.instance.run_storage.handle_run_event(run.run_id, event, self.now)
        self.poll_after(self.now)
        for minutes in (5, 10, 20, 40, 80, 160, 320) if kind == "PIPELINE_FAILURE" else ():
            self.poll_after(self.now + dt.timedelta(minutes=minutes))


@pytest.fixture
def world(seed: int, database: str, recorded_api: RecordedApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with closing(psycopg2.connect(database)) as connection, connection:
        tables.create_tables(connection)
    settings = random.Random(seed)
    monkeypatch.setenv("USERS_MAX_ACTIVE_RUNS", str(settings.choice([1, 2, 16])))
    # A day fails by itself four times at most, and through what surrounds it more often.
    monkeypatch.setenv("USERS_MAX_ATTEMPTS", "5")
    if days_per_run := settings.choice([None, 1, 5, 30]):
        monkeypatch.setenv("USERS_DAYS_PER_RUN", str(days_per_run))
    definitions = {
        "user_api": UserApi(url=recorded_api.url),
        "no_user_api": UserApi(url=DOWN),
        "postgres": Postgres(url=database),
        "no_postgres": Postgres(url=NOWHERE),
    }
    with dg.DagsterInstance.ephemeral() as instance, dg.build_resources(definitions, instance) as resources:
        world = World(seed, database, resources, instance)
        yield world


@pytest.mark.parametrize("seed", SEEDS)
def test_every_due_day_arrives_exactly_once_whatever_is_down(
    seed: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERS_CATCHUP", "true")
    world.live()
    due = CADENCE.due(END)
    print(f"seed {seed}: {world.ticks:,} ticks, {sum(world.asked.values()):,} days asked for, {len(due)} stored")  # noqa: T201
    assert [day for day in due if not world.stored[day]] == []
    assert {day: times for day, times in world.stored.items() if times > 1} == {}
    # It broke often enough to show something.
    assert sum(world.asked.values()) > len(due)
    world.now = END
    assert [world.poll() for _ in range(10)] == [[]] * 10


@pytest.mark.parametrize("seed", MORE_SEEDS)
def test_what_somebody_asked_for_arrives_once_without_catch_up(
    seed: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Launches and backfills of days that are stored already, and of days that are not; each day is in one of them."""
    monkeypatch.setenv("USERS_CATCHUP", "false")
    first = START.date()
    for number in range(2, DAYS - 30, 6):
        days = RunDays(
            str(first + dt.timedelta(days=number)),
            str(first + dt.timedelta(days=number + world.random.choice([0, 0, 2, 5]))),
        )
        over = START + dt.timedelta(days=number + 12)
        moment = over + (QUIET - over) * world.random.random()
        world.at(moment, functools.partial(world.somebody_asks, days.first, days.last))
    world.live()
    wishes = {day: moment for day, moment in world.wishes.items() if moment}
    cancelled = {day for day, moment in world.wishes.items() if not moment}
    since = {day: sum(stored >= moment for stored in world.stored_at.get(day, [])) for day, moment in wishes.items()}
    print(f"seed {seed}: {world.ticks:,} ticks, {len(wishes)} days wished for, {sum(world.asked.values()):,} asked for")  # noqa: T201
    assert len(wishes) > 50
    assert {day: times for day, times in since.items() if times != 1} == {}
    # So does every day for which the schedule or the sensor ever launched a run.
    assert [day for day in world.asked if not world.stored[day] and day not in cancelled] == []
    assert sum(world.asked.values()) > len(world.asked) + len(wishes)
    world.now = END
    assert [world.poll() for _ in range(10)] == [[]] * 10

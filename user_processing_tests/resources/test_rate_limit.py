"""What the API allows is kept to by all runs of an instance together, whatever becomes of them."""

import contextlib
import datetime as dt
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, cast
from uuid import uuid4

import dagster as dg
import msgspec
import psycopg2
import pytest
from dagster._core.storage.runs import SqlRunStorage

from user_processing.embedded import postgres as embedded
from user_processing.resources.rate_limit import (
    KEY,
    InstanceStore,
    Memory,
    RateLimit,
    Request,
    StoppingError,
    Store,
    Window,
    store_of,
)
from user_processing.resources.user_api import ApiUnavailableError, UserApi
from user_processing_tests.checkout import ROOT, Checkout, wait_for
from user_processing_tests.resources import hostile_api
from user_processing_tests.resources.hostile_api import Exchange, HostileApi, answers

DAY = "2023-01-01"
NOW = 1_800_000_000.0  # Unix seconds; where a slice of a window of 300 s begins
FIVE_MINUTES = 300.0


class Said:
    """A log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, line: str) -> None:
        self.lines.append(line)


class Span(NamedTuple):
    """A request, as seen from the server: it counted the users at some moment of it."""

    began: float
    ended: float
    users: int


def most_users(spans: list[Span], seconds: float) -> int:
    """The most users that any window of this length can have counted."""
    return max(
        sum(span.users for span in spans if span.began <= first.ended + seconds and span.ended >= first.ended)
        for first in spans
    )


def most_at_once(spans: list[Span]) -> int:
    return max(sum(span.began <= first.began < span.ended for span in spans) for first in spans)


@contextlib.contextmanager
def new_instance(server: Path, folder: Path) -> Iterator[dg.DagsterInstance]:
    """The project's instance, on a database of its own."""
    name = f"test_{uuid4().hex[:12]}"
    with closing(psycopg2.connect(embedded.dsn("postgres", server))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
    settings = (ROOT / "dagster.yaml").read_text().replace(".local", str(folder / "local"))
    (folder / "dagster.yaml").write_text(settings)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAGSTER_POSTGRES_URL", embedded.dsn(name, server))
        instance = dg.DagsterInstance.from_config(str(folder))
        assert text(instance) is None
    yield instance
    instance.dispose()


@pytest.fixture(scope="module")
def shared(server: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with new_instance(server, tmp_path_factory.mktemp("home")) as instance:
        yield instance


@pytest.fixture
def instance(shared: dg.DagsterInstance) -> dg.DagsterInstance:
    """The project's instance; nobody has asked for anything yet."""
    storage = cast("SqlRunStorage", shared.run_storage)
    with storage.connect() as connection:
        connection.exec_driver_sql("DELETE FROM kvs")
    return shared


def text(instance: dg.DagsterInstance) -> str | None:
    return instance.run_storage.get_cursor_values({KEY}).get(KEY)


def window_of(instance: dg.DagsterInstance) -> Window:
    return msgspec.json.decode(text(instance) or "{}", type=Window)


def remember(instance: dg.DagsterInstance, window: Window) -> None:
    instance.run_storage.set_cursor_values({KEY: msgspec.json.encode(window).decode()})


def limiter(
    store: Store | None = None, *, users: int = 10, seconds: float = FIVE_MINUTES, requests: int = 4
) -> tuple[RateLimit, Said]:
    said = Said()
    return RateLimit(store or Memory(), users=users, seconds=seconds, requests=requests, log=said), said


def ask(limit: RateLimit, users: int, stopping: threading.Event | None = None) -> None:
    with limit.request(users, seconds=60, stopping=stopping or threading.Event()):
        pass


def waiting(limit: RateLimit, count: int) -> Callable[[], bool]:
    return lambda: len(limit._queue) == count  # noqa: SLF001


@contextlib.contextmanager
def in_thread(work: Callable[..., object], *arguments: object) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=work, args=arguments)
    thread.start()
    yield thread
    thread.join(30)
    assert not thread.is_alive()


# The window


@pytest.mark.parametrize(
    ("ended", "most", "seconds"),
    [
        ([(-200.0, 5)], 4, 100.0),
        ([(-200.0, 5), (-100.0, 5)], 5, 100.0),
        ([(-100.0, 5), (-200.0, 5)], 5, 100.0),
        ([(-200.0, 5), (-100.0, 5)], 4, 200.0),
        ([(-200.0, 5), (-100.0, 5)], 0, 200.0),
    ],
)
def test_there_is_room_when_enough_has_left_the_window(
    ended: list[tuple[float, int]], most: int, seconds: float
) -> None:
    window = Window(ended=[(NOW + at, users) for at, users in ended])
    assert window.seconds_until(most, NOW, FIVE_MINUTES) == seconds


def test_a_request_counts_until_the_window_has_passed_since_its_end() -> None:
    window = Window({"a": Request(7, NOW, 60)})
    window.end("a", 7, NOW + 30, FIVE_MINUTES)
    assert not window.forget(NOW + 30, FIVE_MINUTES, alive=set())
    assert window.users == 7
    window.forget(NOW + 329.9, FIVE_MINUTES, alive=set())
    assert window.users == 7
    window.forget(NOW + 330, FIVE_MINUTES, alive=set())
    assert window.users == 0


def test_what_ended_in_the_same_slice_is_one_entry_that_leaves_no_earlier() -> None:
    window = Window()
    for number in range(10_000):
        window.end("", 1, NOW + number / 100, FIVE_MINUTES)
    assert window.users == 10_000
    assert len(window.ended) == 35
    window.forget(NOW + 300 + 3, FIVE_MINUTES, alive=set())
    assert window.users == 10_000 - 301


def test_what_is_under_way_counts_as_asked_now() -> None:
    window = Window({"a": Request(7, NOW, 60)})
    assert window.users == 7
    assert window.seconds_until(3, NOW + 50, FIVE_MINUTES) == FIVE_MINUTES


@pytest.mark.parametrize(("alive", "users"), [(set(), 0), ({"a"}, 7)], ids=["of a killed run", "of this run"])
def test_what_nobody_has_ended_is_over_when_its_time_is(alive: set[str], users: int) -> None:
    window = Window({"a": Request(7, NOW, 60)})
    window.forget(NOW + 59, FIVE_MINUTES, alive=alive)
    assert list(window.under_way) == ["a"]
    window.forget(NOW + 60, FIVE_MINUTES, alive=alive)
    assert list(window.under_way) == list(alive)
    window.forget(NOW + 359, FIVE_MINUTES, alive=alive)
    assert window.users == 7
    window.forget(NOW + 360, FIVE_MINUTES, alive=alive)
    assert window.users == users


def test_what_lies_in_the_future_counts_as_asked_now() -> None:
    """The clock was set back."""
    hour = 3600.0
    window = Window({"a": Request(5, NOW + hour, 60)}, [(NOW + hour, 7), (NOW - 10, 1)])
    assert window.forget(NOW, FIVE_MINUTES, alive=set())
    assert not window.forget(NOW, FIVE_MINUTES, alive=set())
    assert window.users == 13
    window.forget(NOW + 300, FIVE_MINUTES, alive=set())
    assert window.users == 5
    window.forget(NOW + 363, FIVE_MINUTES, alive=set())
    assert window.users == 0


# The threads of a run


def test_threads_keep_to_the_limit_and_none_is_left_behind() -> None:
    seconds, spans = 0.3, []
    limit, _ = limiter(users=10, seconds=seconds, requests=3)

    def request(users: int) -> None:
        with limit.request(users, seconds=60, stopping=threading.Event()):
            began = time.monotonic()
            threading.Event().wait(0.005)
            spans.append(Span(began, time.monotonic(), users))

    sizes = [1, 2, 3, 4, 5] * 4
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(request, sizes))
    assert sorted(span.users for span in spans) == sorted(sizes)
    assert most_at_once(spans) <= 3
    assert 6 <= most_users(spans, seconds) <= 10


def test_a_large_page_is_not_overtaken() -> None:
    limit, _ = limiter(users=10, seconds=0.2)
    order = []

    def request(users: int) -> None:
        with limit.request(users, seconds=60, stopping=threading.Event()):
            order.append(users)

    with contextlib.ExitStack() as stack:
        with limit.request(5, seconds=60, stopping=threading.Event()):
            for number, users in enumerate([10, 1], start=1):
                stack.enter_context(in_thread(request, users))
                wait_for(waiting(limit, number))
            assert order == []
    assert order == [10, 1]


def test_a_page_that_is_larger_than_the_limit_goes_when_nothing_else_was_asked() -> None:
    limit, said = limiter(users=10)
    ask(limit, 5000)
    stopping = threading.Event()
    with in_thread(pytest.raises, StoppingError, ask, limit, 1, stopping):
        wait_for(lambda: said.lines)
        stopping.set()


@pytest.mark.parametrize(("users", "goes", "waits"), [(20_000, 19_900, 1), (1_000, 950, 1), (100, 95, 1), (10, 10, 1)])
def test_a_little_is_left_for_the_probes(users: int, goes: int, waits: int) -> None:
    limit, said = limiter(users=users)
    ask(limit, goes)
    stopping = threading.Event()
    with in_thread(pytest.raises, StoppingError, ask, limit, waits, stopping):
        wait_for(lambda: said.lines)
        stopping.set()


def test_a_run_that_stops_waits_no_longer_and_says_so_once() -> None:
    limit, said = limiter(users=10)
    ask(limit, 8)
    stopping = threading.Event()
    with contextlib.ExitStack() as stack:
        threads = [
            stack.enter_context(in_thread(pytest.raises, StoppingError, ask, limit, 5, stopping)) for _ in range(3)
        ]
        wait_for(waiting(limit, 3))
        wait_for(lambda: said.lines)
        threads[0].join(1.2)  # it looks each 0.5 s
        began = time.monotonic()
        stopping.set()
    assert time.monotonic() - began < 3
    assert len(said.lines) == 1
    assert re.fullmatch(
        r"8 users were asked for in the last 300 s; the limit is 10\. The next page waits 30[0-3] s\.", said.lines[0]
    )
    ask(limit, 2)


def test_a_request_that_fails_counts() -> None:
    limit, _ = limiter(store := Memory())
    with pytest.raises(ZeroDivisionError), limit.request(7, seconds=60, stopping=threading.Event()):
        raise ZeroDivisionError
    window = msgspec.json.decode(store.read() or "", type=Window)
    assert (window.under_way, window.users) == ({}, 7)


# The runs of an instance


def test_what_is_under_way_is_known_before_it_is_sent(instance: dg.DagsterInstance) -> None:
    limit, _ = limiter(store_of(instance))
    with limit.request(7, seconds=60, stopping=threading.Event()):
        ((_, request),) = window_of(instance).under_way.items()
        assert (request.users, request.seconds) == (7, 90)
        assert abs(request.began - time.time()) < 5
    assert (window_of(instance).under_way, window_of(instance).users) == ({}, 7)


@pytest.mark.parametrize("killed", [True, False])
def test_what_an_earlier_run_asked_for_counts(instance: dg.DagsterInstance, *, killed: bool) -> None:
    earlier, _ = limiter(store_of(instance))
    request = earlier.request(7, seconds=60, stopping=threading.Event())
    request.__enter__()
    if not killed:
        request.__exit__(None, None, None)
    limit, said = limiter(store_of(instance))
    ask(limit, 3)
    stopping = threading.Event()
    with in_thread(pytest.raises, StoppingError, ask, limit, 1, stopping):
        wait_for(lambda: said.lines)
        stopping.set()
    assert "10 users were asked for" in said.lines[0]


def test_requests_at_once_are_those_of_all_runs(instance: dg.DagsterInstance) -> None:
    limits = [limiter(store_of(instance), users=1000, requests=2)[0] for _ in range(2)]
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as under_way:
            for limit in limits:
                under_way.enter_context(limit.request(1, seconds=60, stopping=threading.Event()))
            third = stack.enter_context(in_thread(ask, limits[0], 1))
            wait_for(waiting(limits[0], 1))
            third.join(0.6)  # it looks each 0.5 s
            assert third.is_alive()
    assert window_of(instance).users == 3


def test_runs_that_write_at_the_same_moment_lose_nothing(instance: dg.DagsterInstance) -> None:
    limits = [limiter(store_of(instance), users=0, seconds=3600)[0] for _ in range(4)]
    for limit in limits:
        limit._room = limit._requests = 10**6  # noqa: SLF001 - nobody waits
    with ThreadPoolExecutor(len(limits)) as pool:
        list(pool.map(lambda number: ask(limits[number % len(limits)], 1), range(100)))
    assert (window_of(instance).under_way, window_of(instance).users) == ({}, 100)


def test_a_text_is_replaced_only_if_it_is_still_the_old_one(instance: dg.DagsterInstance) -> None:
    store = store_of(instance)
    assert isinstance(store, InstanceStore)
    for kept in (store, Memory()):
        assert kept.read() is None
        assert not kept.swap("a", "b")
        assert kept.swap(None, "a")
        assert not kept.swap(None, "b")
        assert not kept.swap("b", "c")
        assert kept.swap("a", "b")
        assert kept.read() == "b"


def test_a_clock_that_was_set_back_makes_nobody_wait_for_longer_than_a_window(instance: dg.DagsterInstance) -> None:
    remember(instance, Window(ended=[(time.time() + 10**6, 10)]))
    limit, _ = limiter(store_of(instance), seconds=0.5)
    with in_thread(ask, limit, 1):
        pass


def test_an_instance_that_is_gone_with_its_process_keeps_nothing() -> None:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        assert isinstance(store_of(ephemeral), Memory)
    assert isinstance(store_of(None), Memory)


# The client


@contextlib.contextmanager
def client(instance: dg.DagsterInstance, url: str, **settings: Any) -> Iterator[UserApi]:  # noqa: ANN401
    patience = {"attempts": 3, "backoff_seconds": 0, "rate_limit_seconds": 0.01, **settings}
    with (
        dg.build_init_resource_context(instance=instance) as context,
        UserApi(url=url, **patience).yield_for_execution(context) as user_api,
    ):
        yield user_api


def test_each_attempt_is_written_before_it_is_sent(instance: dg.DagsterInstance) -> None:
    seen = []

    def refuse(exchange: Exchange) -> None:
        window = window_of(instance)
        seen.append((window.users, [request.seconds for request in window.under_way.values()]))
        answers("503 Service Unavailable")(exchange)

    with HostileApi() as api, client(instance, api.url(), rate_limit=100, attempt_seconds=10) as user_api:
        api.always = refuse
        with pytest.raises(ApiUnavailableError, match="failed 3 times"):
            user_api.page(seed=DAY, page=1, results=3)
    assert seen == [(3, [15]), (6, [15]), (9, [15])]
    assert (window_of(instance).under_way, window_of(instance).users) == ({}, 9)


def test_without_a_limit_nothing_is_written(instance: dg.DagsterInstance) -> None:
    with HostileApi() as api, client(instance, api.url()) as user_api:
        user_api.page(seed=DAY, page=1, results=3)
    assert text(instance) is None


def test_probes_do_not_count_and_do_not_wait(instance: dg.DagsterInstance) -> None:
    full = Window(ended=[(time.time(), 10)])
    remember(instance, full)
    with HostileApi() as api, client(instance, api.url(), rate_limit=10) as user_api:
        assert user_api.probe(seed=DAY) is None
    assert window_of(instance) == full


def test_to_wait_for_the_limit_takes_nothing_of_the_time_for_a_page(instance: dg.DagsterInstance) -> None:
    settings = {"rate_limit": 3, "rate_window_seconds": 1, "total_seconds": 0.9, "attempt_seconds": 0.5}
    with HostileApi() as api, client(instance, api.url(), **settings) as user_api:
        api.plan(*[answers("503 Service Unavailable")] * 2)
        began = time.monotonic()
        assert user_api.page(seed=DAY, page=1, results=3) == hostile_api.page(DAY, 1, 3)
        assert time.monotonic() - began > 2
        assert len(api.asked) == 3


def test_a_page_that_waits_for_the_limit_ends_when_the_run_stops(instance: dg.DagsterInstance) -> None:
    stopping = threading.Event()
    with HostileApi() as api, client(instance, api.url(), rate_limit=3) as user_api:
        user_api.page(seed=DAY, page=1, results=3)
        soon = threading.Timer(0.2, stopping.set)
        soon.start()
        with pytest.raises(ApiUnavailableError, match="not asked: the run is stopping"):
            user_api.page(seed=DAY, page=2, results=3, stopping=stopping)
        soon.join()
        assert len(api.asked) == 1


@pytest.mark.parametrize(
    ("url", "variable", "field", "allowed"),
    [
        ("https://randomuser.me/api/1.4/", None, None, 20_000),
        ("https://key:secret@WWW.RandomUser.me:443/api", None, None, 20_000),
        ("http://api.randomuser.me./", None, None, 20_000),
        ("https://randomuser.me.example.com/api", None, None, 0),
        ("https://notrandomuser.me/api", None, None, 0),
        ("https://example.com/randomuser.me", None, None, 0),
        ("http://[::1/randomuser.me", None, None, 0),
        (None, None, None, 0),
        ("https://randomuser.me/api/1.4/", "", None, 20_000),
        ("https://randomuser.me/api/1.4/", "0", None, 0),
        ("https://example.com/", "500", None, 500),
        (None, "500", None, 500),
        ("https://randomuser.me/api/1.4/", "500", 0, 0),
        ("https://example.com/", "500", 7, 7),
    ],
)
def test_the_limit_is_that_of_the_field_or_the_variable_or_the_public_api(
    monkeypatch: pytest.MonkeyPatch, url: str | None, variable: str | None, field: int | None, allowed: int
) -> None:
    monkeypatch.delenv("USER_API_RATE_LIMIT", raising=False)
    monkeypatch.delenv("USER_API_URL", raising=False)
    if variable is not None:
        monkeypatch.setenv("USER_API_RATE_LIMIT", variable)
    assert UserApi(url=url, rate_limit=field).users_allowed == allowed
    monkeypatch.setenv("USER_API_URL", url or "")
    assert UserApi(rate_limit=field).users_allowed == allowed


@pytest.mark.parametrize("variable", ["-1", "many", "20,000", "0.5"])
def test_a_limit_that_is_none_fails_the_run_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance, variable: str
) -> None:
    monkeypatch.setenv("USER_API_RATE_LIMIT", variable)
    with (
        pytest.raises(dg.Failure, match=f"USER_API_RATE_LIMIT is '?{variable}'?; it has to be a whole number"),
        client(instance, "http://127.0.0.1:9/"),
    ):
        pass


# A catch-up


LIMIT, WINDOW, AT_ONCE = 20_000, 1.0, 2
FIRST = dt.date(2023, 1, 1)
RUNS, DAYS_OF_A_RUN, USERS = 4, 15, 5_000


class Ledger:
    """Keeps the account of a server; the request after so many waits until it is released."""

    def __init__(self, hold_after: int) -> None:
        self.spans: list[Span] = []
        self.held: dict[str, str] = {}
        self.release = threading.Event()
        self._hold_after = hold_after
        self._asked = 0
        self._lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        began = time.monotonic()
        with self._lock:
            self._asked += 1
            if self._asked == self._hold_after:
                self.held.update(exchange.query)
        if self.held == exchange.query:
            self.release.wait(30)
        # The API takes its time; requests would hardly meet each other otherwise.
        exchange.over.wait(0.05)
        body = exchange.body()
        # Counted by now: when this thread gets to note it after the last byte, the client may long have gone on.
        self.spans.append(Span(began, time.monotonic(), int(exchange.query["results"])))
        exchange.send(hostile_api.head(Content_Length=len(body)) + body)


class Catchup:
    """Runs of `raw_user` in a checkout, each in a process of its own."""

    def __init__(self, checkout: Checkout, url: str, database: str) -> None:
        self._checkout = checkout
        self._environment = {
            "DAGSTER_HOME": str(checkout.folder),
            "DAGSTER_POSTGRES_URL": database,
            "USER_API_URL": url,
            "USER_API_RATE_LIMIT": str(LIMIT),
            "USERS_PER_DAY": str(USERS),
            "USERS_FILES_URL": str(checkout.folder / "days"),
        }
        api = {"rate_window_seconds": WINDOW, "concurrency": AT_ONCE, "attempt_seconds": 5, "backoff_seconds": 0.1}
        self._config = json.dumps({"resources": {"user_api": {"config": api}}})

    def start(self, run: int) -> "subprocess.Popen[bytes]":
        first, last = day(run * DAYS_OF_A_RUN), day((run + 1) * DAYS_OF_A_RUN - 1)
        command = (
            f"exec dagster asset materialize -m user_processing --select raw_user --partition-range {first}...{last}"
        )
        with (self._checkout.folder / f"{run}.log").open("ab") as log:
            return subprocess.Popen(
                ["bash", "-c", f"{command} --config-json '{self._config}'"],
                cwd=self._checkout.folder,
                env=self._checkout.environment | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def days(self) -> list[str]:
        """The days that have come whole."""
        return sorted(path.parent.name for path in self._checkout.folder.glob("days/*/pages.json"))


def day(number: int) -> str:
    return str(FIRST + dt.timedelta(days=number))


@pytest.mark.faults
@pytest.mark.xdist_group("rate")
def test_a_catch_up_in_four_runs_of_which_one_is_killed_never_asks_for_more_than_is_allowed(
    server: Path, tmp_path: Path
) -> None:
    ledger = Ledger(hold_after=20)
    checkout = Checkout(tmp_path)
    with new_instance(server, tmp_path) as instance, HostileApi() as api, contextlib.ExitStack() as stack:
        api.always = ledger
        database = instance.run_storage.postgres_url  # type: ignore[attr-defined]
        catchup = Catchup(checkout, api.url(), database)
        processes = [catchup.start(run) for run in range(RUNS)]
        for process in processes:
            stack.callback(end, process)
        wait_for(lambda: ledger.held)
        unlucky = (dt.date.fromisoformat(ledger.held["seed"]) - FIRST).days // DAYS_OF_A_RUN
        os.killpg(processes[unlucky].pid, signal.SIGKILL)
        processes[unlucky].wait()
        ledger.release.set()
        again = catchup.start(unlucky)
        stack.callback(end, again)
        for process in [*processes, again]:
            code = process.wait(90)
            assert code == (-signal.SIGKILL if process is processes[unlucky] else 0), catchup.days()
    assert api.faults == []
    assert catchup.days() == [day(number) for number in range(RUNS * DAYS_OF_A_RUN)]
    assert len(ledger.spans) >= RUNS * DAYS_OF_A_RUN
    assert most_at_once(ledger.spans) == AT_ONCE
    assert 2 * USERS < most_users(ledger.spans, WINDOW) <= LIMIT


def end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

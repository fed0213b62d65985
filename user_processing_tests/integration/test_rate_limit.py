"""What the API allows is kept to by all runs of a deployment together, whatever becomes of them."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg
import psycopg2
import pytest

from user_processing.source.rate_limit import RateLimit, StoppingError
from user_processing.source.user_api import ApiUnavailableError, UserApi
from user_processing.store import tables
from user_processing.store.postgres import Postgres
from user_processing_tests.support import hostile_api
from user_processing_tests.support.account import Span, most_at_once, most_users
from user_processing_tests.support.checkout import wait_for
from user_processing_tests.support.hostile_api import Exchange, HostileApi, answers
from user_processing_tests.support.recorded_api import Row

DAY = "2023-01-01"
FIVE_MINUTES = 300.0

Query = Callable[..., list[Row]]


class Said:
    """A log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def query(database: str, query: Query) -> Query:
    """Runs a statement on the users' database, whose tables are there."""
    with psycopg2.connect(database) as connection:
        tables.create_tables(connection)
    connection.close()
    return query


class Window:
    """What the users' database knows of the requests."""

    def __init__(self, database: str, query: Query) -> None:
        self.database = database
        self.query = query

    def users(self) -> int:
        return int(self.query("SELECT coalesce(sum(users), 0) FROM user_api_requests")[0][0])

    def in_progress(self) -> list[int]:
        """Users of each request that has not ended."""
        rows = self.query("SELECT users FROM user_api_requests WHERE ended > clock_timestamp() ORDER BY id")
        return [users for (users,) in rows]

    def remember(self, *requests: tuple[int, float, float]) -> None:
        """Requests of earlier runs: users, and how many seconds ago they began and ended."""
        for users, began, ended in requests:
            self.query(
                "INSERT INTO user_api_requests (users, began, ended) SELECT %s, now - %s * interval '1 s', "
                "now - %s * interval '1 s' FROM clock_timestamp() AS now",
                [users, began, ended],
            )

    def limiter(self, *, users: int = 10, seconds: float = FIVE_MINUTES, requests: int = 4) -> tuple[RateLimit, Said]:
        """As a run of its own would have it."""
        said, postgres = Said(), Postgres(url=self.database)
        return RateLimit(postgres.transaction, users=users, seconds=seconds, requests=requests, log=said), said


@pytest.fixture
def window(database: str, query: Query) -> Window:
    return Window(database, query)


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
    ("earlier", "users", "seconds"),
    [
        ([(5, 210, 200)], 6, 100),
        ([(5, 210, 200), (5, 110, 100)], 5, 100),
        ([(5, 110, 100), (5, 210, 200)], 5, 100),
        ([(5, 210, 200), (5, 110, 100)], 6, 200),
        ([(5, 210, 200), (5, 110, 100)], 10, 200),
        ([(5, 500, 400), (7, 110, 100)], 4, 200),
        ([(7, 10, -50)], 4, 350),
    ],
)
def test_a_page_waits_until_enough_has_left_the_window(
    window: Window, earlier: list[tuple[int, float, float]], users: int, seconds: float
) -> None:
    window.remember(*earlier)
    limit, said = window.limiter()
    stopping = threading.Event()
    with in_thread(pytest.raises, StoppingError, ask, limit, users, stopping):
        wait_for(lambda: said.lines)
        stopping.set()
    (waits,) = re.findall(r"The next page waits (\d+) s\.", said.lines[0])
    assert seconds - 20 < int(waits) <= seconds


def test_a_request_counts_until_the_window_has_passed_since_its_end(window: Window) -> None:
    window.remember((7, 400, 299), (7, 400, 301))
    ask(window.limiter()[0], 3)
    assert window.users() == 10


def test_a_clock_that_was_set_back_makes_nobody_wait_for_longer_than_a_window(window: Window) -> None:
    window.remember((10, -(10**6), -(10**6)))
    limit, _ = window.limiter(seconds=0.5)
    with in_thread(ask, limit, 1):
        pass


# The threads of a run


def test_threads_keep_to_the_limit_and_none_is_left_behind(window: Window) -> None:
    seconds, spans = 0.3, []
    limit, _ = window.limiter(users=10, seconds=seconds, requests=3)

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


def test_a_large_page_is_not_overtaken(window: Window) -> None:
    limit, _ = window.limiter(users=10, seconds=0.2)
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


def test_a_page_that_is_larger_than_the_limit_goes_when_nothing_else_was_asked(window: Window) -> None:
    limit, said = window.limiter(users=10)
    ask(limit, 5000)
    stopping = threading.Event()
    with in_thread(pytest.raises, StoppingError, ask, limit, 1, stopping):
        wait_for(lambda: said.lines)
        stopping.set()


@pytest.mark.parametrize(("users", "goes", "waits"), [(20_000, 19_900, 1), (1_000, 950, 1), (100, 95, 1), (10, 10, 1)])
def test_a_little_is_left_for_the_probes(window: Window, users: int, goes: int, waits: int) -> None:
    limit, said = window.limiter(users=users)
    ask(limit, goes)
    stopping = threading.Event()
    with in_thread(pytest.raises, StoppingError, ask, limit, waits, stopping):
        wait_for(lambda: said.lines)
        stopping.set()


def test_a_run_that_stops_waits_no_longer_and_says_so_once(window: Window) -> None:
    limit, said = window.limiter(users=10)
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
        r"8 users were requested in the last 300 s; the limit is 10\. The next page waits (29[0-9]|300) s\.",
        said.lines[0],
    )
    ask(limit, 2)


def test_a_request_that_fails_counts(window: Window) -> None:
    limit, _ = window.limiter()
    with pytest.raises(ZeroDivisionError), limit.request(7, seconds=60, stopping=threading.Event()):
        raise ZeroDivisionError
    assert (window.in_progress(), window.users()) == ([], 7)


# The runs of a deployment


def test_what_is_in_progress_is_known_before_it_is_sent(window: Window) -> None:
    limit, _ = window.limiter()
    with limit.request(7, seconds=60, stopping=threading.Event()):
        assert window.in_progress() == [7]
        ((lease,),) = window.query("SELECT extract(epoch FROM ended - began)::float FROM user_api_requests")
        assert abs(lease - 90) < 1
    assert (window.in_progress(), window.users()) == ([], 7)


@pytest.mark.parametrize("killed", [True, False])
def test_what_an_earlier_run_asked_for_counts(window: Window, *, killed: bool) -> None:
    earlier, _ = window.limiter()
    request = earlier.request(7, seconds=60, stopping=threading.Event())
    request.__enter__()
    if not killed:
        request.__exit__(None, None, None)
    limit, said = window.limiter()
    ask(limit, 3)
    stopping = threading.Event()
    with in_thread(pytest.raises, StoppingError, ask, limit, 1, stopping):
        wait_for(lambda: said.lines)
        stopping.set()
    assert "10 users were requested" in said.lines[0]


def test_requests_at_once_are_those_of_all_runs(window: Window) -> None:
    limits = [window.limiter(users=1000, requests=2)[0] for _ in range(2)]
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as in_progress:
            for limit in limits:
                in_progress.enter_context(limit.request(1, seconds=60, stopping=threading.Event()))
            third = stack.enter_context(in_thread(ask, limits[0], 1))
            wait_for(waiting(limits[0], 1))
            third.join(0.6)  # it looks each 0.5 s
            assert third.is_alive()
    assert window.users() == 3


def test_a_killed_runs_request_is_over_when_its_lease_is(window: Window) -> None:
    window.remember((1, 90, 0))
    with window.limiter(requests=1)[0].request(1, seconds=60, stopping=threading.Event()):
        assert window.in_progress() == [1]


def test_runs_that_ask_at_the_same_moment_never_get_more_than_there_is(window: Window) -> None:
    limits = [window.limiter(users=40)[0] for _ in range(4)]
    stopping = threading.Event()
    went = []

    def work(limit: RateLimit) -> None:
        with contextlib.suppress(StoppingError):
            while True:
                with limit.request(1, seconds=60, stopping=stopping):
                    went.append(1)

    with ThreadPoolExecutor(len(limits)) as pool:
        futures = [pool.submit(work, limit) for limit in limits]
        wait_for(lambda: window.users() == 38)  # two are left for the probes
        stopping.set()
        for future in futures:
            future.result()
    assert (len(went), window.users(), window.in_progress()) == (38, 38, [])


# The client


@contextlib.contextmanager
def client(url: str, **settings: Any) -> Iterator[UserApi]:  # noqa: ANN401
    patience = {"attempts": 3, "backoff_seconds": 0, "rate_limit_seconds": 0.01, **settings}
    with (
        dg.build_init_resource_context() as context,
        UserApi(url=url, **patience).yield_for_execution(context) as user_api,
    ):
        yield user_api


def limit_of(window: Window, user_api: UserApi) -> RateLimit:
    limit = user_api.limit(Postgres(url=window.database).transaction)
    assert limit
    return limit


def test_each_attempt_is_written_before_it_is_sent(window: Window) -> None:
    seen = []

    def refuse(exchange: Exchange) -> None:
        seen.append((window.users(), window.in_progress()))
        answers("503 Service Unavailable")(exchange)

    with HostileApi() as api, client(api.url(), rate_limit=100, attempt_seconds=10) as user_api:
        api.always = refuse
        with pytest.raises(ApiUnavailableError, match="failed 3 times"):
            user_api.page(seed=DAY, page=1, results=3, limit=limit_of(window, user_api))
    assert seen == [(3, [3]), (6, [3]), (9, [3])]
    assert (window.in_progress(), window.users()) == ([], 9)


def test_without_a_limit_nothing_is_written(window: Window) -> None:
    with HostileApi() as api, client(api.url()) as user_api:
        assert user_api.limit(Postgres(url=window.database).transaction) is None
        user_api.page(seed=DAY, page=1, results=3)
    assert window.users() == 0


def test_probes_do_not_count_and_do_not_wait(window: Window) -> None:
    window.remember((10, 1, 0))
    with HostileApi() as api, client(api.url(), rate_limit=10) as user_api:
        assert user_api.probe(seed=DAY).up
    assert window.users() == 10


def test_to_wait_for_the_limit_takes_nothing_of_the_time_for_a_page(window: Window) -> None:
    settings = {"rate_limit": 3, "rate_window_seconds": 1, "total_seconds": 0.9, "attempt_seconds": 0.5}
    with HostileApi() as api, client(api.url(), **settings) as user_api:
        api.plan(*[answers("503 Service Unavailable")] * 2)
        began = time.monotonic()
        body = user_api.page(seed=DAY, page=1, results=3, limit=limit_of(window, user_api))
        assert body == hostile_api.page(DAY, 1, 3)
        assert time.monotonic() - began > 2
        assert len(api.asked) == 3


def test_a_page_that_waits_for_the_limit_ends_when_the_run_stops(window: Window) -> None:
    stopping = threading.Event()
    with HostileApi() as api, client(api.url(), rate_limit=3) as user_api:
        limit = limit_of(window, user_api)
        user_api.page(seed=DAY, page=1, results=3, limit=limit)
        soon = threading.Timer(0.2, stopping.set)
        soon.start()
        with pytest.raises(ApiUnavailableError, match="not asked: the run is stopping"):
            user_api.page(seed=DAY, page=2, results=3, limit=limit, stopping=stopping)
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
        ("http://[::1]/randomuser.me", None, None, 0),
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
    assert UserApi(url=url, rate_limit=field).rate_limit_users == allowed
    monkeypatch.setenv("USER_API_URL", url or "")
    assert UserApi(rate_limit=field).rate_limit_users == allowed


@pytest.mark.parametrize("variable", ["-1", "many", "20,000", "0.5"])
def test_a_limit_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("USER_API_RATE_LIMIT", variable)
    with pytest.raises(
        dg.Failure, match=f"USER_API_RATE_LIMIT is '{variable}'; it has to be a whole number, 0 or more"
    ):
        _ = UserApi().rate_limit_users

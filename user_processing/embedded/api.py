"""The API stand-in: what randomuser.me promises its clients, over real HTTP, on this machine.

The contract and nothing else: which questions are understood, what is silently corrected, how an answer and
a refusal look. Who the users are is decided in `people`. It runs in a thread of a process that has no API
configured, or by itself: `user-processing api`.
"""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from secrets import token_hex

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from user_processing.embedded import people

VERSION = "1.4"
PATHS = (f"/api/{VERSION}/", f"/api/{VERSION}", "/api/", "/api")

MAX_RESULTS = 5_000
MAX_PAGE = 10_000
RATE_LIMIT = 20_000
RATE_WINDOW_SECONDS = 300

# A seed of this length is 16 characters of seed and the two hexadecimal digits of a nationality.
_SEED_WITH_NATIONALITY = 18


class Info(msgspec.Struct):
    """What was understood of a question."""

    seed: str
    results: int
    page: int
    version: str = VERSION


class Page(msgspec.Struct):
    """An answer, its keys in the API's order."""

    results: list[people.Record]
    info: Info


class Refusal(msgspec.Struct):
    """Every answer that is not a page."""

    error: str


class RateLimit:
    """Counts the users asked for per client address, in windows of five minutes.

    As in the API the windows are the same for everybody, and an address that is below the limit gets its
    page, however many users that is.

    Args:
        users: The limit; None for no limit.
        clock: Seconds, on a clock that never goes back.
    """

    def __init__(self, users: int | None, clock: Callable[[], float]) -> None:
        self._users = users
        self._clock = clock
        self._asked: Counter[str] = Counter()
        self._window_began = clock()
        self._lock = threading.Lock()

    def charge(self, address: str, users: int) -> int | None:
        """Counts `users` for `address`, unless the limit was reached before; returns what it had asked for then."""
        if self._users is None:
            return None
        with self._lock:
            now = self._clock()
            if now - self._window_began >= RATE_WINDOW_SECONDS:
                self._asked.clear()
                self._window_began = now
            if self._asked[address] >= self._users:
                return self._asked[address]
            self._asked[address] += users
            return None


def application(*, rate_limit: int | None = None, clock: Callable[[], float] = time.monotonic) -> Starlette:
    """The API as an ASGI application.

    Args:
        rate_limit: Users per client address in five minutes, `RATE_LIMIT` in the API; None for no limit.
        clock: Seconds, on a clock that never goes back.
    """
    limit = RateLimit(rate_limit, clock)

    # Not async: a page of 5,000 is 0.1 s of computing, and Starlette runs a plain function in a worker
    # thread, so that other clients are heard meanwhile.
    def users(request: Request) -> Response:
        question = request.query_params
        results = _number_within(question.get("results"), MAX_RESULTS)
        asked_before = limit.charge(request.client.host if request.client else "", results)
        if asked_before is not None:
            message = (
                f"Whoa, ease up there cowboy. You've requested {asked_before} users in the last five "
                "minutes. Help us keep this service free and spare some bandwidth for other users please :)"
            )
            return _json(Refusal(message), status=429)
        try:
            page = page_of(question, results)
        except KeyError:
            return _json(Refusal("Uh oh, something has gone wrong."), status=500)
        return _json(page)

    return Starlette(routes=[Route(path, users, methods=["GET"]) for path in PATHS])


def page_of(question: Mapping[str, str], results: int) -> Page:
    """The page that answers `question`, with as many users as `results` says.

    Raises:
        KeyError: a seed of 18 characters does not end in the digits of a nationality that `people` has.
    """
    seed = question.get("seed") or token_hex(8)
    page = _number_within(question.get("page"), MAX_PAGE)
    asked = question.get("inc") or ",".join(people.FIELDS)
    info = Info(seed=seed, results=results, page=page)
    nationality = None
    if len(seed) == _SEED_WITH_NATIONALITY:
        seed, nationality = seed[:-2], seed[-2:].lower()
        info.seed += nationality  # the API tells it twice
    users = people.draw(
        seed=seed,
        page=page,
        results=results,
        fields={name.strip().lower() for name in asked.split(",")},
        nationality=nationality,
    )
    return Page(users, info)


def _number_within(text: str | None, highest: int) -> int:
    """The number, or 1 if it is missing, out of range or none: the API does not complain."""
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > len(str(highest)):
        return 1
    return int(text) if 1 <= int(text) <= highest else 1


def _json(body: Page | Refusal, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, headers={"content-type": "application/json; charset=utf-8"})


@contextmanager
def serve(
    port: int = 0,
    *,
    host: str = "127.0.0.1",
    rate_limit: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[str]:
    """Serves the API in a thread of this process within the block; yields its base URL.

    At the end, the answers under way are finished, for two seconds at most.

    Args:
        port: 0 for any that is free.
        host: The address to listen on.
        rate_limit: Users per client address in five minutes; None for no limit.
        clock: Seconds, on a clock that never goes back.

    Raises:
        OSError: the port is taken or not allowed.
    """
    # Bound here and not in the thread: a port that is taken is the caller's OSError, and once the socket
    # listens, a client that comes before uvicorn is up waits in its queue instead of being refused.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    server = uvicorn.Server(
        uvicorn.Config(
            application(rate_limit=rate_limit, clock=clock),
            access_log=False,
            lifespan="off",
            log_config=None,  # the logging of the process around it stays as it is
            log_level="warning",
            timeout_graceful_shutdown=2,
            ws="none",
        )
    )
    thread = threading.Thread(target=server.run, args=([listener],), name="user-api-stand-in", daemon=True)
    thread.start()
    try:
        yield f"http://{in_url(host)}:{listener.getsockname()[1]}/api/{VERSION}/"
    finally:
        server.should_exit = True
        thread.join()


def in_url(host: str) -> str:
    """The host as it stands before a port."""
    return f"[{host}]" if ":" in host else host

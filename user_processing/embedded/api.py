"""The API stand-in: what randomuser.me promises its clients, over real HTTP, on this machine.

The contract and nothing else: which questions are understood, what is silently corrected, how an answer and
a refusal look. Who the users are is decided in `people`. It runs in a thread of a process that has no API
configured (`serve`), or by itself: `python -m user_processing.embedded.api --port 8000`.
"""

import argparse
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from secrets import token_hex
from types import TracebackType
from typing import Self

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
_NATIONALITY_OF_DIGITS = {f"{number:02x}": code for number, code in enumerate(people.NATIONALITIES)}


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


class RateLimitExceededError(Exception):
    """An address has asked for too many users in this window.

    Args:
        users: How many it has asked for.
    """

    def __init__(self, users: int) -> None:
        self.users = users
        super().__init__(f"{users} users asked for")


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

    def charge(self, address: str, users: int) -> None:
        """Counts `users` for `address`.

        Raises:
            RateLimitExceededError: the limit was reached before.
        """
        if self._users is None:
            return
        with self._lock:
            now = self._clock()
            if now - self._window_began >= RATE_WINDOW_SECONDS:
                self._asked.clear()
                self._window_began = now
            if self._asked[address] >= self._users:
                raise RateLimitExceededError(self._asked[address])
            self._asked[address] += users


def application(*, rate_limit: int | None = None, clock: Callable[[], float] = time.monotonic) -> Starlette:
    """The API as an ASGI application.

    Args:
        rate_limit: Users per client address in five minutes, `RATE_LIMIT` in the API; None for no limit.
        clock: Seconds, on a clock that never goes back.
    """
    limit = RateLimit(rate_limit, clock)

    # Not async: a page of 5,000 is 0.15 s of computing, and Starlette runs a plain function in a worker
    # thread, so that other clients are heard meanwhile.
    def users(request: Request) -> Response:
        question = request.query_params
        results = _number_within(question.get("results"), MAX_RESULTS)
        try:
            limit.charge(request.client.host if request.client else "", results)
        except RateLimitExceededError as exceeded:
            message = (
                f"Whoa, ease up there cowboy. You've requested {exceeded.users} users in the last five "
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
        KeyError: a seed of 18 characters does not end in the digits of a nationality.
    """
    seed = question.get("seed") or token_hex(8)
    page = _number_within(question.get("page"), MAX_PAGE)
    asked = question.get("inc") or ",".join(people.FIELDS)
    info = Info(seed=seed, results=results, page=page)
    nationality = None
    if len(seed) == _SEED_WITH_NATIONALITY:
        seed, digits = seed[:-2], seed[-2:].lower()
        nationality = _NATIONALITY_OF_DIGITS[digits]
        info.seed += digits  # the API tells them twice
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


class RunningApi:
    """The API on a port of this machine, in a thread of this process. Close it, or use it in `with`.

    Attributes:
        url: The base address, e.g. `http://127.0.0.1:40123/api/1.4/`.
    """

    def __init__(self, app: Starlette, host: str, port: int) -> None:
        # Bound here and not in the thread: a port that is taken is the caller's OSError, and once the socket
        # listens, a client that comes before uvicorn is up waits in its queue instead of being refused.
        listener = socket.create_server((host, port), backlog=2048)
        self.url = f"http://{host}:{listener.getsockname()[1]}/api/{VERSION}/"
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                access_log=False,
                lifespan="off",
                log_config=None,  # the logging of the process around it stays as it is
                log_level="warning",
                timeout_graceful_shutdown=2,
                ws="none",
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="user-api-stand-in", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Finishes the answers under way, for two seconds at most, and frees the port."""
        self._server.should_exit = True
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(
    port: int = 0,
    *,
    host: str = "127.0.0.1",
    rate_limit: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RunningApi:
    """Starts the API in a daemon thread; it can be asked as soon as this returns.

    Args:
        port: 0 for any that is free.
        host: The address to listen on.
        rate_limit: Users per client address in five minutes; None for no limit.
        clock: Seconds, on a clock that never goes back.

    Raises:
        OSError: the port is taken or not allowed.
    """
    return RunningApi(application(rate_limit=rate_limit, clock=clock), host, port)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves the API until Ctrl-C or SIGTERM. Exits with 1 if it cannot listen on the port."""
    parser = argparse.ArgumentParser(
        prog="python -m user_processing.embedded.api",
        description="A stand-in for the randomuser.me API, on this machine.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for any (%(default)s)")
    parser.add_argument(
        "--rate-limit",
        type=int,
        default=RATE_LIMIT,
        metavar="USERS",
        help="users per client address in five minutes, 0 for no limit (%(default)s)",
    )
    chosen = parser.parse_args(arguments)

    # Blocked before the server's threads exist, which inherit it: the signals then wait for sigwait below.
    stop = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    try:
        api = serve(chosen.port, host=chosen.host, rate_limit=chosen.rate_limit or None)
    except (OSError, OverflowError) as error:
        parser.exit(1, f"Cannot listen on {chosen.host}:{chosen.port}: {error}\n")
    with api:
        print(f"Users at {api.url}", flush=True)  # noqa: T201 - a command says where it is
        signal.sigwait(stop)


if __name__ == "__main__":
    main()

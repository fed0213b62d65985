"""The users' HTTP API: one page asked for, checked and returned as it came.

How often it is asked for, and how fast, is decided here; what counts as an answer, in `exchange`. Failures have two
types: `ApiUnavailableError`, the API could not answer and may later, and `ApiContractError`, it answered, and asking
again would change nothing.
"""

import contextlib
import threading
import time
from collections.abc import Generator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import dagster as dg
import tenacity
from pydantic import Field, PrivateAttr

from user_processing import settings
from user_processing.columns import INCLUDED
from user_processing.days.work import OutageError, PermanentError
from user_processing.embedded import api as stand_in
from user_processing.source import contract
from user_processing.source.exchange import Exchange, TransientError
from user_processing.source.rate_limit import RateLimit, StoppingError, Transaction
from user_processing.source.redaction import without_secrets
from user_processing.source.transport import DeadlineSession
from user_processing.urls import check_http_url

_PROBE_SECONDS = 10.0
_PUBLIC_HOST = "randomuser.me"
_PUBLIC_LIMIT = 20_000  # users for each address in five minutes


class ApiUnavailableError(OutageError):
    """The API did not answer, or said that it cannot now, each time it was asked."""


class ApiContractError(PermanentError):
    """The API answered something that is no page of users; the same request would get the same answer."""


class Probe(NamedTuple):
    """Whether the API answers."""

    up: bool
    latency: float
    """Seconds until the answer, or until it was given up."""

    problem: str | None
    """What came in the place of a valid answer."""


class UserApi(dg.ConfigurableResource[Any]):
    """A randomuser-compatible API. Every request is bounded in bytes, attempts and total time."""

    url: str | None = Field(
        default=None,
        description="Base URL, such as https://randomuser.me/api/1.4/. Without it: USER_API_URL, or else a stand-in "
        "in this process.",
    )
    users_per_day: int | None = Field(
        default=None, description="Users to ask for where a run does not say. Without it: USERS_PER_DAY, or else 1."
    )
    concurrency: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Pages asked for at once, by a run; where a rate limit is in force, by all runs together.",
    )
    rate_limit: int | None = Field(
        default=None,
        ge=0,
        description="Users that all runs together may ask for in `rate_window_seconds`; 0: no limit. "
        "Without it: USER_API_RATE_LIMIT, or else 20,000 for randomuser.me and no limit for any other API.",
    )
    rate_window_seconds: float = Field(default=300.0, gt=0, description="The time that the rate limit is for.")
    attempts: int = Field(default=6, ge=1, description="Times a page is asked for before the day fails.")
    backoff_seconds: float = Field(
        default=1.0,
        ge=0,
        description="Pause after the first failed attempt; doubles each time, up to 60 s, plus jitter.",
    )
    rate_limit_seconds: float = Field(
        default=60.0, ge=0, description="Pause after a 429 that does not say how long. Also the longest one obeyed."
    )
    connect_seconds: float = Field(default=10.0, gt=0, description="Time for a connection to be made.")
    attempt_seconds: float = Field(default=60.0, gt=0, description="Time for one attempt, from request to last byte.")
    total_seconds: float = Field(
        default=600.0,
        gt=0,
        description="Time for a page with all its attempts and pauses; to wait for the rate limit takes none of it.",
    )
    largest_body: int = Field(default=64 * 1024 * 1024, gt=0, description="Bytes after which a body is given up.")

    _exchange: Exchange = PrivateAttr()
    _base: str = PrivateAttr()
    _log: Any = PrivateAttr(default=None)

    @contextlib.contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["UserApi"]:
        """Keep connections open for as long as the run lasts; start the stand-in where there is no URL."""
        self._log = context.log
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(DeadlineSession(self.concurrency, self.connect_seconds))
            url = self._url()
            # Neither a proxy nor ~/.netrc has a say in what stays inside this process.
            session.trust_env = url is not None
            self._base = url or stack.enter_context(stand_in.serve())
            self._exchange = Exchange(
                session, self._base, largest_body=self.largest_body, longest_pause=self.rate_limit_seconds
            )
            yield self

    @property
    def address(self) -> str:
        """The base URL, without user, password and query, for people to read."""
        url = self._url()
        return without_secrets(url, {}) if url else "the embedded stand-in. Set USER_API_URL to use another."

    @property
    def users_requested(self) -> int:
        """Users to ask for where a run does not say."""
        return settings.load().users_per_day if self.users_per_day is None else self.users_per_day

    @property
    def rate_limit_users(self) -> int:
        """Users that all runs together may ask for in `rate_window_seconds`; 0: no limit.

        Raises:
            SettingsError: the variable holds no such number.
        """
        if self.rate_limit is not None:
            return self.rate_limit
        chosen = settings.load().user_api_rate_limit
        return (_PUBLIC_LIMIT if _is_public(self._url()) else 0) if chosen is None else chosen

    def _url(self) -> str | None:
        if not self.url:
            return settings.load().service("USER_API_URL")
        return settings.checked_field(self.url, check_http_url, resource="user_api")

    def limit(self, transaction: Transaction) -> RateLimit | None:
        """What keeps the pages of all runs within the API's limit; None where there is no limit.

        Args:
            transaction: opens a transaction on the users' database, where requests are counted.

        Raises:
            SettingsError: the variable holds no such number.
        """
        users = self.rate_limit_users
        if not users:
            return None
        return RateLimit(
            transaction, users=users, seconds=self.rate_window_seconds, requests=self.concurrency, log=self._log
        )

    def page(
        self,
        *,
        seed: str,
        page: int,
        results: int,
        limit: RateLimit | None = None,
        stopping: threading.Event | None = None,
    ) -> bytes:
        """Fetch one page of users: the body, byte for byte, known to answer this query.

        Args:
            seed: the day, as YYYY-MM-DD. The same seed gives the same users.
            page: from 1 to 10,000.
            results: users on the page, from 1 to 5,000.
            limit: every attempt waits until it allows it.
            stopping: when set, no further attempt is made.

        Raises:
            ApiUnavailableError: timeouts, connection errors, truncated bodies, 5xx or 429, until attempts or time ran
                out.
            ApiContractError: any other answer that is not this page, at once.
        """
        query = _query(seed=seed, page=page, results=results)
        shown = without_secrets(self._base, query)
        stopping = stopping or threading.Event()
        begun = time.monotonic()  # later by what was waited for the rate limit

        def attempt() -> bytes:
            nonlocal begun
            seconds = min(self.attempt_seconds, begun + self.total_seconds - time.monotonic())
            with self._allowed(limit, results, seconds, stopping) as waited:
                begun += waited
                return self._exchange.page(query, seconds)

        enough = tenacity.stop_any(tenacity.stop_after_attempt(self.attempts), tenacity.stop_when_event_set(stopping))

        def give_up(state: tenacity.RetryCallState) -> bool:
            return enough(state) or time.monotonic() - begun + state.upcoming_sleep >= self.total_seconds

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=give_up,
            wait=self._pause,
            sleep=tenacity.sleep_using_event(stopping),
            before_sleep=lambda state: self._say(shown, state),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except TransientError as error:
            tried = retrying.statistics.get("attempt_number", 1)
            elapsed = time.monotonic() - begun
            raise ApiUnavailableError(
                f"GET {shown} failed {tried} times in {elapsed:.0f} s, the last time: {error}"
            ) from None
        except contract.ContractError as error:
            raise ApiContractError(f"GET {shown}: {error}") from None

    def probe(self, *, seed: str) -> Probe:
        """Ask once for one user, and take no longer than 10 s over it; only the name look-up is not counted."""
        started = time.monotonic()
        problem = None
        try:
            self._exchange.page(_query(seed=seed, page=1, results=1), _PROBE_SECONDS)
        except (TransientError, contract.ContractError) as error:
            problem = str(error)
        return Probe(problem is None, time.monotonic() - started, problem)

    @contextlib.contextmanager
    def _allowed(
        self, limit: RateLimit | None, results: int, seconds: float, stopping: threading.Event
    ) -> Generator[float]:
        """A request that the rate limit allows; yields the seconds waited for that.

        Raises:
            TransientError: the run stops.
        """
        message = "not asked: the run is stopping"
        if stopping.is_set():
            raise TransientError(message)
        request = limit.request(results, seconds=seconds, stopping=stopping) if limit else contextlib.nullcontext(0.0)
        try:
            with request as waited:
                yield waited
        except StoppingError:
            raise TransientError(message) from None

    def _pause(self, state: tenacity.RetryCallState) -> float:
        jitter = tenacity.wait_random(max=self.backoff_seconds)
        backoff = tenacity.wait_exponential(multiplier=self.backoff_seconds, max=60) + jitter
        error = state.outcome.exception() if state.outcome else None
        asked = error.pause if isinstance(error, TransientError) else None
        return backoff(state) if asked is None else max(asked, self.backoff_seconds)

    def _say(self, shown: str, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        self._log.warning(
            f"GET {shown}: {error}. Attempt {state.attempt_number} of {self.attempts}; again in {pause:.1f} s."
        )


def _query(*, seed: str, page: int, results: int) -> dict[str, str]:
    return {"results": str(results), "seed": seed, "page": str(page), "inc": INCLUDED}


def _is_public(url: str | None) -> bool:
    """Whether it is the API that allows everybody as many users."""
    host = urlsplit(url or "").hostname or ""
    return f".{host.rstrip('.')}".endswith(f".{_PUBLIC_HOST}")

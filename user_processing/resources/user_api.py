"""The users' HTTP API: one page asked for, checked and returned as it came.

Retries, deadlines, and what counts as an answer live here; what a page holds is for `users`, where it is kept for
`day_files`. Failures have two types: `ApiUnavailableError`, the API could not answer and may later, and
`ApiContractError`, it answered, and asking again would change nothing.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Generator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import dagster as dg
import requests
import tenacity
import urllib3
from pydantic import Field, PrivateAttr
from requests.adapters import HTTPAdapter

from user_processing import users
from user_processing.embedded import api as stand_in

_CHUNK = 256 * 1024  # bytes
_BODY_START = 200  # characters of a body that an error quotes
_TOO_MANY_REQUESTS = 429
_FIRST_SERVER_ERROR = 500
_HTTP_OK = 200
_PROBE_SECONDS = 3.0  # each for connecting, headers and body, of the 10 s that a probe may take


class ApiUnavailableError(dg.Failure):
    """The API did not answer, or said that it cannot now, each time it was asked."""


class ApiContractError(dg.Failure):
    """The API answered something that is no page of users; the same request would get the same answer."""


class _TransientError(Exception):
    """One attempt failed in a way that the next one may not."""

    def __init__(self, detail: str, pause: float | None = None) -> None:
        super().__init__(detail)
        self.pause = pause
        """Seconds that the API asks to be left alone for; None: not said."""


class UserApi(dg.ConfigurableResource[None]):
    """A randomuser-compatible API. Every request is bounded in bytes, attempts and total time."""

    url: str | None = Field(
        default=None,
        description="Base URL, such as https://randomuser.me/api/1.4/. Without it: a stand-in in this process.",
    )
    users_per_day: int = Field(default=1, description="Users to ask for where a run does not say.")
    concurrency: int = Field(default=4, ge=1, le=64, description="Pages asked for at once.")
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
    total_seconds: float = Field(default=600.0, gt=0, description="Time for a page with all its attempts and pauses.")
    largest_body: int = Field(default=64 * 1024 * 1024, gt=0, description="Bytes after which a body is given up.")

    _session: requests.Session = PrivateAttr()
    _base: str = PrivateAttr()
    _log: Any = PrivateAttr(default=None)

    @contextlib.contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["UserApi"]:
        """Keep connections open for as long as the run lasts; start the stand-in where there is no URL."""
        self._log = context.log
        with contextlib.ExitStack() as stack:
            self._session = stack.enter_context(_Session())
            adapter = _Adapter(pool_maxsize=self.concurrency, pool_block=True)
            self._session.mount("http://", adapter)
            self._session.mount("https://", adapter)
            if self.url:
                self._base = self.url
            else:
                # Neither a proxy nor ~/.netrc has a say in what stays inside this process.
                self._session.trust_env = False
                self._base = stack.enter_context(stand_in.serve()).url
            yield self

    @property
    def address(self) -> str:
        """The base URL, without user, password and query, for people to read."""
        return "the embedded stand-in" if self.url is None else _without_secrets(self._base, {})

    def page(self, *, seed: str, page: int, results: int, stopping: threading.Event | None = None) -> bytes:
        """Fetch one page of users: the body, byte for byte, known to answer this query.

        Args:
            seed: the day, as YYYY-MM-DD. The same seed gives the same users.
            page: from 1 to 10,000.
            results: users on the page, from 1 to 5,000.
            stopping: when set, no further attempt is made.

        Raises:
            ApiUnavailableError: timeouts, connection errors, truncated bodies, 5xx or 429 until attempts or time ran out.
            ApiContractError: any other answer that is not this page, at once.
        """
        query = _query(seed=seed, page=page, results=results)
        shown = _without_secrets(self._base, query)
        stopping = stopping or threading.Event()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self.attempts),
                tenacity.stop_before_delay(self.total_seconds),
                tenacity.stop_when_event_set(stopping),
            ),
            wait=self._pause,
            sleep=tenacity.sleep_using_event(stopping),
            before_sleep=lambda state: self._say(shown, state),
            reraise=True,
        )
        try:
            return retrying(self._attempt, query, self.connect_seconds, self.attempt_seconds)
        except _TransientError as error:
            tried = retrying.statistics.get("attempt_number", 1)
            elapsed = retrying.statistics.get("delay_since_first_attempt", 0.0)
            message = f"GET {shown} failed {tried} times in {elapsed:.0f} s, the last time: {error}"
            raise ApiUnavailableError(message) from None
        except users.ContractError as error:
            message = f"GET {shown}: {error}"
            raise ApiContractError(message, allow_retries=False) from None

    def probe(self, *, seed: str) -> str | None:
        """Ask once for one user, and take no longer than 10 s over it.

        Returns:
            None if a valid answer came, or else what was seen instead.
        """
        try:
            self._attempt(_query(seed=seed, page=1, results=1), _PROBE_SECONDS, _PROBE_SECONDS)
        except (_TransientError, users.ContractError) as error:
            return str(error)
        return None

    def _attempt(self, query: Mapping[str, str], connect_seconds: float, seconds: float) -> bytes:
        """One request; connecting, headers, and body each have their time.

        Raises:
            _TransientError: it may go better next time.
            users.ContractError: it will not.
        """
        try:
            with self._session.get(
                self._base, params=query, timeout=(connect_seconds, seconds), stream=True
            ) as response:
                body = self._body(response, seconds)
        except users.ContractError:
            raise
        except requests.exceptions.SSLError as error:
            message = f"TLS: {_cause(error)}"
            raise users.ContractError(message) from None
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError, OSError) as error:
            raise _TransientError(_cause(error)) from None
        except (requests.RequestException, ValueError) as error:
            message = f"cannot be asked for: {_cause(error)}"
            raise users.ContractError(message) from None
        if response.status_code == _TOO_MANY_REQUESTS:
            raise _TransientError(_status(response, body), self._asked_pause(response))
        if response.status_code >= _FIRST_SERVER_ERROR:
            raise _TransientError(_status(response, body))
        if response.status_code != _HTTP_OK:
            raise users.ContractError(_status(response, body))
        try:
            users.check_page(body, seed=query["seed"], page=int(query["page"]), results=int(query["results"]))
        except users.TruncatedError as error:
            raise _TransientError(str(error)) from None
        except users.ContractError as error:
            message = f"{error}. {_status(response, body)}"
            raise users.ContractError(message) from None
        return body

    def _body(self, response: requests.Response, seconds: float) -> bytes:
        """The decoded body, read straight from urllib3: a third of the time of `response.content`."""
        deadline = time.monotonic() + seconds
        chunks: list[bytes] = []
        size = 0
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            chunks.append(chunk)
            size += len(chunk)
            if size > self.largest_body:
                message = f"the body is larger than {self.largest_body:,} bytes"
                raise users.ContractError(message)
            if time.monotonic() > deadline:
                message = f"only {size:,} bytes came in {seconds:g} s"
                raise _TransientError(message)
        return b"".join(chunks)

    def _asked_pause(self, response: requests.Response) -> float:
        """Seconds until the API wants to be asked again, but never more than `rate_limit_seconds`."""
        said = response.headers.get("Retry-After", "")
        seconds = self.rate_limit_seconds
        if said.strip().isdecimal():
            seconds = float(said)
        elif said:
            with contextlib.suppress(ValueError):
                seconds = parsedate_to_datetime(said).timestamp() - time.time()
        return min(max(seconds, 0.0), self.rate_limit_seconds)

    def _pause(self, state: tenacity.RetryCallState) -> float:
        backoff = tenacity.wait_exponential_jitter(initial=self.backoff_seconds, max=60, jitter=self.backoff_seconds)
        error = state.outcome.exception() if state.outcome else None
        asked = error.pause if isinstance(error, _TransientError) else None
        return backoff(state) if asked is None else max(asked, self.backoff_seconds)

    def _say(self, shown: str, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        self._log.warning(
            f"GET {shown}: {error}. Attempt {state.attempt_number} of {self.attempts}; again in {pause:.1f} s."
        )


class _Session(requests.Session):
    """Follows a redirect only on the same host, and never from https down to http."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is None or resp.url is None:
            return None
        here = urlsplit(resp.url)
        there = urlsplit(requests.compat.urljoin(resp.url, target))
        if there.hostname != here.hostname or (here.scheme, there.scheme) == ("https", "http"):
            message = (
                f"HTTP {resp.status_code} redirects from {here.scheme}://{here.hostname} "
                f"to {there.scheme}://{there.hostname}; only the same host is followed"
            )
            raise users.ContractError(message)
        return target


class _HeaderDeadline:
    """Bounds the time until the headers are complete: a socket's timeout starts anew with every byte."""

    sock: Any
    timeout: Any

    def getresponse(self) -> urllib3.HTTPResponse:
        timer = threading.Timer(self.timeout, _hang_up, [self.sock])
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()  # type: ignore[misc,no-any-return]
        finally:
            timer.cancel()


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _HttpConnection(_HeaderDeadline, urllib3.connection.HTTPConnection):
    pass


class _HttpsConnection(_HeaderDeadline, urllib3.connection.HTTPSConnection):
    pass


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


def _query(*, seed: str, page: int, results: int) -> dict[str, str]:
    return {"results": str(results), "seed": seed, "page": str(page), "inc": users.INCLUDED}


def _without_secrets(url: str, query: Mapping[str, str]) -> str:
    """The URL as an error may show it: no user, no password, and of its own query only the names."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    with contextlib.suppress(ValueError):
        host += f":{parts.port}" if parts.port else ""
    own = [(name, "…") for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    return urlunsplit((parts.scheme, host, parts.path, urlencode([*own, *query.items()], safe=",…"), ""))


def _cause(error: BaseException) -> str:
    """What lies under the wrappings of requests and urllib3, none of whose texts name the URL's secrets."""
    while True:
        inner = error.args[0] if error.args else None
        reason = getattr(inner, "reason", None) or inner
        if not isinstance(reason, BaseException):
            break
        error = reason
    text = str(error).split(": ", 1)[-1] if "object at 0x" in str(error) else str(error)
    return f"{type(error).__name__}: {text}"[:300]


def _status(response: requests.Response, body: bytes) -> str:
    start = body[: 4 * _BODY_START].decode(errors="replace")[:_BODY_START]
    return f"HTTP {response.status_code}, body: {start!r}"

"""The users' HTTP API: one page asked for, checked and returned as it came.

Retries, deadlines, and what counts as an answer live here; what a page holds is for `users`, where it is kept for
`day_files`. Failures have two types: `ApiUnavailableError`, the API could not answer and may later, and
`ApiContractError`, it answered, and asking again would change nothing.
"""

import base64
import contextlib
import http.client
import io
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Generator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

import dagster as dg
import requests
import tenacity
import urllib3
from pydantic import Field, PrivateAttr
from requests.adapters import HTTPAdapter

from user_processing import users, variables
from user_processing.embedded import api as stand_in
from user_processing.resources.rate_limit import RateLimit, StoppingError, store_of

_CHUNK = 256 * 1024  # bytes
_BODY_START = 200  # characters of a body that an error quotes
_MOST_REDIRECTS = 5
_TOO_MANY_REQUESTS = 429
_FIRST_SERVER_ERROR = 500
_HTTP_OK = 200
_PROBE_SECONDS = 10.0
_CONNECTION = re.compile(r"^\w+\(host='(.*?)', port=(\d+)\)")  # how urllib3's errors begin
_HOST_AND_PORT = r"\1:\2"
_PUBLIC_HOST = "randomuser.me"
_PUBLIC_LIMIT = 20_000  # users for each address in five minutes
_NO_URL = "(not the address of an HTTP API)"
_SHORTEST_TIMEOUT = 0.001  # seconds; to a socket, 0 means not to wait at all


def _without_query(record: logging.LogRecord) -> bool:
    """Let a record of urllib3's through, without the query of the request that it tells of: it may hold a key."""
    if isinstance(record.args, tuple):
        record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
    return True


logging.getLogger("urllib3.connectionpool").addFilter(_without_query)


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

    _session: requests.Session = PrivateAttr()
    _base: str = PrivateAttr()
    _log: Any = PrivateAttr(default=None)
    _limit: RateLimit | None = PrivateAttr(default=None)

    @contextlib.contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["UserApi"]:
        """Keep connections open for as long as the run lasts; start the stand-in where there is no URL."""
        self._log = context.log
        users_allowed = self.users_allowed
        if users_allowed:
            self._limit = RateLimit(
                store_of(context.instance),
                users=users_allowed,
                seconds=self.rate_window_seconds,
                requests=self.concurrency,
                log=self._log,
            )
        with contextlib.ExitStack() as stack:
            self._session = stack.enter_context(_Session())
            self._session.max_redirects = _MOST_REDIRECTS
            adapter = _Adapter(self.concurrency, self.connect_seconds)
            self._session.mount("http://", adapter)
            self._session.mount("https://", adapter)
            url = self._url()
            if url:
                self._base = url
            else:
                # Neither a proxy nor ~/.netrc has a say in what stays inside this process.
                self._session.trust_env = False
                self._base = stack.enter_context(stand_in.serve()).url
            yield self

    @property
    def address(self) -> str:
        """The base URL, without user, password and query, for people to read."""
        url = self._url()
        return _without_secrets(url, {}) if url else "the embedded stand-in. Set USER_API_URL to use another."

    @property
    def users_asked(self) -> int:
        """Users to ask for where a run does not say."""
        return variables.whole_number("USERS_PER_DAY", 1) if self.users_per_day is None else self.users_per_day

    @property
    def users_allowed(self) -> int:
        """Users that all runs together may ask for in `rate_window_seconds`; 0: no limit.

        Raises:
            dagster.Failure: the variable holds no such number.
        """
        if self.rate_limit is not None:
            return self.rate_limit
        name = "USER_API_RATE_LIMIT"
        allowed = variables.whole_number(name, _PUBLIC_LIMIT if _is_public(self._url()) else 0)
        if allowed < 0:
            message = f"{name} is {allowed}; it has to be a whole number, and 0 means no limit."
            raise dg.Failure(message, allow_retries=False)
        return allowed

    def _url(self) -> str | None:
        return self.url or variables.service("USER_API_URL")

    def page(self, *, seed: str, page: int, results: int, stopping: threading.Event | None = None) -> bytes:
        """Fetch one page of users: the body, byte for byte, known to answer this query.

        Args:
            seed: the day, as YYYY-MM-DD. The same seed gives the same users.
            page: from 1 to 10,000.
            results: users on the page, from 1 to 5,000.
            stopping: when set, no further attempt is made.

        Raises:
            ApiUnavailableError: timeouts, connection errors, truncated bodies, 5xx or 429, until attempts or time ran
                out.
            ApiContractError: any other answer that is not this page, at once.
        """
        query = _query(seed=seed, page=page, results=results)
        shown = _without_secrets(self._base, query)
        stopping = stopping or threading.Event()
        begun = time.monotonic()  # later by what was waited for the rate limit

        def attempt() -> bytes:
            nonlocal begun
            seconds = min(self.attempt_seconds, begun + self.total_seconds - time.monotonic())
            with self._allowed(results, seconds, stopping) as waited:
                begun += waited
                return self._attempt(query, seconds)

        enough = tenacity.stop_any(tenacity.stop_after_attempt(self.attempts), tenacity.stop_when_event_set(stopping))

        def give_up(state: tenacity.RetryCallState) -> bool:
            return enough(state) or time.monotonic() - begun + state.upcoming_sleep >= self.total_seconds

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=give_up,
            wait=self._pause,
            sleep=tenacity.sleep_using_event(stopping),
            before_sleep=lambda state: self._say(shown, state),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except _TransientError as error:
            tried = retrying.statistics.get("attempt_number", 1)
            elapsed = time.monotonic() - begun
            message = f"GET {shown} failed {tried} times in {elapsed:.0f} s, the last time: {error}"
            raise ApiUnavailableError(message) from None
        except users.ContractError as error:
            message = f"GET {shown}: {error}"
            raise ApiContractError(message, allow_retries=False) from None

    def probe(self, *, seed: str) -> str | None:
        """Ask once for one user, and take no longer than 10 s over it; only the name look-up is not counted.

        Returns:
            None if a valid answer came, or else what was seen instead.
        """
        try:
            self._attempt(_query(seed=seed, page=1, results=1), _PROBE_SECONDS)
        except (_TransientError, users.ContractError) as error:
            return str(error)
        return None

    @contextlib.contextmanager
    def _allowed(self, results: int, seconds: float, stopping: threading.Event) -> Generator[float]:
        """A request that the rate limit allows; yields the seconds waited for that.

        Raises:
            _TransientError: the run stops.
        """
        message = "not asked: the run is stopping"
        if stopping.is_set():
            raise _TransientError(message)
        if self._limit is None:
            yield 0.0
            return
        try:
            with self._limit.request(results, seconds=seconds, stopping=stopping) as waited:
                yield waited
        except StoppingError:
            raise _TransientError(message) from None

    def _attempt(self, query: Mapping[str, str], seconds: float) -> bytes:
        """One request, in `seconds` from the connection to the last byte, with all its redirects.

        Raises:
            _TransientError: it may go better next time.
            users.ContractError: it will not.
        """
        response, body = self._answer(query, seconds)
        if response.status_code == _TOO_MANY_REQUESTS or response.status_code >= _FIRST_SERVER_ERROR:
            raise _TransientError(self._quoted(response, body), self._asked_pause(response))
        if response.status_code != _HTTP_OK:
            raise users.ContractError(self._quoted(response, body))
        try:
            users.check_page(body, seed=query["seed"], page=int(query["page"]), results=int(query["results"]))
        except users.TruncatedError as error:
            raise _TransientError(str(error)) from None
        except users.ContractError as error:
            message = f"{error}. {self._quoted(response, body)}"
            raise users.ContractError(message) from None
        return body

    def _answer(self, query: Mapping[str, str], seconds: float) -> tuple[requests.Response, bytes]:
        """Whatever the API says, with its body; failures of what lies below HTTP are told apart here."""
        try:
            with self._session.get(
                self._base, params=query, timeout=time.monotonic() + seconds, stream=True
            ) as response:
                return response, self._body(response)
        except requests.exceptions.SSLError as error:
            cause = _innermost(error)
            hung_up = isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
            raise (_TransientError if hung_up else users.ContractError)(_told(cause)) from None
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _TransientError(_told(_innermost(error))) from None
        except users.ContractError:
            raise
        except (requests.RequestException, ValueError) as error:
            # An address of no use, too many redirects, headers that contradict each other. Their texts quote the URL.
            raise users.ContractError(type(error).__name__) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _TransientError(_told(_innermost(error))) from None

    def _body(self, response: requests.Response) -> bytes:
        """The decoded body, read straight from urllib3: a third of the time of `response.content`."""
        chunks: list[bytes] = []
        size = 0
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            chunks.append(chunk)
            size += len(chunk)
            if size > self.largest_body:
                message = f"HTTP {response.status_code}, the body is larger than {self.largest_body:,} bytes"
                raise users.ContractError(message)
        return b"".join(chunks)

    def _quoted(self, response: requests.Response, body: bytes) -> str:
        """The status and how the body begins.

        A body is not quoted when it may hold users, who all have an e-mail address, or when it repeats a secret of
        the URL: some servers' error pages show the request.
        """
        if b'"results"' in body or b"@" in body or any(secret in body for secret in _secrets(self._base)):
            return f"HTTP {response.status_code}, the body of {len(body):,} bytes may hold secrets"
        start = body[: 4 * _BODY_START].decode(errors="replace")[:_BODY_START]
        return f"HTTP {response.status_code}, body: {start!r}"

    def _asked_pause(self, response: requests.Response) -> float | None:
        """Seconds until the API wants to be asked again, but never more than `rate_limit_seconds`; None: not said."""
        said = response.headers.get("Retry-After")
        if said is None and response.status_code != _TOO_MANY_REQUESTS:
            return None
        seconds = self.rate_limit_seconds
        if said and said.strip().isdecimal():
            seconds = float(said)
        elif said:
            with contextlib.suppress(ValueError):
                seconds = parsedate_to_datetime(said).timestamp() - time.time()
        return min(max(seconds, 0.0), self.rate_limit_seconds)

    def _pause(self, state: tenacity.RetryCallState) -> float:
        jitter = tenacity.wait_random(max=self.backoff_seconds)
        backoff = tenacity.wait_exponential(multiplier=self.backoff_seconds, max=60) + jitter
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
        # requests itself would read a redirect's body however long it is. A short one leaves the connection usable.
        with resp:
            if not resp.raw.closed:
                resp.raw.read(_CHUNK)
        here = urlsplit(resp.url)
        there = urlsplit(urljoin(resp.url, target))
        if there.hostname != here.hostname or (here.scheme, there.scheme) == ("https", "http"):
            message = (
                f"HTTP {resp.status_code} redirects from {here.scheme}://{here.hostname} "
                f"to {there.scheme}://{there.hostname}; only the same host is followed"
            )
            raise users.ContractError(message)
        return target


class _Adapter(HTTPAdapter):
    """Connections whose attempts end in time, on their way through a proxy too."""

    def __init__(self, connections: int, connect_seconds: float) -> None:
        self._connect_seconds = connect_seconds
        super().__init__(pool_maxsize=connections, pool_block=True)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - requests' own signature
        timeout: Any = None,  # noqa: ANN401
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> requests.Response:
        """As requests does, but `timeout` is the time, by the monotonic clock, at which it must be over.

        Each redirect is sent by itself, and shares that time.
        """
        left = max(timeout - time.monotonic(), _SHORTEST_TIMEOUT)
        # The connection, a proxy's consent, and the TLS handshake may each take the time for connecting.
        timeout = urllib3.Timeout(connect=min(self._connect_seconds, left / 3), total=left)
        return super().send(request, stream, timeout, *args, **kwargs)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _PUNCTUAL.get(pool.ConnectionCls, pool.ConnectionCls)
        return pool


class _UntilDeadline(io.RawIOBase):
    """Reads from a socket for as long as its timeout says, all reads together: its own starts anew with each."""

    def __init__(self, connection: socket.socket, raw: io.RawIOBase) -> None:
        self._connection = connection
        self._raw = raw
        self._end = time.monotonic() + (connection.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        super().close()
        self._raw.close()


class _PunctualAnswer(http.client.HTTPResponse):
    """Headers and body, chunk sizes and trailers included, come before the deadline or not at all.

    Before it asks for an answer, urllib3 gives the socket what is left of the attempt for a timeout.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_UntilDeadline(sock, self.fp.detach()))

    def begin(self) -> None:
        super().begin()
        # For malformed headers urllib3 would log the URL, with its secrets.
        self.msg.defects.clear()
        self.msg.set_payload("")


class _Punctual:
    """What both kinds of connection have in common."""

    host: str
    port: int
    timeout: Any
    response_class: Any = _PunctualAnswer

    def _new_conn(self) -> socket.socket:
        """Share the time for connecting among the host's addresses; urllib3 would give each of them all of it."""
        whole = self.timeout
        with contextlib.suppress(OSError, UnicodeError):
            self.timeout /= len(socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM))
        try:
            connection: socket.socket = super()._new_conn()  # type: ignore[misc]
        finally:
            self.timeout = whole
        connection.settimeout(whole)
        return connection


class _HttpConnection(_Punctual, urllib3.connection.HTTPConnection):
    pass


class _HttpsConnection(_Punctual, urllib3.connection.HTTPSConnection):
    pass


_PUNCTUAL: Mapping[Any, Any] = {
    urllib3.connection.HTTPConnection: _HttpConnection,
    urllib3.connection.HTTPSConnection: _HttpsConnection,
}


def _query(*, seed: str, page: int, results: int) -> dict[str, str]:
    return {"results": str(results), "seed": seed, "page": str(page), "inc": users.INCLUDED}


def _is_public(url: str | None) -> bool:
    """Whether it is the API that allows everybody as many users."""
    try:
        host = urlsplit(url or "").hostname or ""
    except ValueError:
        return False
    return f".{host.rstrip('.')}".endswith(f".{_PUBLIC_HOST}")


def _without_secrets(url: str, query: Mapping[str, str]) -> str:
    """The URL as an error may show it: no user, no password, and nothing of a query of its own."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return _NO_URL
    # An @ in the path: the password held a / that was not escaped.
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.path:
        return _NO_URL
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    own = ["…"] if parts.query else []
    asked = [urlencode(query, safe=",")] if query else []
    return urlunsplit((parts.scheme, host + port, parts.path, "&".join(own + asked), ""))


def _secrets(url: str) -> set[bytes]:
    """What must not be told of a URL, as the server may repeat it: user, password, and the values of its query."""
    parts = urlsplit(url)
    texts = {value or name for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    user, password = requests.utils.get_auth_from_url(url)
    texts |= {user, password, base64.b64encode(f"{user}:{password}".encode()).decode()}
    return {form.encode() for text in texts for form in (text, quote(text, safe=""))} - {b""}


def _innermost(error: BaseException) -> BaseException:
    """What lies under the wrappings of requests and urllib3, whose texts hold the query."""
    while True:
        inner = [part for part in (getattr(error, "reason", None), *error.args) if isinstance(part, BaseException)]
        if not inner:
            return error
        error = inner[0]


def _told(error: BaseException) -> str:
    """A cause for people to read."""
    name = type(error).__name__
    if isinstance(error, (http.client.BadStatusLine, http.client.UnknownProtocol)) and not isinstance(error, OSError):
        # They quote what came, which is part of a page when two answers got mixed up.
        return f"{name}: the answer is not HTTP"
    return f"{name}: {_CONNECTION.sub(_HOST_AND_PORT, str(error))}"[:300]

"""One request to the API and its answer: a page, a failure that may pass, or one that will not.

How often a page is asked for, and when, is for `user_api`; how a request ends in time is for `transport`.
"""

import contextlib
import logging
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import requests
import urllib3

from user_processing.source import contract
from user_processing.source.redaction import describe_error, innermost, secrets_of
from user_processing.source.transport import DeadlineSession, ProxyFailedError

_CHUNK = 256 * 1024  # bytes
_BODY_START = 200  # characters of a body that an error quotes
_STATUS_ADVICE = {
    401: "Correct user and password, or the key, in USER_API_URL.",
    403: "The API refuses this user, key or machine. Correct USER_API_URL.",
    404: "The API is not there. Correct the path in USER_API_URL.",
    407: "This is the proxy, which wants a user and a password. Add them to HTTP_PROXY or HTTPS_PROXY.",
}


def _without_query(record: logging.LogRecord) -> bool:
    """Let a record of urllib3's through, without the query of the request that it tells of: it may hold a key."""
    if isinstance(record.args, tuple):
        record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
    return True


logging.getLogger("urllib3.connectionpool").addFilter(_without_query)


class TransientError(Exception):
    """One attempt failed in a way that the next one may not."""

    def __init__(self, detail: str, pause: float | None = None) -> None:
        super().__init__(detail)
        self.pause = pause
        """Seconds that the API asks to be left alone for; None: not said."""


class Exchange:
    """Requests to the API, each answered or given up in time.

    Args:
        session: keeps the connections.
        base: the URL of the API.
        largest_body: bytes after which a body is given up.
        longest_pause: seconds, the longest one obeyed; also that after a 429 that does not say how long.
    """

    def __init__(self, session: DeadlineSession, base: str, *, largest_body: int, longest_pause: float) -> None:
        self._session = session
        self._base = base
        self._largest_body = largest_body
        self._longest_pause = longest_pause

    def page(self, query: Mapping[str, str], seconds: float) -> bytes:
        """One request, in `seconds` from the connection to the last byte, with all its redirects.

        Raises:
            TransientError: it may go better next time.
            contract.ContractError: it will not.
        """
        response, body = self._answer(query, seconds)
        status = response.status_code
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise TransientError(self._quoted(response, body), self._asked_pause(response))
        if status != HTTPStatus.OK:
            advice = _STATUS_ADVICE.get(status, "")
            raise contract.ContractError(f"{self._quoted(response, body)}. {advice}".rstrip())
        try:
            contract.check_page(body, seed=query["seed"], page=int(query["page"]), results=int(query["results"]))
        except contract.TruncatedError as error:
            raise TransientError(str(error)) from None
        except contract.ContractError as error:
            raise contract.ContractError(f"{error}. {self._quoted(response, body)}") from None
        return body

    def _answer(self, query: Mapping[str, str], seconds: float) -> tuple[requests.Response, bytes]:
        """Whatever the API says, with its body; failures of what lies below HTTP are told apart here."""
        try:
            with self._session.get(
                self._base, params=query, timeout=time.monotonic() + seconds, stream=True
            ) as response:
                return response, self._body(response)
        except requests.exceptions.SSLError as error:
            cause = innermost(error)
            hung_up = isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
            raise (TransientError if hung_up else contract.ContractError)(describe_error(cause)) from None
        except ProxyFailedError as error:
            raise (TransientError if error.may_pass else contract.ContractError)(str(error)) from None
        except (requests.ConnectionError, requests.Timeout) as error:
            raise TransientError(describe_error(innermost(error))) from None
        except contract.ContractError:
            raise
        except (requests.RequestException, ValueError) as error:
            # An address of no use, too many redirects, headers that contradict each other. Their texts quote the URL.
            raise contract.ContractError(f"{type(error).__name__}. Correct USER_API_URL") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TransientError(describe_error(innermost(error))) from None

    def _body(self, response: requests.Response) -> bytes:
        """The decoded body, read straight from urllib3: a third of the time of `response.content`."""
        chunks: list[bytes] = []
        size = 0
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            chunks.append(chunk)
            size += len(chunk)
            if size > self._largest_body:
                raise contract.ContractError(
                    f"HTTP {response.status_code}, the body is larger than {self._largest_body:,} bytes"
                )
        return b"".join(chunks)

    def _quoted(self, response: requests.Response, body: bytes) -> str:
        """The status and how the body begins.

        A body is not quoted when it may hold users, who all have an e-mail address, or when it repeats a secret of
        the URL: some servers' error pages show the request.
        """
        if b'"results"' in body or b"@" in body or any(secret in body for secret in secrets_of(self._base)):
            return f"HTTP {response.status_code}, the body of {len(body):,} bytes may hold secrets"
        start = body[: 4 * _BODY_START].decode(errors="replace")[:_BODY_START]
        return f"HTTP {response.status_code}, body: {start!r}"

    def _asked_pause(self, response: requests.Response) -> float | None:
        """Seconds until the API wants to be asked again, but never more than `longest_pause`; None: not said."""
        said = response.headers.get("Retry-After")
        if said is None and response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
            return None
        seconds = self._longest_pause
        if said and said.strip().isdecimal():
            seconds = float(said)
        elif said:
            with contextlib.suppress(ValueError):
                seconds = parsedate_to_datetime(said).timestamp() - time.time()
        return min(max(seconds, 0.0), self._longest_pause)

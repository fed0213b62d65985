"""HTTP whose attempts end in time: one deadline for all of an attempt, from the connection to the last byte.

Timeouts of sockets start anew with every byte. Here what is left of the time is looked at before every read. A redirect
is followed on the same host only. What is asked, and what counts as an answer, is for `user_api`.
"""

import contextlib
import http.client
import io
import ipaddress
import os
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy

from user_processing.source import contract
from user_processing.source.redaction import describe_cause, innermost, without_secrets

_MOST_INTERIM_RESPONSES = 20  # a server sends one or two; newer Pythons give up at 100 by themselves
_SHORTEST_TIMEOUT = 0.001  # seconds; to a socket, 0 means not to wait at all
_MOST_REDIRECTS = 5
_REDIRECT_BODY = 256 * 1024  # bytes that are read so that the connection can be used again


class ProxyFailedError(Exception):
    """The proxy that the environment names cannot be used; the message names the variable, and says what to do."""

    def __init__(self, url: str, proxy: str, error: Exception) -> None:
        scheme = urlsplit(url).scheme
        names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
        variable = next((name for name in names if os.environ.get(name)), names[1])
        self.may_pass = isinstance(error, requests.exceptions.ProxyError)
        """Whether it may work later."""
        try:
            place = f"the proxy {without_secrets(proxy if '://' in proxy else f'http://{proxy}', {})}"
        except ValueError:
            place = "the proxy"
        cause = describe_cause(innermost(error)) if self.may_pass else "it is not the URL of an HTTP proxy"
        super().__init__(
            f"{place} that {variable} names cannot be used: {cause}. Correct {variable}, or put "
            f"{urlsplit(url).hostname} into NO_PROXY"
        )


class DeadlineSession(requests.Session):
    """Takes for `timeout` the time, by the monotonic clock, at which an attempt must be over.

    Follows a redirect only on the same host, and never from https down to http. Reaches loopback without a proxy.

    Args:
        connections: kept open, and the most that there are at once.
        connect_seconds: time for a connection to be made.
    """

    def __init__(self, connections: int, connect_seconds: float) -> None:
        super().__init__()
        self.max_redirects = _MOST_REDIRECTS
        adapter = _DeadlineAdapter(connections, connect_seconds)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def merge_environment_settings(self, url: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """As requests does, but a proxy has no say in what stays on this machine."""
        merged = super().merge_environment_settings(url, *args, **kwargs)
        return {**merged, "proxies": {}} if _is_loopback(url) else merged

    def rebuild_proxies(self, prepared_request: requests.PreparedRequest, proxies: Any) -> Any:  # noqa: ANN401
        """The same for a redirect."""
        if _is_loopback(prepared_request.url):
            return {}
        return super().rebuild_proxies(prepared_request, proxies)  # type: ignore[no-untyped-call]

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where a redirect leads, if it may be followed.

        Raises:
            ContractError: it leads to another host, or from https to http.
        """
        target = super().get_redirect_target(resp)
        if target is None or resp.url is None:
            return None
        # requests itself would read a redirect's body however long it is. A short one leaves the connection usable.
        with resp:
            if not resp.raw.closed:
                resp.raw.read(_REDIRECT_BODY)
        here = urlsplit(resp.url)
        there = urlsplit(urljoin(resp.url, target))
        if there.hostname != here.hostname or (here.scheme, there.scheme) == ("https", "http"):
            raise contract.ContractError(
                f"HTTP {resp.status_code} redirects from {here.scheme}://{here.hostname} "
                f"to {there.scheme}://{there.hostname}; only the same host is followed. Correct USER_API_URL"
            )
        return target


class _DeadlineAdapter(HTTPAdapter):
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
        proxy = select_proxy(request.url or "", kwargs.get("proxies"))
        try:
            return super().send(request, stream, timeout, *args, **kwargs)
        except (requests.exceptions.ProxyError, ValueError) as error:
            # A ValueError: requests or urllib3 cannot use the address, which without a proxy is the API's.
            if proxy is None:
                raise
            raise ProxyFailedError(request.url or "", proxy, error) from None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _DEADLINE_CLASSES.get(pool.ConnectionCls, pool.ConnectionCls)
        return pool


def _is_loopback(url: str | bytes | None) -> bool:
    """Whether it leads to this machine."""
    host = urlsplit(str(url)).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return f".{host}".endswith(".localhost")


class _DeadlineReader(io.RawIOBase):
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


class _DeadlineResponse(http.client.HTTPResponse):
    """Headers and body, chunk sizes and trailers included, come before the deadline or not at all.

    Before it asks for an answer, urllib3 gives the socket what is left of the attempt for a timeout.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_DeadlineReader(sock, self.fp.detach()))
        self._statuses = 0

    def begin(self) -> None:
        super().begin()
        # For malformed headers urllib3 would log the URL, with its secrets.
        self.msg.defects.clear()
        self.msg.set_payload("")

    # Newer releases of Python bound interim responses and trailers by themselves, older ones do not. Here a server that
    # sends either without end causes the same failure on all of them, and at once.

    def _read_status(self) -> Any:  # noqa: ANN401
        self._statuses += 1
        if self._statuses > 1 + _MOST_INTERIM_RESPONSES:
            raise http.client.HTTPException(f"got more than {_MOST_INTERIM_RESPONSES} interim responses")
        return super()._read_status()  # type: ignore[misc]

    def _read_and_discard_trailer(self) -> None:
        http.client.parse_headers(self.fp)


class _DeadlineConnection:
    """What both kinds of connection have in common."""

    host: str
    port: int
    timeout: Any
    response_class: Any = _DeadlineResponse

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


class _DeadlineHttpConnection(_DeadlineConnection, urllib3.connection.HTTPConnection):
    pass


class _DeadlineHttpsConnection(_DeadlineConnection, urllib3.connection.HTTPSConnection):
    pass


_DEADLINE_CLASSES: Mapping[Any, Any] = {
    urllib3.connection.HTTPConnection: _DeadlineHttpConnection,
    urllib3.connection.HTTPSConnection: _DeadlineHttpsConnection,
}

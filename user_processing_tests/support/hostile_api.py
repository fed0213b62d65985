"""An API that misbehaves on request, over real sockets on loopback, with and without TLS.

How a server can spoil an answer is here, one function for each way; what a client must make of it is for the tests.
"""

import contextlib
import functools
import itertools
import json
import socket
import socketserver
import ssl
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

PATH = "/api/1.4/"
PASSWORD_OF_A_USER = "correct-horse"
EMAIL_OF_A_USER = "somebody@example.com"

_DRIP_SECONDS = 0.03  # between two bytes: far less than any timeout, so that only a total deadline helps
_LONGEST_WAIT = 10.0  # seconds; a client that does not hang up fails its test, and does not keep it from ending


@dataclass
class Exchange:
    """One request, and the means to answer it well or badly."""

    connection: socket.socket
    over: threading.Event
    method: str = ""
    target: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name, in lower case."""

    sent: bytes = b""
    """The body of the request."""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    def body(self) -> bytes:
        """The page that was asked for."""
        return page(self.query["seed"], int(self.query["page"]), int(self.query["results"]))

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def flood(self, data: Iterable[bytes]) -> None:
        """Send until the client hangs up."""
        for piece in data:
            if self.over.is_set():
                break
            self.send(piece)

    def drip(self, data: Iterable[bytes]) -> None:
        """Send slowly, until the client hangs up."""
        for piece in data:
            if self.over.wait(_DRIP_SECONDS):
                break
            self.send(piece)

    def hang(self) -> None:
        """Say nothing, until the client hangs up."""
        with contextlib.suppress(TimeoutError):
            while self.connection.recv(65536):
                pass

    def close(self) -> None:
        raise _ClosedError


class _ClosedError(Exception):
    """The server closes the connection."""


Behaviour = Callable[[Exchange], None]


def page(seed: str, page: int, results: int) -> bytes:
    """A page as the API sends it."""
    users = [
        {
            "name": {"first": f"Zoë {number}", "last": "O'Neil"},
            "location": {"country": "Türkiye"},
            "email": EMAIL_OF_A_USER,
            "login": {"username": f"{seed}-{page}-{number}", "password": PASSWORD_OF_A_USER},
        }
        for number in range(results)
    ]
    info = {"seed": seed, "results": results, "page": page, "version": "1.4"}
    return json.dumps({"results": users, "info": info}, ensure_ascii=False).encode()


def head(status: str = "200 OK", /, **headers: object) -> bytes:
    """Status line and headers, `Content_Length=5` for `Content-Length: 5`."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def chunked(data: bytes, size: int = 50) -> bytes:
    """The transfer coding without its end."""
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def good(exchange: Exchange) -> None:
    """The page that was asked for."""
    body = exchange.body()
    exchange.send(head(Content_Length=len(body), Content_Type="application/json; charset=utf-8") + body)


def answers(status: str, body: bytes = b"", /, **headers: object) -> Behaviour:
    """A flawless answer with this status and body."""
    return lambda exchange: exchange.send(head(status, Content_Length=len(body), **headers) + body)


def sends(body: Callable[[bytes], bytes], /, **headers: object) -> Behaviour:
    """What `body` makes of the page, as a flawless 200."""

    def behave(exchange: Exchange) -> None:
        sent = body(exchange.body())
        exchange.send(head(Content_Length=len(sent), **headers) + sent)

    return behave


def sends_page(change: Callable[[dict[str, Any]], object]) -> Behaviour:
    """The page after `change`, as a flawless 200."""

    def body(page: bytes) -> bytes:
        changed = json.loads(page)
        change(changed)
        return json.dumps(changed).encode()

    return sends(body)


def sends_and_closes(data: Callable[[bytes], bytes]) -> Behaviour:
    """What `data` makes of the page, byte for byte, and no more."""

    def behave(exchange: Exchange) -> None:
        exchange.send(data(exchange.body()))
        exchange.close()

    return behave


def sends_and_hangs(data: Callable[[bytes], bytes]) -> Behaviour:
    """What `data` makes of the page, byte for byte, and then nothing, the connection still open."""

    def behave(exchange: Exchange) -> None:
        exchange.send(data(exchange.body()))
        exchange.hang()

    return behave


def sends_and_drips(data: bytes, drip: Iterable[bytes]) -> Behaviour:
    """`data` at once, and then, slowly and for ever, `drip`."""

    def behave(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.drip(itertools.cycle(drip))

    return behave


def sends_and_floods(data: bytes, flood: Callable[[], Iterable[bytes]]) -> Behaviour:
    """`data`, and then `flood` as fast as it goes."""

    def behave(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.flood(flood())

    return behave


def resets(data: Callable[[bytes], bytes] = lambda _: b"") -> Behaviour:
    """What `data` makes of the page, and then RST instead of FIN."""

    def behave(exchange: Exchange) -> None:
        exchange.send(data(exchange.body()))
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exchange.close()

    return behave


def redirects(location: Callable[[Exchange], str], status: str = "301 Moved Permanently") -> Behaviour:
    """To where `location` says."""
    return lambda exchange: exchange.send(head(status, Content_Length=4, Location=location(exchange)) + b"gone")


@functools.cache
def bomb(coding: str) -> bytes:
    """A hundred megabytes of zeros in a hundred kilobytes."""
    compressor = zlib.compressobj(wbits={"gzip": 31, "deflate": 15}[coding])
    return b"".join(compressor.compress(bytes(1_000_000)) for _ in range(100)) + compressor.flush()


class _Handler(socketserver.StreamRequestHandler):
    server: "HostileApi"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        if self.server.tls:
            self.request = self.server.tls.wrap_socket(self.request.dup(), server_side=True)
        super().setup()

    def handle(self) -> None:
        if self.server.greeting:
            self.server.greeting(Exchange(self.request, self.server.over))
            return
        while exchange := self._next_exchange():
            self.server.behaviour(exchange)(exchange)

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def _next_exchange(self) -> Exchange | None:
        words = self.rfile.readline().split()
        if not words:
            return None
        headers = {}
        while line := self.rfile.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        sent = self.rfile.read(int(headers.get("content-length", 0)))
        method, target = (word.decode() for word in words[:2])
        return Exchange(self.request, self.server.over, method, target, headers, sent)


class HostileApi(socketserver.ThreadingTCPServer):
    """A server that behaves well, except where it was told otherwise. Use it in `with`.

    Args:
        host: where it listens: 127.0.0.1 or ::1.
        tls: for https.
        greeting: what it does with a connection instead of reading requests.

    Attributes:
        asked: the requests so far.
        connections: how many were made.
        always: what becomes of a request that is not planned for.
        faults: what went wrong in the server itself.
    """

    request_queue_size = 128

    def __init__(
        self, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None, greeting: Behaviour | None = None
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Handler)
        self.tls = tls
        self.greeting = greeting
        self.over = threading.Event()
        self.asked: list[Exchange] = []
        self.connections = 0
        self.always: Behaviour = good
        self.faults: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._planned: list[Behaviour] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def plan(self, *behaviours: Behaviour) -> None:
        """The next requests are answered so, in this order; those after them as `always` says."""
        self.asked.clear()
        self._planned = list(behaviours)

    def behaviour(self, exchange: Exchange) -> Behaviour:
        with self._lock:
            self.asked.append(exchange)
            return self._planned.pop(0) if self._planned else self.always

    def url(self, *, scheme: str | None = None, user: str = "", path: str = PATH, query: str = "") -> str:
        """Its address, with `user` such as `name:password@` and `query` such as `?key=1`."""
        host, port = self.server_address[:2]
        shown = f"[{host!s}]" if self.address_family == socket.AF_INET6 else str(host)
        return f"{scheme or ('https' if self.tls else 'http')}://{user}{shown}:{port}{path}{query}"

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.settimeout(_LONGEST_WAIT)
        self.connections += 1
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002
        error = sys.exception()
        # A client that hangs up is what the tests wait for.
        if error and not isinstance(error, (OSError, _ClosedError)):
            self.faults.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self._thread.join()
        # urllib3 closes the connections that it keeps when they are collected as garbage.
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

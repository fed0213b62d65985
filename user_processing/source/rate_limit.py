"""How fast the API may be asked: users in a sliding window, and requests at once, for all runs of a deployment.

Each request is a row of `user_api_requests`, in the users' database, before it is sent. So every run counts, a killed
one too, and the clock is the server's. Whoever looks whether there is room holds an advisory lock meanwhile. What is
asked, and of whom, is for `user_api`.
"""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class in lower case

Transaction: TypeAlias = Callable[[], AbstractContextManager[Connection]]

_LARGEST_RESERVE = 100  # users
_SHARE_OF_RESERVE = 20
# The look-up of a name is not bounded by the time of a request.
_LEASE = 1.5
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BETWEEN_LINES = 60.0

# The namespace of this pipeline's advisory locks, and a key that is no day's.
_LOCK = "SELECT pg_advisory_xact_lock(1970496882, -1)"

# `ended` is when the lease is over, until the request says that it has ended.
_FORGET = "DELETE FROM user_api_requests WHERE ended + %(window)s * interval '1 s' <= clock_timestamp()"

# The clock was set back: what lies in the future counts as begun now.
_CATCH_UP = """
UPDATE user_api_requests SET began = clock_timestamp(), ended = clock_timestamp() + (ended - began)
WHERE began > clock_timestamp()"""

# Users in the window; requests in progress; and how long until so many users have left that the page has room.
_LOOK = """
WITH requests AS (
    SELECT users, ended, sum(users) OVER (ORDER BY ended, id) AS left_by_then, sum(users) OVER () AS total
    FROM user_api_requests
)
SELECT coalesce(max(total), 0),
       count(*) FILTER (WHERE ended > clock_timestamp()),
       coalesce(extract(epoch FROM min(ended) FILTER (WHERE left_by_then >= total - %(most)s) - clock_timestamp()), 0)
           ::float + %(window)s
FROM requests"""

_BEGIN = """
INSERT INTO user_api_requests (users, began, ended)
VALUES (%(users)s, clock_timestamp(), clock_timestamp() + %(lease)s * interval '1 s')
RETURNING id"""

_END = "UPDATE user_api_requests SET ended = clock_timestamp() WHERE id = %(id)s"


class StoppingError(Exception):
    """The run stops: nothing was asked, and nothing is to be."""


class RateLimit:
    """Lets a request go when there is room for it, the one that waits longest first; shared by threads.

    Args:
        transaction: opens a transaction on the users' database. One thread at a time uses it.
        users: the limit. A little of it is left free for the sensor's probes, which ask for a user a minute.
        seconds: the length of the window.
        requests: how many may be in progress at once.
        log: has a method `info`.
    """

    def __init__(self, transaction: Transaction, *, users: int, seconds: float, requests: int, log: Any) -> None:  # noqa: ANN401
        self._transaction = transaction
        self._limit = users
        self._room = users - min(_LARGEST_RESERVE, users // _SHARE_OF_RESERVE)
        self._seconds = seconds
        self._requests = requests
        self._log = log
        self._said = -math.inf
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    @contextlib.contextmanager
    def request(self, users: int, *, seconds: float, stopping: threading.Event) -> Generator[float]:
        """Wait until that many users can be asked for; the block is the request.

        More users than the limit can be asked for once nobody else is.

        Args:
            users: on the page.
            seconds: how long the request can take.
            stopping: ends the waiting.

        Yields:
            Seconds waited.

        Raises:
            StoppingError: it does not begin any more.
            DatabaseUnavailableError: the users' database cannot be asked.
        """
        arrived = time.monotonic()
        request_id = self._wait(users, seconds * _LEASE, stopping)
        try:
            yield time.monotonic() - arrived
        finally:
            with self._changed:
                with self._transaction() as connection, connection.cursor() as cursor:
                    cursor.execute(_END, {"id": request_id})
                self._changed.notify_all()

    def _wait(self, users: int, lease: float, stopping: threading.Event) -> int:
        """The number of the request, once it may begin."""
        place = object()
        with self._changed:
            self._queue.append(place)
            try:
                while not stopping.is_set():
                    wait = _SECONDS_BETWEEN_LOOKS
                    if self._queue[0] is place:
                        request_id, wait = self._begin(users, lease)
                        if request_id is not None:
                            return request_id
                    self._changed.wait(min(wait, _SECONDS_BETWEEN_LOOKS))
                raise StoppingError
            finally:
                self._queue.remove(place)
                self._changed.notify_all()

    def _begin(self, users: int, lease: float) -> tuple[int | None, float]:
        """Note the request if there is room for it; returns its number, or None and how long to wait."""
        values = {"users": users, "lease": lease, "window": self._seconds, "most": max(self._room - users, 0)}
        with self._transaction() as connection, connection.cursor() as cursor:
            for statement in (_LOCK, _FORGET, _CATCH_UP, _LOOK):
                cursor.execute(statement, values)
            total, in_progress, wait = cursor.fetchone() or (0, 0, 0.0)
            if in_progress < self._requests and total <= values["most"]:
                cursor.execute(_BEGIN, values)
                (request_id,) = cursor.fetchone() or (None,)
                return request_id, 0.0
        if in_progress < self._requests:
            self._say(total, wait)
        return None, max(wait, 0.001)

    def _say(self, users: int, wait: float) -> None:
        now = time.monotonic()
        if wait >= 1 and now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            self._log.info(
                f"{users:,} users were requested in the last {self._seconds:,.0f} s; the limit is {self._limit:,}. "
                f"The next page waits {wait:.0f} s."
            )

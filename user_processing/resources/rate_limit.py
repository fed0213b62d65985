"""How fast the API may be asked: users in a sliding window, and requests at once, for all runs of a Dagster instance.

What was asked for is kept in the instance's key-value store, so it counts for every run, a killed one included. Each
change of it is made only if nobody else has made one meanwhile. Dagster's pool alone would not do: of four processes
that claim its only slot at the same moment, up to three get it. What is asked, and of whom, is for `user_api`.
"""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Generator
from typing import Any, Protocol
from uuid import uuid4

import dagster as dg
import msgspec
import sqlalchemy
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import KeyValueStoreTable
from sqlalchemy.exc import IntegrityError

KEY = "user_processing/users_asked"

_LARGEST_RESERVE = 100  # users
_SHARE_OF_RESERVE = 20
# Requests that ended in the same slice of the window are kept as one: 100 entries, however small the pages are.
_SLICES = 100
# A killed run's requests are over when their time is. The look-up of a name is not bounded by it.
_LEASE = 1.5
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BETWEEN_LINES = 10.0


class StoppingError(Exception):
    """The run stops: nothing was asked, and nothing is to be."""


class Request(msgspec.Struct):
    """A request that may still be under way."""

    users: int
    began: float
    seconds: float
    """After that time it is over, even if nobody says so."""


class Window(msgspec.Struct):
    """What was asked for, by the wall clock: the runs of an instance share no other."""

    under_way: dict[str, Request] = {}
    ended: list[tuple[float, int]] = []
    """When, and how many users; rounded up to the end of a slice."""

    @property
    def users(self) -> int:
        """Users asked for. What is under way counts as asked now."""
        return sum(request.users for request in self.under_way.values()) + sum(users for _, users in self.ended)

    def end(self, request_id: str, users: int, at: float, seconds: float) -> None:
        """A request has ended, or must have: it counts for as long as the window is from now on."""
        self.under_way.pop(request_id, None)
        size = seconds / _SLICES
        rounded = math.ceil(at / size) * size
        sums = dict(self.ended)
        sums[rounded] = sums.get(rounded, 0) + users
        self.ended = sorted(sums.items())

    def forget(self, now: float, seconds: float, *, alive: set[str]) -> bool:
        """Leave out what is older than the window.

        Args:
            now: Unix seconds.
            seconds: the length of the window.
            alive: requests known to be under way, whatever their time.

        Returns:
            Whether the clock has been set back since: what lies in the future counts as asked now. That has to be
            kept, or it would count as asked now each time.
        """
        latest = now + seconds / _SLICES
        set_back = False
        for request in self.under_way.values():
            if request.began > latest:
                request.began, set_back = now, True
        if any(at > latest for at, _ in self.ended):
            future = sum(users for at, users in self.ended if at > latest)
            self.ended = [*((at, users) for at, users in self.ended if at <= latest), (now, future)]
            set_back = True
        for request_id, request in list(self.under_way.items()):
            over = request.began + request.seconds
            if over <= now and request_id not in alive:
                self.end(request_id, request.users, over, seconds)
        self.ended = [(at, users) for at, users in self.ended if at + seconds > now]
        return set_back

    def seconds_until(self, most: int, now: float, seconds: float) -> float:
        """How long until no more than `most` users are left in the window, if what is under way ended now."""
        users = self.users
        for at, gone in sorted(self.ended):
            users -= gone
            if users <= most:
                return at + seconds - now
        return seconds


class Store(Protocol):
    """One text, shared."""

    def read(self) -> str | None:
        """The text; None while there is none."""

    def swap(self, old: str | None, new: str) -> bool:
        """Replace the text, if it is still the old one; returns whether it was."""


class Memory:
    """The text of a process that has no instance to share it with."""

    def __init__(self) -> None:
        self._text: str | None = None

    def read(self) -> str | None:
        """The text; None while there is none."""
        return self._text

    def swap(self, old: str | None, new: str) -> bool:
        """Replace the text, if it is still the old one; returns whether it was."""
        if self._text != old:
            return False
        self._text = new
        return True


class InstanceStore:
    """A text under a key of the instance's key-value store.

    Dagster's own `set_cursor_values` would overwrite what another run has written since it was read.
    """

    def __init__(self, storage: SqlRunStorage) -> None:
        self._storage = storage

    def read(self) -> str | None:
        """The text; None while there is none."""
        return self._storage.get_cursor_values({KEY}).get(KEY)

    def swap(self, old: str | None, new: str) -> bool:
        """Replace the text, if it is still the old one; returns whether it was."""
        table = KeyValueStoreTable
        with self._storage.connect() as connection:
            if old is None:
                try:
                    connection.execute(sqlalchemy.insert(table).values(key=KEY, value=new))
                except IntegrityError:
                    return False
                return True
            update = sqlalchemy.update(table).where(table.c.key == KEY, table.c.value == old).values(value=new)
            return bool(connection.execute(update).rowcount)


def store_of(instance: dg.DagsterInstance | None) -> Store:
    """Where an instance keeps what was asked for. One that is gone with the process keeps nothing."""
    if instance is None or instance.is_ephemeral or not isinstance(instance.run_storage, SqlRunStorage):
        return Memory()
    return InstanceStore(instance.run_storage)


class RateLimit:
    """Lets a request go when there is room for it, the one that waits longest first; shared by threads.

    Args:
        store: what the runs share.
        users: the limit. A little of it is left free for the sensor's probes, which ask for a user a minute.
        seconds: the length of the window.
        requests: how many may be under way at once.
        log: has a method `info`.
    """

    def __init__(self, store: Store, *, users: int, seconds: float, requests: int, log: Any) -> None:  # noqa: ANN401
        self._store = store
        self._limit = users
        self._room = users - min(_LARGEST_RESERVE, users // _SHARE_OF_RESERVE)
        self._seconds = seconds
        self._requests = requests
        self._log = log
        self._said = -math.inf
        self._changed = threading.Condition()
        self._queue: deque[str] = deque()
        self._alive: set[str] = set()

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
        """
        arrived = time.monotonic()
        request_id = uuid4().hex
        self._wait(request_id, users, seconds * _LEASE, stopping)
        try:
            yield time.monotonic() - arrived
        finally:
            self._end(request_id, users)

    def _wait(self, request_id: str, users: int, lease: float, stopping: threading.Event) -> None:
        with self._changed:
            self._queue.append(request_id)
            try:
                while not stopping.is_set():
                    wait = _SECONDS_BETWEEN_LOOKS
                    if self._queue[0] == request_id:
                        wait = self._begin(request_id, users, lease)
                        if not wait:
                            return
                    self._changed.wait(min(wait, _SECONDS_BETWEEN_LOOKS))
                raise StoppingError
            finally:
                self._queue.remove(request_id)
                self._changed.notify_all()

    def _begin(self, request_id: str, users: int, lease: float) -> float:
        """Note the request if there is room for it, before it is sent; returns how long to wait otherwise."""
        while True:
            text, window, set_back = self._read()
            now = time.time()
            most = max(self._room - users, 0)
            if len(window.under_way) >= self._requests:
                wait = _SECONDS_BETWEEN_LOOKS
            elif window.users > most:
                wait = max(window.seconds_until(most, now, self._seconds), 0.001)
                self._say(window.users, wait)
            else:
                wait = 0.0
                window.under_way[request_id] = Request(users, now, lease)
            if (wait and not set_back) or self._write(text, window):
                break
        if not wait:
            self._alive.add(request_id)
        return wait

    def _end(self, request_id: str, users: int) -> None:
        with self._changed:
            self._alive.discard(request_id)
            written = False
            while not written:
                text, window, _ = self._read()
                window.end(request_id, users, time.time(), self._seconds)
                written = self._write(text, window)
            self._changed.notify_all()

    def _read(self) -> tuple[str | None, Window, bool]:
        text = self._store.read()
        window = msgspec.json.decode(text, type=Window) if text else Window()
        return text, window, window.forget(time.time(), self._seconds, alive=self._alive)

    def _write(self, old: str | None, window: Window) -> bool:
        return self._store.swap(old, msgspec.json.encode(window).decode())

    def _say(self, users: int, wait: float) -> None:
        now = time.monotonic()
        if wait >= _SECONDS_BETWEEN_LINES and now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            self._log.info(
                f"{users:,} users were asked for in the last {self._seconds:,.0f} s; the limit is {self._limit:,}. "
                f"The next page waits {wait:.0f} s."
            )

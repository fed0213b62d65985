"""What the API allows is kept to by a catch-up in several processes, one of which is killed."""

import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from user_processing_tests.support import hostile_api
from user_processing_tests.support.account import Span, most_at_once, most_users
from user_processing_tests.support.checkout import Checkout, wait_for
from user_processing_tests.support.hostile_api import Exchange, HostileApi
from user_processing_tests.support.tables import create

LIMIT, WINDOW, AT_ONCE = 20_000, 1.0, 2
FIRST = dt.date(2023, 1, 1)
RUNS, DAYS_OF_A_RUN, USERS = 4, 15, 5_000


class Ledger:
    """Keeps the account of a server; the request after so many waits until it is released."""

    def __init__(self, hold_after: int) -> None:
        self.spans: list[Span] = []
        self.held: dict[str, str] = {}
        self.release = threading.Event()
        self._hold_after = hold_after
        self._asked = 0
        self._lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        began = time.monotonic()
        with self._lock:
            self._asked += 1
            if self._asked == self._hold_after:
                self.held.update(exchange.query)
        if self.held == exchange.query:
            self.release.wait(30)
        # The API takes its time; requests would hardly meet each other otherwise.
        exchange.over.wait(0.05)
        body = exchange.body()
        # Counted by now: when this thread gets to note it after the last byte, the client may long have gone on.
        self.spans.append(Span(began, time.monotonic(), int(exchange.query["results"])))
        exchange.send(hostile_api.head(Content_Length=len(body)) + body)


class Catchup:
    """Runs of `raw_user` in a checkout, each in a process of its own."""

    def __init__(self, checkout: Checkout, url: str, database: str) -> None:
        self._checkout = checkout
        self._environment = {
            "USERS_POSTGRES_URL": database,
            "USER_API_URL": url,
            "USER_API_RATE_LIMIT": str(LIMIT),
            "USERS_PER_DAY": str(USERS),
            "USERS_FILES_URL": str(checkout.folder / "days"),
        }
        api = {"rate_window_seconds": WINDOW, "concurrency": AT_ONCE, "attempt_seconds": 5, "backoff_seconds": 0.1}
        self._config = json.dumps({"resources": {"user_api": {"config": api}}})

    def start(self, run: int) -> "subprocess.Popen[bytes]":
        first, last = day(run * DAYS_OF_A_RUN), day((run + 1) * DAYS_OF_A_RUN - 1)
        command = (
            f"exec dagster asset materialize -m user_processing --select raw_user --partition-range {first}...{last}"
        )
        with (self._checkout.folder / f"{run}.log").open("ab") as log:
            return subprocess.Popen(
                ["bash", "-c", f"{command} --config-json '{self._config}'"],
                cwd=self._checkout.folder,
                env=self._checkout.environment | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def days(self) -> list[str]:
        """The days that have come whole."""
        return sorted(path.parent.name for path in self._checkout.folder.glob("days/*/pages.json"))


def day(number: int) -> str:
    return str(FIRST + dt.timedelta(days=number))


def test_a_catch_up_in_four_runs_of_which_one_is_killed_never_asks_for_more_than_is_allowed(
    database: str, tmp_path: Path
) -> None:
    create(database)
    ledger = Ledger(hold_after=20)
    checkout = Checkout(tmp_path)
    with HostileApi() as api, contextlib.ExitStack() as stack:
        api.always = ledger
        catchup = Catchup(checkout, api.url(), database)
        processes = [catchup.start(run) for run in range(RUNS)]
        for process in processes:
            stack.callback(end, process)
        wait_for(lambda: ledger.held)
        unlucky = (dt.date.fromisoformat(ledger.held["seed"]) - FIRST).days // DAYS_OF_A_RUN
        os.killpg(processes[unlucky].pid, signal.SIGKILL)
        processes[unlucky].wait()
        ledger.release.set()
        again = catchup.start(unlucky)
        stack.callback(end, again)
        for process in [*processes, again]:
            code = process.wait(90)
            assert code == (-signal.SIGKILL if process is processes[unlucky] else 0), catchup.days()
    assert api.faults == []
    assert catchup.days() == [day(number) for number in range(RUNS * DAYS_OF_A_RUN)]
    assert len(ledger.spans) >= RUNS * DAYS_OF_A_RUN
    assert most_at_once(ledger.spans) == AT_ONCE
    assert 2 * USERS < most_users(ledger.spans, WINDOW) <= LIMIT


def end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

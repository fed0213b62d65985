"""Runs that somebody asked for arrive, whatever happens to the code server: it is killed, stopped, upgraded under them.

The processes are those of the containers: a code server, a webserver, a daemon, each by itself. A kill takes the code
server with all of its runs, as the end of its container does.
"""

import contextlib
import json
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from user_processing_tests.faults.test_backfills import ASSETS, JOB, backfill, days_of, launch, runs
from user_processing_tests.support.checkout import (
    Checkout,
    Process,
    Serving,
    checkout_in,
    free_port,
    kill_all,
    wait_for,
)
from user_processing_tests.support.recorded_api import RecordedApi, recorded_users

pytestmark = pytest.mark.alone

CODE_SERVER = "python -m user_processing.internals.code_server --port"
OF_THE_COMMAND = [f"2024-01-{number:02}" for number in range(1, 15)]
OF_THE_JOB = [f"2024-02-{number:02}" for number in range(1, 15)]
OF_THE_UI = [f"2024-03-{number:02}" for number in range(1, 24, 2)]  # days that do not follow each other are runs
ALL = sorted({*OF_THE_COMMAND, *OF_THE_JOB, *OF_THE_UI})
POOL = 4  # runs at once, as `dagster.yaml` says


class Api(RecordedApi):
    """Keeps days waiting, as many as it is told to, and is down for polls when it is told to."""

    def __init__(self) -> None:
        super().__init__(recorded_users())
        self.down = False
        self.polls_while_down = 0
        self.waiting: set[str] = set()
        self._places = 0
        self._go = threading.Event()
        self._one = threading.Lock()
        self.tamper = self._answer

    def hold(self, days: int) -> None:
        """Keep the next days that are asked for waiting."""
        self.waiting = set()
        self._go.clear()
        self._places = days

    def release(self) -> None:
        self._places = 0
        self._go.set()

    def _answer(self, query: dict[str, str], page: dict[str, Any]) -> object:
        if query["results"] == "1":
            self.polls_while_down += self.down
            return {} if self.down else page
        day = query["seed"]
        with self._one:
            # Who has waited for long enough asks again, and waits again.
            if self._places > 0 and day in ALL and day not in self.waiting:
                self._places -= 1
                self.waiting.add(day)
        if day in self.waiting:
            self._go.wait()
        return page


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.release()
    api.close()


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    with checkout_in(tmp_path) as checkout:
        yield checkout


@contextlib.contextmanager
def code_server(checkout: Checkout, port: int) -> Iterator[Process]:
    with checkout.running(f"{CODE_SERVER} {port}", checkout.folder / "code.log") as process:
        wait_for(lambda: listens(port))
        yield process


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def of_ours(ui: Serving) -> dict[str, list[str]]:
    """Day → the statuses of its runs, oldest first."""
    found: dict[str, list[str]] = {}
    for run in runs(ui):
        if run["tags"].keys() & {"dagster/partition", "dagster/asset_partition_range_start"}:
            first, last = days_of(run)
            assert first == last
            if first in ALL:
                found.setdefault(first, []).append(run["status"])
    return found


def test_every_day_arrives_that_was_asked_for_before_the_code_server_was_killed_stopped_and_upgraded(
    checkout: Checkout, api: Api
) -> None:
    port, log = free_port(), checkout.folder / "daemon.log"
    server = {"host": "127.0.0.1", "port": port, "location_name": "user_processing"}
    (checkout.folder / "workspace.yaml").write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
    quicken(checkout.folder / "dagster.yaml", poll_interval_seconds=2, user_code_failure_retry_delay=2)
    checkout.environment |= {"USER_API_URL": api.url, "USERS_PER_DAY": "3", "USER_API_POKE_INTERVAL": "5"}
    # Dagster makes a pool when the first run needs it, and limits nothing before.
    checkout.run(f"dagster instance concurrency set user_api {POOL}", DAGSTER_HOME=str(checkout.folder))
    ui_command = "dagster-webserver --workspace workspace.yaml --port {port}"
    api.hold(POOL)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(code_server(checkout, port))
        ui = stack.enter_context(checkout.serving(ui_command, checkout.folder / "webserver.log"))
        stack.enter_context(checkout.running("dagster-daemon run --workspace workspace.yaml", log))

        backfill(checkout, f"FROM={OF_THE_COMMAND[0]} TO={OF_THE_COMMAND[-1]} DAYS_PER_RUN=1")
        checkout.run(f"dagster job backfill {JOB} --from {OF_THE_JOB[0]} --to {OF_THE_JOB[-1]} --noprompt")
        assert launch(ui, assetSelection=ASSETS, partitionNames=OF_THE_UI)["__typename"] == "LaunchBackfillSuccess"
        wait_for(lambda: sorted(of_ours(ui)) == ALL)
        wait_for(lambda: len(api.waiting) == POOL)

        # Killed, and gone until the queue has met a server that is not there, and a location that cannot be loaded.
        kill_all(first, signal.SIGKILL)
        in_progress = set(api.waiting)
        queued = set(ALL) - in_progress
        wait_for(lambda: "DagsterUserCodeUnreachableError: Could not reach user code server" in dequeued(log))
        wait_for(lambda: "DagsterCodeLocationLoadError: Failure loading user_processing" in dequeued(log))
        wait_for(lambda: "The backfill will resume once it is available again" in log.read_text())
        wait_for(lambda: {day for day, statuses in of_ours(ui).items() if statuses[0] == "FAILURE"} == in_progress)
        assert {tuple(of_ours(ui)[day]) for day in queued} <= {("QUEUED",), ("STARTING",)}
        api.release()
        second = stack.enter_context(code_server(checkout, port))
        wait_for(lambda: len(stored(checkout)) >= 2 * POOL)

        # Upgraded: the old one is told to end, takes no more runs, and lets those that it has finish.
        api.hold(2)
        wait_for(lambda: len(api.waiting) == 2)
        second.send_signal(signal.SIGTERM)
        wait_for(lambda: "Tried to start a run on a server after telling it to shut down" in dequeued(log))
        api.release()
        assert second.wait() == 0
        assets = checkout.folder / "user_processing" / "assets.py"
        assets.write_text(assets.read_text().replace("as the API sent them", "as the API has sent them"))
        stack.enter_context(code_server(checkout, port))

        # What died with its server is asked for by the sensor: after a pause, or when the API has come back.
        api.down = True
        wait_for(lambda: api.polls_while_down >= 2)
        api.down = False
        wait_for(lambda: stored(checkout) == dict.fromkeys(ALL, 3), seconds=900)
        wait_for(lambda: {statuses[-1] for statuses in of_ours(ui).values()} == {"SUCCESS"})
        assert {day for day, statuses in of_ours(ui).items() if statuses != ["SUCCESS"]} == in_progress


def dequeued(log: Path) -> str:
    """What the daemon says of runs that it could not launch."""
    return "".join(
        re.findall(r"Caught an error dequeuing run.*?(?=\n\S*\d{4}-\d\d-\d\d \d\d:|\Z)", log.read_text(), re.DOTALL)
    )


def quicken(settings: Path, **seconds: int) -> None:
    for name, value in seconds.items():
        text, changes = re.subn(rf"{name}: \d+", f"{name}: {value}", settings.read_text())
        assert changes == 1
        settings.write_text(text)


def stored(checkout: Checkout) -> Counter[str]:
    """Day → how many users of it are stored, of those that were asked for."""
    if checkout.query("SELECT to_regclass('users')") == [(None,)]:
        return Counter()
    found = checkout.query(
        "SELECT partition_date::text, count(*) FROM users WHERE partition_date < '2025-01-01' GROUP BY 1"
    )
    return Counter(dict(found))

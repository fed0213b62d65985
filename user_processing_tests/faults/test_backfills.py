"""Backfills through every door, with the daemon: Dagster's own, and the command that has what Airflow's has."""

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from user_processing_tests.support.checkout import Checkout, Serving, checkout_in, wait_for
from user_processing_tests.support.recorded_api import RecordedApi, recorded_users

pytestmark = pytest.mark.xdist_group("backfills")

LAUNCH = """
mutation ($backfill: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfill) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on Error { message }
  }
}"""
RUNS = "{ runsOrError { ... on Runs { results { runId status startTime tags { key value } } } } }"
ASSETS = [{"path": [name]} for name in ("users_table", "raw_user", "processed_user_csv", "stored_users")]
LOCATION = {"repositoryLocationName": "user_processing", "repositoryName": "__repository__"}
JOB = "-w workspace.yaml -j user_processing"


class Api(RecordedApi):
    """Answers days of the year 2024 when it is told to, and others at once."""

    def __init__(self) -> None:
        super().__init__(recorded_users())
        self.waiting: set[str] = set()
        self.go = threading.Event()
        self.tamper = self._hold

    def hold(self) -> None:
        """Keep whoever asks from now on waiting."""
        self.go.clear()
        self.waiting.clear()

    def _hold(self, query: dict[str, str], page: dict[str, Any]) -> object:
        if query["seed"].startswith("2024"):
            self.waiting.add(query["seed"])
            self.go.wait()
        return page


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.go.set()
    api.close()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, api: Api) -> Iterator[Checkout]:
    with checkout_in(tmp_path_factory.mktemp("checkout")) as checkout:
        checkout.environment |= {"USER_API_URL": api.url, "USERS_PER_DAY": "3"}
        yield checkout


@pytest.fixture(scope="module")
def dev(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    log = tmp_path_factory.mktemp("dev") / "dev.log"
    with checkout.serving("dagster dev --port {port}", log) as dev:
        yield dev


def backfill(checkout: Checkout, arguments: str) -> str:
    return checkout.run(f"make -o .venv/installed backfill {arguments}")


def name_of(said: str) -> str:
    (name,) = re.findall(r"This is backfill (\w+)", said)
    return str(name)


def runs(dev: Serving, **tags: str) -> list[dict[str, Any]]:
    """The runs that have these tags, oldest first, each with its tags as a dictionary."""
    found = dev.graphql(RUNS)["runsOrError"]["results"]
    for run in found:
        run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
    return [run for run in reversed(found) if tags.items() <= run["tags"].items()]


def days_of(run: dict[str, Any]) -> tuple[str, str]:
    tags = run["tags"]
    if day := tags.get("dagster/partition"):
        return day, day
    return tags["dagster/asset_partition_range_start"], tags["dagster/asset_partition_range_end"]


def stored(checkout: Checkout, first: str, last: str) -> list[tuple[str, int]]:
    """Day and number of users of the days from the first to the last."""
    if checkout.query("SELECT to_regclass('users')") == [(None,)]:
        return []
    return [
        (day, count)
        for day, count in checkout.query(
            "SELECT partition_date::text, count(*) FROM users "
            f"WHERE partition_date BETWEEN '{first}' AND '{last}' GROUP BY 1 ORDER BY 1"
        )
    ]


def launch(dev: Serving, **parameters: object) -> dict[str, Any]:
    answer = dev.graphql(LAUNCH, {"backfill": parameters})
    found: dict[str, Any] = answer["launchPartitionBackfill"]
    return found


def test_the_ui_s_backfill_of_assets_is_one_run_for_days_that_follow_each_other(
    checkout: Checkout, dev: Serving
) -> None:
    days = ["2023-05-01", "2023-05-02", "2023-05-03", "2023-05-07"]
    started = launch(dev, assetSelection=ASSETS, partitionNames=days)
    assert started["__typename"] == "LaunchBackfillSuccess"
    wait_for(lambda: stored(checkout, "2023-05-01", "2023-05-09") == [(day, 3) for day in days])
    partitioned = [run for run in runs(dev, **{"dagster/backfill": started["backfillId"]}) if len(run["tags"]) > 1]
    spans = {days_of(run) for run in partitioned if "dagster/asset_partition_range_start" in run["tags"]}
    assert spans == {("2023-05-01", "2023-05-03"), ("2023-05-07", "2023-05-07")}


def test_a_backfill_of_the_job_stores_its_days(checkout: Checkout, dev: Serving) -> None:
    selector = {"partitionSetName": "user_processing_partition_set", "repositorySelector": LOCATION}
    days = ["2023-05-11", "2023-05-12"]
    assert launch(dev, selector=selector, partitionNames=days)["__typename"] == "LaunchBackfillSuccess"
    checkout.run(f"dagster job backfill {JOB} --from 2023-05-13 --to 2023-05-14 --noprompt")
    days += ["2023-05-13", "2023-05-14"]
    wait_for(lambda: stored(checkout, "2023-05-11", "2023-05-19") == [(day, 3) for day in days])


@pytest.mark.parametrize(
    ("command", "day"),
    [
        ("dagster asset materialize -m user_processing --select '*' --partition-range", "2023-06-0"),
        ("dg launch --assets '*' --partition-range", "2023-06-1"),
    ],
)
def test_a_range_on_the_command_line_is_one_run(checkout: Checkout, dev: Serving, command: str, day: str) -> None:
    checkout.run(f"{command} {day}1...{day}3")
    assert stored(checkout, f"{day}1", f"{day}9") == [(f"{day}{number}", 3) for number in (1, 2, 3)]
    (run,) = [run for run in runs(dev) if run["tags"].get("dagster/asset_partition_range_start") == f"{day}1"]
    assert run["status"] == "SUCCESS"


@pytest.mark.parametrize("days", ["2023-02-05 2023-02-02", "2026-01-01 2199-01-01"])
def test_a_range_that_dagster_accepts_is_refused_by_the_assets(checkout: Checkout, dev: Serving, days: str) -> None:
    first, last = days.split()
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    before = len(runs(dev, **tags))
    checkout.run(f"dagster job launch {JOB} --tags '{json.dumps(tags)}'")
    wait_for(lambda: [run["status"] for run in runs(dev, **tags)[before:]] == ["FAILURE"])


def test_a_dry_run_prints_days_and_runs_and_queues_nothing(checkout: Checkout, dev: Serving) -> None:
    before = len(runs(dev))
    said = backfill(checkout, "FROM=2023-07-01 TO=2023-07-10 DAYS_PER_RUN=4 BACKWARDS=1 DRY_RUN=1")
    assert re.findall(r"^  (\S+)", said, re.MULTILINE) == [
        "2023-07-09...2023-07-10",
        "2023-07-05...2023-07-08",
        "2023-07-01...2023-07-04",
    ]
    assert "10 days in 3 runs" in said
    assert len(runs(dev)) == before


def test_days_are_left_out_or_run_again_as_it_is_told(checkout: Checkout, dev: Serving, api: Api) -> None:
    """Of three days one is stored, one has failed, and one was never tried."""
    checkout.run("dagster asset materialize -m user_processing --select '*' --partition 2023-08-01")
    api.tamper = lambda _, __: {}
    failed = checkout.try_to("dagster asset materialize -m user_processing --select '*' --partition 2023-08-02")
    api.tamper = api._hold  # noqa: SLF001
    assert failed.returncode != 0

    def planned(reprocess: str) -> list[str]:
        said = backfill(checkout, f"FROM=2023-08-01 TO=2023-08-03 DRY_RUN=1 {reprocess}")
        return re.findall(r"^  (\S+)", said, re.MULTILINE)

    assert planned("") == planned("REPROCESS=none") == ["2023-08-03"]
    assert planned("REPROCESS=failed") == ["2023-08-02...2023-08-03"]
    assert planned("REPROCESS=completed") == ["2023-08-01...2023-08-03"]
    (before,) = checkout.query("SELECT run_id FROM user_loads WHERE partition_date = '2023-08-01'")
    name = name_of(backfill(checkout, "FROM=2023-08-01 TO=2023-08-03 REPROCESS=completed"))
    (run,) = runs(dev, **{"user_processing/backfill": name})
    wait_for(lambda: [found["status"] for found in runs(dev, **{"user_processing/backfill": name})] == ["SUCCESS"])
    assert stored(checkout, "2023-08-01", "2023-08-03") == [(f"2023-08-0{number}", 3) for number in (1, 2, 3)]
    assert (
        checkout.query(
            "SELECT DISTINCT run_id FROM user_loads WHERE partition_date <= '2023-08-03' AND "
            "partition_date >= '2023-08-01'"
        )
        == [(run["runId"],)]
        != [before]
    )


def test_a_backfill_is_limited_cancelled_and_resumed(checkout: Checkout, dev: Serving, api: Api) -> None:
    api.hold()
    said = backfill(checkout, "FROM=2024-02-01 TO=2024-02-12 DAYS_PER_RUN=2 MAX_ACTIVE_RUNS=2 BACKWARDS=1")
    assert "12 days in 6 runs, at most 2 of them active" in said
    name = name_of(said)
    tag = {"user_processing/backfill": name}

    def of_status(*statuses: str) -> list[tuple[str, str]]:
        return [days_of(run) for run in runs(dev, **tag) if run["status"] in statuses]

    # Two lanes: the newest days are at work, and nothing else is launched however long they take.
    wait_for(lambda: api.waiting)
    wait_for(lambda: len(of_status("STARTED")) == 2)
    assert of_status("STARTED") == [("2024-02-11", "2024-02-12"), ("2024-02-09", "2024-02-10")]
    assert len(of_status("QUEUED")) == 4
    # Days that are queued are at work: nobody asks for them twice.
    assert "No day is left to run" in backfill(checkout, "FROM=2024-02-01 TO=2024-02-12")

    assert name in backfill(checkout, "")
    said = backfill(checkout, f"CANCEL={name}")
    assert "6 runs are cancelled: 2024-02-01 to 2024-02-12" in said
    api.go.set()
    wait_for(lambda: len(of_status("CANCELED")) == 6)
    assert stored(checkout, "2024-02-01", "2024-02-12") == []

    said = backfill(checkout, f"RESUME={name} DAYS_PER_RUN=5 MAX_ACTIVE_RUNS=1 BACKWARDS=0")
    assert "12 days in 3 runs, at most 1 of them active" in said
    wait_for(lambda: len(of_status("SUCCESS")) == 3)
    assert stored(checkout, "2024-02-01", "2024-02-12") == [(f"2024-02-{number:02}", 3) for number in range(1, 13)]
    finished = [run for run in runs(dev, **tag) if run["status"] == "SUCCESS"]
    assert [days_of(run)[0] for run in sorted(finished, key=lambda run: run["startTime"])] == [
        "2024-02-01",
        "2024-02-06",
        "2024-02-11",
    ]
    assert "No day is left to run" in backfill(checkout, f"RESUME={name}")


def test_no_more_runs_ask_the_api_at_once_than_the_pool_has_slots(checkout: Checkout, dev: Serving, api: Api) -> None:
    api.hold()
    name = name_of(backfill(checkout, "FROM=2024-03-01 TO=2024-03-07 DAYS_PER_RUN=1"))
    tag = {"user_processing/backfill": name}
    wait_for(lambda: len(api.waiting) == 4)
    statuses = sorted(run["status"] for run in runs(dev, **tag))
    assert statuses == ["QUEUED"] * 3 + ["STARTED"] * 4
    api.go.set()
    wait_for(lambda: [run["status"] for run in runs(dev, **tag)] == ["SUCCESS"] * 7)
    assert len(api.waiting) == 7


@pytest.mark.parametrize("arguments", ["CANCEL=nothing", "RESUME=nothing"])
def test_a_backfill_that_there_is_not_is_an_error(checkout: Checkout, arguments: str) -> None:
    finished = checkout.try_to(f"make -o .venv/installed backfill {arguments}")
    assert finished.returncode != 0
    assert "There is no backfill nothing." in finished.stdout

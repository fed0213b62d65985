"""Airflow's catch-up on the real daemon: the API comes back, and all of history arrives by itself, in one run."""

from pathlib import Path

import pytest

from user_processing_tests.support.checkout import Checkout, wait_for
from user_processing_tests.support.recorded_api import RecordedApi

pytestmark = pytest.mark.xdist_group("history")

TICKS = """{ sensorOrError(sensorSelector: {
  repositoryLocationName: "user_processing", repositoryName: "__repository__", sensorName: "api_availability"
}) { ... on Sensor { sensorState { ticks { status skipReason } } } } }"""
RUNS = "{ runsOrError { ... on Runs { results { status tags { key value } } } } }"


def test_all_of_history_arrives_once_the_api_is_back(
    tmp_path: Path, recorded_api: RecordedApi, request: pytest.FixtureRequest
) -> None:
    checkout = Checkout(tmp_path)
    request.addfinalizer(lambda: checkout.run("python -m user_processing stop"))
    checkout.run("make .env")
    recorded_api.tamper = lambda _, page: {**page, "results": []}
    environment = {"USER_API_URL": recorded_api.url, "USERS_CATCHUP": "true", "USER_API_POKE_INTERVAL": "5"}

    with checkout.serving("dagster dev --port {port}", tmp_path / "dev.log", **environment) as dev:

        def said() -> list[str]:
            sensor = dev.graphql(TICKS)["sensorOrError"]
            return [str(tick["skipReason"]) for tick in sensor.get("sensorState", {}).get("ticks", [])]

        wait_for(lambda: any("It has been down since" in reason for reason in said()))
        recorded_api.tamper = lambda _, page: page
        wait_for(lambda: any("days that are due are stored" in reason for reason in said()))
        runs = dev.graphql(RUNS)["runsOrError"]["results"]
    yesterday = checkout.run("date -u -d yesterday +%F").strip()
    assert [run["status"] for run in runs] == ["SUCCESS"]
    assert {"key": "dagster/run_key", "value": f"2023-01-01...{yesterday}#1"} in runs[0]["tags"]
    assert checkout.query(
        "SELECT min(partition_date)::text, max(partition_date)::text, count(*) = count(DISTINCT partition_date), "
        "max(partition_date) - min(partition_date) + 1 = count(*) FROM users"
    ) == [("2023-01-01", yesterday, True, True)]

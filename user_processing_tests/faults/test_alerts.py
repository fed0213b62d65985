"""The daemon tells the webhook of runs that fail, whoever launched them."""

import json
import os
from pathlib import Path

from user_processing_tests.support.checkout import Checkout, Serving, wait_for
from user_processing_tests.support.recorded_api import RecordedApi
from user_processing_tests.support.webhook import CANARY, Webhook

DAY, LAST_DAY = "2023-01-01", "2023-01-03"
TICKS = """{ sensorOrError(sensorSelector: {repositoryLocationName: "user_processing", repositoryName: "__repository__",
sensorName: "failure_alerts"}) { ... on Sensor { sensorState { ticks { status skipReason } } } } }"""


def ticked(dev: Serving) -> bool:
    sensor = dev.graphql(TICKS)["sensorOrError"]
    return any(tick["status"] == "SKIPPED" for tick in sensor["sensorState"]["ticks"])


def test_the_daemon_tells_of_runs_that_were_launched_and_of_those_of_a_command_line(
    tmp_path: Path, recorded_api: RecordedApi, webhook: Webhook
) -> None:
    recorded_api.tamper = lambda _, page: {**page, "results": []}
    checkout = Checkout(tmp_path)
    checkout.run("make .env")
    environment = {"USER_API_URL": recorded_api.url, "USERS_ALERT_URL": os.environ["USERS_ALERT_URL"]}
    tags = json.dumps({"dagster/partition": DAY})
    try:
        with checkout.serving("dagster dev --port {port}", tmp_path / "dev.log", **environment) as dev:
            # The first tick looks for nothing: it notes where to begin.
            wait_for(lambda: ticked(dev))
            checkout.run(f"dagster job launch -w workspace.yaml -j user_processing --tags '{tags}'")
            command = f"dagster asset materialize -m user_processing --select '*' --partition {LAST_DAY}"
            assert checkout.try_to(command, **environment).returncode
            launched = f"user_processing failed, day {DAY}.\nraw_user: "
            by_command = f"__ASSET_JOB failed, day {LAST_DAY}.\nraw_user: "
            # A tick every 30 s tells of one run; the sensor of the API may have launched days that failed as well.
            wait_for(lambda: any(text.startswith(launched) for text in webhook.texts), seconds=240)
            wait_for(lambda: any(text.startswith(by_command) for text in webhook.texts), seconds=240)
    finally:
        checkout.run("python -m user_processing stop")
    assert CANARY not in (tmp_path / "dev.log").read_text()
    assert len(webhook.texts) == len(set(webhook.texts))

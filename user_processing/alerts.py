"""Runs that failed: what is told of them, and how it gets to a webhook.

No secret goes out. The texts of `dagster.Failure` are quoted, which this project keeps free of secrets, and those that
Dagster writes where a run's process is gone. Of any other error the class is named. The webhook's URL is a secret.
"""

import base64
import http.client
import json
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit

import dagster as dg
from dagster._core.definitions.run_request import DagsterRunReaction
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    WILL_RETRY_TAG,
)
from dagster_shared.error import SerializableErrorInfo

from user_processing import variables

SECONDS = 10.0
"""The time for one alert, with all its attempts and pauses. Dagster gives a tick 60 s."""

LONGEST = 2000
"""Characters of an alert."""

_ATTEMPTS = 3
_SEE_PAGE = "The run's page tells more."
_DAGSTERS_OWN = (  # how the messages begin that Dagster writes for a run whose process cannot
    "Detected run worker status ",
    "Exceeded maximum runtime of ",
    "Run timed out due to ",
    "This job is being forcibly marked as failed.",
    "This run has been marked as failed from outside the execution context.",
)


@dg.run_failure_sensor(
    name="failure_alerts",
    description="Posts an alert to USERS_ALERT_URL for each run that failed.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    # A run of the command line names no code location, and would be left out. The instance is this project's own.
    monitor_all_code_locations=True,
)
def failure_alerts(context: dg.RunFailureSensorContext) -> dg.SkipReason | DagsterRunReaction:
    """Tells the webhook of one run. Where that fails, the alert is given up, and the tick says why.

    What is returned ends the tick, and moves the cursor past this run. After None, Dagster would go on to the next run
    in the same tick; a skip reason for that one would then be an error, and the tick would be repeated for ever.
    """
    run = context.dagster_run
    url = variables.text("USERS_ALERT_URL")
    if url is None:
        return dg.SkipReason(f"USERS_ALERT_URL is not set: nobody is told that run {run.run_id} failed.")
    seen = post(url, alert(context))
    if seen:
        return dg.SkipReason(f"The alert for run {run.run_id} was not sent. {seen}")
    return DagsterRunReaction(run, run_status=dg.DagsterRunStatus.FAILURE)


def alert(context: dg.RunFailureSensorContext) -> str:
    """The text for a run, escaped for Slack: job, days, assets, errors, and where its page is."""
    run = context.dagster_run
    errors = [_step_error(event) for event in context.get_step_failure_events()] or [_run_error(context.failure_event)]
    ui = variables.text("USERS_UI_URL") or "http://127.0.0.1:3000"
    # Dagster adds the tag right after the event that this sensor waits for.
    again = ["Dagster tries it again."] if run.tags.get(WILL_RETRY_TAG) == "true" else []
    end = _escaped("\n".join(["", *again, f"{ui.rstrip('/')}/runs/{run.run_id}"]))
    start = _escaped("\n".join([f"{run.job_name} failed, {_days(run.tags)}.", *errors]))
    if len(start) + len(end) > LONGEST:
        # Without half of an escaped character.
        start = re.sub(r"&[a-z]*$", "", start[: LONGEST - len(end) - 1]) + "…"
    return start + end


def post(url: str, text: str) -> str | None:
    """Post a text as Slack's incoming webhooks and compatible endpoints take it, in `SECONDS` at most.

    It is done in a thread, which is left behind when the time is over: no timeout of the standard library bounds a name
    look-up, or an answer that comes byte by byte. urllib3 would write the URL to its log; urllib.request does not.

    Returns:
        None if it was accepted, or else what was seen instead, with no more of the URL than scheme and host.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"}:
        return "USERS_ALERT_URL is not the URL of a webhook."
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    end = time.monotonic() + SECONDS
    body = json.dumps({"text": text}).encode()
    threading.Thread(target=lambda: answers.put(_attempts(parts, body, end)), name="alert", daemon=True).start()
    try:
        seen = answers.get(timeout=SECONDS)
    except queue.Empty:
        seen = f"no answer in {SECONDS:g} s"
    # An @ further on: the password held a / that was not escaped, and what looks like the host is the user.
    shown = "…" if "@" in parts.path + parts.query + parts.fragment else parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{shown}: {seen}." if seen else None


def _attempts(parts: SplitResult, body: bytes, end: float) -> str | None:
    """Post until it is accepted; returns what was seen the last time if it never is."""
    seen = None
    for attempt in range(_ATTEMPTS):
        time.sleep(SECONDS / 10 if attempt else 0)
        left = end - time.monotonic()
        if left <= 0:
            break
        try:
            _once(parts, body, left)
        except urllib.error.HTTPError as error:
            error.close()
            seen = f"HTTP {error.code}"
        except OSError as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            seen = f"{type(cause).__name__}: {cause}"
        except (http.client.HTTPException, ValueError) as error:
            # Their texts quote the URL, or the answer.
            seen = type(error).__name__
        else:
            return None
    return seen


def _once(parts: SplitResult, body: bytes, seconds: float) -> None:
    """One attempt. `seconds` bounds each wait for the server, not their sum."""
    opener = urllib.request.OpenerDirector()
    # None of them follows a redirect: it is an error.
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler())
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    headers = {"Content-Type": "application/json"}
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - http or https
    opener.open(request, timeout=seconds).close()


def _step_error(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    said = data.user_failure_data and data.user_failure_data.description
    return f"{event.step_key}: {said or _class(data.error)}"


def _run_error(event: dg.DagsterEvent) -> str:
    """Why a run failed of which no step did."""
    error = event.job_failure_data.error if event.event_specific_data else None
    # Further lines would quote what the run has printed.
    message = (event.message or "").partition("\n")[0]
    return message if error is None and message.startswith(_DAGSTERS_OWN) else _class(error)


def _class(error: SerializableErrorInfo | None) -> str:
    """The class of an error; Dagster wraps in its own what an asset or a resource raises."""
    name = error and (error.cause or error).cls_name
    return f"{name}. {_SEE_PAGE}" if name else _SEE_PAGE


def _days(tags: Mapping[str, str]) -> str:
    first = tags.get(PARTITION_NAME_TAG) or tags.get(ASSET_PARTITION_RANGE_START_TAG)
    last = tags.get(ASSET_PARTITION_RANGE_END_TAG, first)
    if first is None:
        return "no day"
    return f"day {first}" if first == last else f"days {first} to {last}"


def _escaped(text: str) -> str:
    """Without the three characters that mean something to Slack, such as in `<!channel>`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

"""Alerts of runs that failed: real runs, and a webhook over real HTTP that does whatever a webhook can do wrong.

Other channels are in `test_channels`.
"""

import base64
import dataclasses
import datetime as dt
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from user_processing import alerts, channel, checks, notify, settings
from user_processing.days.cadence import CADENCE
from user_processing.days.runs import FAILED_DAYS
from user_processing.definitions import defs
from user_processing.internals.ticks import failure_was_told
from user_processing.notify import Alert
from user_processing.store.postgres import Postgres
from user_processing_tests.support import certificates
from user_processing_tests.support.checkout import TOMORROW
from user_processing_tests.support.dagster_records import ORIGIN
from user_processing_tests.support.hostile_api import Behaviour, Exchange
from user_processing_tests.support.pipeline import Pipeline
from user_processing_tests.support.recorded_api import RecordedApi, Row
from user_processing_tests.support.webhook import CANARY, PATH, Webhook, drips, hangs, says, sends

DAY, LAST_DAY = "2023-01-01", "2023-01-03"
ENDED = dataclasses.replace(CADENCE, last_day=LAST_DAY)
UI = "http://127.0.0.1:3000"
LONGEST_WAIT = 10.0  # seconds
ALERT = Alert("It failed.", "See there.")
SEE_PAGE = "The run's page tells more."

Query = Callable[..., list[Row]]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """One that retries runs whose processes died, as `dagster.yaml` says."""
    retries = {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path), settings={"run_retries": retries}) as instance:
        yield instance


def fails(error: Exception, name: str = "failing") -> dg.AssetsDefinition:
    """An asset that does nothing else."""

    @dg.asset(name=name)
    def failing() -> None:
        raise error

    return failing


def failed(instance: dg.DagsterInstance, error: Exception, **tags: str) -> dg.DagsterRun:
    """A run that failed in an asset of its own."""
    return dg.materialize([fails(error)], instance=instance, raise_on_error=False, tags=tags).dagster_run


def died(instance: dg.DagsterInstance, message: str | None = None) -> dg.DagsterRun:
    """A run whose process is gone, marked as failed from outside, as run monitoring does it."""
    run = instance.create_run_for_job(
        dg.define_asset_job("user_processing").resolve(
            asset_graph=dg.Definitions([fails(ValueError())]).resolve_asset_graph()
        ),
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": DAY},
        remote_job_origin=ORIGIN,
    )
    instance.report_run_failed(run, message)
    return run


def evaluated(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """Have the sensor look at a run; returns the reason why it skipped."""
    (record,) = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records
    reloaded = instance.get_run_by_id(run.run_id)
    assert reloaded
    assert record.event_log_entry.dagster_event
    context = dg.build_run_status_sensor_context(
        "failure_alerts", record.event_log_entry.dagster_event, instance, reloaded
    )
    result = alerts.failure_alerts(context.for_run_failure())
    if isinstance(result, dg.SkipReason):
        return result.skip_message
    assert isinstance(result, type(failure_was_told(run)))
    return None


def told(instance: dg.DagsterInstance, run: dg.DagsterRun, webhook: Webhook) -> str:
    """The text that is sent for a run, without the address of its page."""
    assert evaluated(instance, run) is None
    text, _, page = webhook.texts[-1].rpartition("\n")
    assert page == f"{UI}/runs/{run.run_id}"
    return text


def test_a_day_that_failed_is_told_with_job_day_asset_error_and_page(
    pipeline: Pipeline, recorded_api: RecordedApi, webhook: Webhook
) -> None:
    recorded_api.tamper = lambda _, page: {**page, "results": []}
    pipeline.ask(recorded_api)
    result = pipeline.run(DAY)
    run, error = result.dagster_run, pipeline.error(result)
    assert "0 came" in error
    assert "<" not in error + run.job_name
    assert evaluated(pipeline.instance, run) is None
    (asked,) = webhook.asked
    assert asked.target == PATH
    assert asked.headers["content-type"] == "application/json"
    assert json.loads(asked.sent) == {
        "text": f"{run.job_name} failed, day {DAY}.\nraw_user: {error.replace('&', '&amp;')}\n{UI}/runs/{run.run_id}"
    }


def test_a_range_of_days_is_told_with_its_first_and_last(
    pipeline: Pipeline, recorded_api: RecordedApi, webhook: Webhook
) -> None:
    recorded_api.tamper = lambda _, page: {**page, "results": []}
    pipeline.ask(recorded_api)
    run = pipeline.run(DAY, LAST_DAY).dagster_run
    assert told(pipeline.instance, run, webhook).startswith(
        f"{run.job_name} failed, days {DAY} to {LAST_DAY}.\nraw_user: "
    )
    run = pipeline.run(DAY, DAY).dagster_run
    assert f" failed, day {DAY}.\n" in told(pipeline.instance, run, webhook)


def test_a_run_without_days_says_so(instance: dg.DagsterInstance, webhook: Webhook) -> None:
    run = failed(instance, dg.Failure("The table is gone."))
    assert told(instance, run, webhook) == f"{run.job_name} failed, no day.\nfailing: The table is gone."


def test_each_asset_that_failed_is_told(instance: dg.DagsterInstance, webhook: Webhook) -> None:
    assets = [fails(dg.Failure("no table")), fails(dg.Failure("no space"), "also_failing")]
    run = dg.materialize(assets, instance=instance, raise_on_error=False).dagster_run
    lines = told(instance, run, webhook).splitlines()
    assert sorted(lines[1:]) == ["also_failing: no space", "failing: no table"]


def test_of_an_error_that_is_no_failure_only_the_class_is_told(
    instance: dg.DagsterInstance, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    run = failed(instance, ValueError(f"password={CANARY}"))
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        assert told(instance, run, webhook) == f"{run.job_name} failed, no day.\nfailing: ValueError. {SEE_PAGE}"
    assert CANARY not in caplog.text


def test_of_a_failure_without_a_description_the_class_is_told(instance: dg.DagsterInstance, webhook: Webhook) -> None:
    run = failed(instance, dg.Failure(metadata={"secret": CANARY}))
    assert told(instance, run, webhook) == f"{run.job_name} failed, no day.\nfailing: Failure. {SEE_PAGE}"


def test_a_run_that_failed_before_its_steps_is_told_with_the_class(
    instance: dg.DagsterInstance, webhook: Webhook
) -> None:
    @dg.resource
    def broken(_: dg.InitResourceContext) -> None:
        raise LookupError(CANARY)

    @dg.asset(required_resource_keys={"broken"})
    def unreached() -> None:
        raise AssertionError

    result = dg.materialize([unreached], resources={"broken": broken}, instance=instance, raise_on_error=False)
    run = result.dagster_run
    assert not any(event.is_step_failure for event in result.all_events)
    # Dagster has marked it to be retried, which it does with runs alone that a code location has launched.
    assert run.remote_job_origin is None
    assert told(instance, run, webhook) == f"{run.job_name} failed, no day.\nLookupError. {SEE_PAGE}"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "Detected run worker status NOT_FOUND: 'The code server is gone.'. Marking run 1 as failed.",
            "Detected run worker status NOT_FOUND: 'The code server is gone.'. Marking run 1 as failed.",
        ),
        (
            f"Run timed out due to taking longer than 300 seconds to start.\nThe logs: {CANARY}",
            "Run timed out due to taking longer than 300 seconds to start.",
        ),
        ("Exceeded maximum runtime of 43200 seconds.", "Exceeded maximum runtime of 43200 seconds."),
        (None, "This run has been marked as failed from outside the execution context."),
        (f"password={CANARY}", SEE_PAGE),
    ],
)
def test_a_run_whose_process_died_is_told_in_dagster_s_own_words_and_is_tried_again(
    instance: dg.DagsterInstance, webhook: Webhook, message: str | None, shown: str
) -> None:
    run = died(instance, message)
    assert told(instance, run, webhook) == f"user_processing failed, day {DAY}.\n{shown}\nDagster tries it again."


def test_a_run_that_is_not_tried_again_does_not_say_so(instance: dg.DagsterInstance, webhook: Webhook) -> None:
    run = failed(instance, dg.Failure("no table"))
    reloaded = instance.get_run_by_id(run.run_id)
    assert reloaded
    assert reloaded.tags["dagster/will_retry"] == "false"
    assert "again" not in told(instance, run, webhook)


def test_what_means_something_to_slack_or_to_json_is_escaped(instance: dg.DagsterInstance, webhook: Webhook) -> None:
    run = failed(instance, dg.Failure('<!channel> &amp; "Zoë"\n\\ \ud800'))
    said = told(instance, run, webhook)
    # Half of a character is none, and no mail can hold it.
    assert said.endswith('failing: &lt;!channel&gt; &amp;amp; "Zoë"\n\\ ?')
    run = failed(instance, dg.Failure("no table"), **{"dagster/partition": "<!here>"})
    assert "day &lt;!here&gt;." in told(instance, run, webhook)


@pytest.mark.parametrize("length", range(1990, 2010))
def test_a_text_is_cut_before_the_page_and_between_characters(
    instance: dg.DagsterInstance, webhook: Webhook, length: int
) -> None:
    run = died(instance, "Run timed out due to " + "x" * (length - 1990) + "&" * 2000)
    said = told(instance, run, webhook)
    assert len(webhook.texts[-1]) <= channel.MAX_ALERT_LENGTH
    assert len(webhook.texts[-1]) > channel.MAX_ALERT_LENGTH - 6
    cut = said.removesuffix("\nDagster tries it again.")
    assert cut.endswith("&amp;…")


def test_a_text_that_just_fits_is_not_cut(instance: dg.DagsterInstance, webhook: Webhook) -> None:
    evaluated(instance, died(instance, "Run timed out due to "))
    room = channel.MAX_ALERT_LENGTH - len(webhook.texts[-1])
    evaluated(instance, died(instance, "Run timed out due to " + "x" * room))
    evaluated(instance, died(instance, "Run timed out due to " + "x" * (room + 1)))
    assert [len(text) for text in webhook.texts[-2:]] == [
        channel.MAX_ALERT_LENGTH,
        channel.MAX_ALERT_LENGTH,
    ]
    assert ["…" in text for text in webhook.texts[-2:]] == [False, True]


@pytest.mark.parametrize("ui", ["https://dagster.example/ui", "https://dagster.example/ui/"])
def test_the_page_is_where_users_ui_url_says(
    instance: dg.DagsterInstance, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, ui: str
) -> None:
    monkeypatch.setenv("USERS_UI_URL", ui)
    run = died(instance)
    assert evaluated(instance, run) is None
    assert webhook.texts[-1].endswith(f"\nhttps://dagster.example/ui/runs/{run.run_id}")


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_url_nobody_is_told_and_the_reason_says_so(
    instance: dg.DagsterInstance, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("USERS_ALERT_URL")
    else:
        monkeypatch.setenv("USERS_ALERT_URL", value)
    run = died(instance)
    assert evaluated(instance, run) == f"USERS_ALERT_URL is not set: nobody is told that run {run.run_id} failed."
    assert webhook.asked == []


def post(url: str) -> str | None:
    """Tell a URL; returns what came instead of its consent."""
    return notify.tell({url: ALERT}).get(url)


@pytest.fixture
def post_without_a_trace(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Post to a webhook that is dead; what was seen is returned. Nothing secret is in it, in a log, or printed."""

    def post_without_a_trace(url: str) -> str:
        before = set(psutil.Process().children())
        begun = time.monotonic()
        with caplog.at_level(logging.DEBUG):
            seen = post(url)
        assert time.monotonic() - begun < notify.ALERT_TIMEOUT + 1
        assert seen
        printed = capfd.readouterr()
        assert CANARY not in seen + caplog.text + printed.out + printed.err
        # Nothing of it is left behind.
        assert set(psutil.Process().children()) <= before
        return seen

    return post_without_a_trace


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (says(500), "HTTP 500"),
        (says(429), "HTTP 429"),
        (says(404), "HTTP 404"),
        (says(302, Location=f"/{CANARY}-elsewhere"), "HTTP 302"),
        (says(307, Location=f"/{CANARY}-elsewhere"), "HTTP 307"),
        (says(301, Location=f"file:///{CANARY}"), "HTTP 301"),
        (sends(f"{CANARY}\r\n".encode()), "BadStatusLine"),
        (sends(b""), "RemoteDisconnected"),
    ],
)
def test_an_answer_that_is_none_is_an_error(
    webhook: Webhook, post_without_a_trace: Callable[[str], str], answer: Behaviour, seen: str
) -> None:
    webhook.always = answer
    assert post_without_a_trace(f"http://{webhook.host}{PATH}") == f"http://{webhook.host}: {seen}."
    assert [asked.target for asked in webhook.asked] == [PATH] * 3


@pytest.mark.parametrize("answer", [hangs, drips])
def test_a_webhook_that_takes_its_time_is_given_up(
    webhook: Webhook, post_without_a_trace: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, answer: Behaviour
) -> None:
    monkeypatch.setattr(notify, "ALERT_TIMEOUT", 4.0)
    webhook.always = answer
    assert post_without_a_trace(f"http://{webhook.host}{PATH}") == f"http://{webhook.host}: no answer in 4 s."
    assert len(webhook.asked) == 1


def test_a_name_look_up_that_takes_its_time_is_given_up(
    monkeypatch: pytest.MonkeyPatch, post_without_a_trace: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, socket, time\n"
        "def look_up(*_, **__):\n"
        "    pathlib.Path(__file__).with_name('asked').touch()\n"
        "    time.sleep(600)\n"
        "socket.getaddrinfo = look_up\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(notify, "ALERT_TIMEOUT", 4.0)
    assert post_without_a_trace(f"https://hooks.example{PATH}") == "https://hooks.example: no answer in 4 s."
    assert (tmp_path / "asked").exists()


def test_a_webhook_that_takes_its_time_keeps_nobody_else_from_being_told(webhook: Webhook) -> None:
    fast_is_told = threading.Event()

    def waits(exchange: Exchange) -> None:
        says(200 if fast_is_told.wait(LONGEST_WAIT) else 503)(exchange)

    def is_told(exchange: Exchange) -> None:
        fast_is_told.set()
        says(200)(exchange)

    with Webhook() as slow:
        slow.always, webhook.always = waits, is_told
        assert notify.tell({f"http://{server.host}{PATH}": ALERT for server in (slow, webhook)}) == {}
        assert slow.texts == webhook.texts == ["It failed.\nSee there."]


@pytest.mark.usefixtures("webhook")
def test_nobody_listens(post_without_a_trace: Callable[[str], str]) -> None:
    with Webhook() as gone:
        pass
    seen = post_without_a_trace(f"http://{CANARY}-user:{CANARY}-password@{gone.host}{PATH}")
    assert seen == f"http://{gone.host}: ConnectionRefusedError: Connection refused."


@pytest.mark.usefixtures("webhook")
def test_a_name_that_is_none(post_without_a_trace: Callable[[str], str]) -> None:
    seen = post_without_a_trace(f"https://{CANARY}-user:{CANARY}-password@hooks.invalid{PATH}")
    assert seen.startswith("https://hooks.invalid: gaierror: ")


@pytest.mark.usefixtures("webhook")
def test_a_certificate_that_nobody_vouches_for(post_without_a_trace: Callable[[str], str], tmp_path: Path) -> None:
    with Webhook(tls=certificates.make(tmp_path).self_signed) as safe:
        seen = post_without_a_trace(f"https://{safe.host}{PATH}")
        assert seen.startswith(f"https://{safe.host}: SSLCertVerificationError: ")
        assert safe.asked == []


@pytest.mark.parametrize(
    "url",
    [
        f"{CANARY}",
        f"hooks.example/{CANARY}",
        f"/{CANARY}",
        f"http:///{CANARY}",
        f"http://[::1/{CANARY}",
        f"http://hooks.example:{CANARY}/",
        f"http://{CANARY}:{CANARY}/{CANARY}@hooks.example/",
        # The / of a password that was not escaped: what looks like host and port is the user, and a part of it.
        f"https://{CANARY}.invalid:12/{CANARY}@hooks.example/",
        f"file:///{CANARY}",
        f"ftp://hooks.example/{CANARY}",
        f"slack://{CANARY}",
        f"HTTPS://hooks.slack.com/services/T1/B1/{CANARY}",
        f"hooks.example/{CANARY} json://127.0.0.1/{CANARY}",
        f"json://127.0.0.1/{CANARY}, unheardof://127.0.0.1/{CANARY}",
        " ,;",
    ],
)
def test_what_is_no_url_of_a_channel_is_refused_when_the_settings_are_loaded(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("USERS_ALERT_URL", url)
    with caplog.at_level(1), pytest.raises(settings.SettingsError) as caught:
        settings.load()
    said = str(caught.value.description)
    assert said.startswith("USERS_ALERT_URL cannot be used: ")
    assert "://" in said or "Special characters in user and password have to be escaped" in said
    printed = capfd.readouterr()
    assert CANARY not in said + caplog.text + printed.out + printed.err


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        # A password with a number sign that was not escaped: what looks like the host is the user.
        (f"https://{CANARY}.invalid:12#{CANARY}@hooks.example/", "https://…: gaierror: "),
        (f"http://\udcff{CANARY}:{CANARY}@127.0.0.1:9/", "http://127.0.0.1:9: Apprise has failed."),
    ],
)
@pytest.mark.usefixtures("webhook")
def test_a_url_that_is_badly_written(url: str, seen: str, post_without_a_trace: Callable[[str], str]) -> None:
    assert post_without_a_trace(url).startswith(seen)


def test_an_attempt_that_failed_is_made_again(webhook: Webhook) -> None:
    webhook.plan(*map(says, (503, 429, 204)))
    assert post(f"http://{webhook.host}{PATH}") is None
    assert webhook.texts == ["It failed.\nSee there."] * 3


def test_user_and_password_of_the_url_are_sent_as_such(webhook: Webhook) -> None:
    assert post(f"http://al%40ice:hun%2Fter%C3%A9@{webhook.host}{PATH}") is None
    (asked,) = webhook.asked
    assert asked.target == PATH
    assert asked.headers["authorization"] == f"Basic {base64.b64encode('al@ice:hun/teré'.encode()).decode()}"
    assert asked.headers["host"] == webhook.host


@pytest.mark.parametrize("path", ["/a%2Fb//c/?sp=%2Frun&Sig=a+b%20c&+x=1&-y=2&:z=3&to=a@b", "/", ""])
def test_path_and_query_arrive_as_they_are_written(webhook: Webhook, path: str) -> None:
    assert post(f"http://{webhook.host}{path}#fragment") is None
    assert [asked.target for asked in webhook.asked] == [path or "/"]


def test_the_environment_s_proxy_is_used(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", f"http://{webhook.host}")
    webhook.plan(*map(says, (503, 200)))
    assert post(f"http://hooks.invalid{PATH}") is None
    assert [asked.target for asked in webhook.asked] == [f"http://hooks.invalid{PATH}"] * 2


def test_one_bad_post_neither_blocks_nor_repeats(instance: dg.DagsterInstance, webhook: Webhook) -> None:
    """As the daemon does it: a tick begins with the cursor of the one before."""
    cursor = None

    def tick() -> str | None:
        nonlocal cursor
        # The sensor belongs to a repository. The runs name none, as those of a command line, and are told all the same.
        context = dg.build_sensor_context(instance, cursor=cursor, repository_name="__repository__")
        data = alerts.failure_alerts.evaluate_tick(context)
        cursor = data.cursor
        return data.skip_message

    tick()
    runs = [died(instance, f"Run timed out due to {number}") for number in range(4)]
    webhook.plan(*map(says, (200, 404, 404, 404, 200, 404, 404, 404)))
    reasons = [tick() for _ in runs]
    assert [text.splitlines()[1][-1] for text in webhook.texts] == list("01112333")
    not_sent = "The alert for run {} was not sent. http://{}: HTTP 404."
    assert reasons == [
        None,
        not_sent.format(runs[1].run_id, webhook.host),
        None,
        not_sent.format(runs[3].run_id, webhook.host),
    ]
    tick()
    assert len(webhook.texts) == 8


def test_a_run_is_told_to_every_url_and_the_reason_names_those_that_did_not_take_it(
    instance: dg.DagsterInstance, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Webhook() as other:
        monkeypatch.setenv(
            "USERS_ALERT_URL", f"http://{webhook.host}{PATH}, http://{other.host}/\nhttp://{other.host}/"
        )
        run = died(instance)
        assert evaluated(instance, run) is None
        assert webhook.texts == other.texts != []
        assert len(other.texts) == 1
        other.always = says(403)
        assert evaluated(instance, run) == (
            f"The alert for run {run.run_id} was not sent to all. http://{other.host}: HTTP 403."
        )
        assert len(webhook.texts) == 2


def test_the_sensor_runs_without_being_switched_on() -> None:
    assert alerts.failure_alerts.name == "failure_alerts"
    assert alerts.failure_alerts.default_status == dg.DefaultSensorStatus.RUNNING
    assert alerts.failure_alerts.minimum_interval_seconds == 30
    assert notify.ALERT_TIMEOUT == 10
    assert alerts.data_alerts.default_status == dg.DefaultSensorStatus.RUNNING
    assert alerts.data_alerts.minimum_interval_seconds == 60
    assert dt.timedelta(days=1) == alerts.PATIENCE


@pytest.mark.parametrize(
    ("origin", "last_day", "expected"),
    [
        (ORIGIN, LAST_DAY, "The sensor api_availability asks for the days that are missing."),
        (ORIGIN, TOMORROW, None),
        (None, LAST_DAY, f"Nobody runs it again by itself: make run FROM={DAY} TO={LAST_DAY}"),
    ],
)
def test_an_alert_says_who_runs_the_days_again(
    instance: dg.DagsterInstance,
    webhook: Webhook,
    origin: Any,  # noqa: ANN401 - its type is private
    last_day: str,
    expected: str | None,
) -> None:
    tags = {"dagster/asset_partition_range_start": DAY, "dagster/asset_partition_range_end": last_day}
    run = instance.create_run_for_job(
        defs.resolve_job_def("user_processing"),
        status=dg.DagsterRunStatus.STARTED,
        tags={**tags, "dagster/max_retries": "0"},
        remote_job_origin=origin,
    )
    instance.report_run_failed(run)
    lines = told(instance, run, webhook).splitlines()
    assert lines[2:] == ([expected] if expected else [])


# What is stored


class DataAlerts:
    """The sensor `data_alerts`, tick after tick; each begins with the cursor of the one before, as after a restart."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.cursor: str | None = None

    def tick(self) -> str:
        context = dg.build_sensor_context(self.pipeline.instance, self.cursor, repository_def=defs.get_repository_def())
        now = dt.datetime.now(dt.UTC)
        result = alerts.evaluate_data_alerts(context, self.pipeline.postgres, now=now, cadence=ENDED)
        assert isinstance(result.skip_reason, dg.SkipReason | str)
        self.cursor = result.cursor
        return str(getattr(result.skip_reason, "skip_message", result.skip_reason))


@pytest.fixture
def data(pipeline: Pipeline) -> DataAlerts:
    """Three days are stored, and the last of them is the newest that there is."""
    pipeline.reconciliation = checks.reconciliation_by(lambda: dt.datetime.now(dt.UTC), ENDED)
    assert pipeline.run(DAY, LAST_DAY).success
    data = DataAlerts(pipeline)
    assert data.tick() == "Nothing is broken that nobody was told of."
    return data


NOT_AS_MANY = (
    "The check rows_match_ledger of stored_users fails. The table does not hold as many rows as the ledger says, for "
    "1 day: {day}. Something else has changed it. Run them again: make run DAY={day}\n"
    "{ui}/assets/stored_users?view=checks"
)


def test_a_check_that_fails_is_told_once_for_the_same_days(
    data: DataAlerts, pipeline: Pipeline, query: Query, webhook: Webhook
) -> None:
    query("DELETE FROM users WHERE partition_date = %s", [DAY])
    pipeline.check()
    assert data.tick() == "Told of rows_match_ledger."
    assert webhook.texts == [NOT_AS_MANY.format(day=DAY, ui=UI)]
    for _ in range(3):
        pipeline.check()
        # A run of another day passes its checks, which says nothing of this one.
        assert pipeline.run(LAST_DAY).success
        assert "Nothing is broken" in data.tick()
    query("DELETE FROM users WHERE partition_date = %s", [LAST_DAY])
    pipeline.check()
    data.tick()
    assert webhook.texts[1:] == [NOT_AS_MANY.format(day=LAST_DAY, ui=UI)]
    # Mended, and broken anew.
    assert pipeline.run(DAY).success
    assert "Nothing is broken" in data.tick()
    query("DELETE FROM users WHERE partition_date = %s", [DAY])
    pipeline.check()
    data.tick()
    assert webhook.texts[2:] == [NOT_AS_MANY.format(day=DAY, ui=UI)]


def test_a_check_that_only_warns_is_not_told(
    data: DataAlerts, pipeline: Pipeline, query: Query, webhook: Webhook
) -> None:
    query("UPDATE users SET email = 'nobody'")
    assert not pipeline.check()["emails_well_formed"].passed
    assert "Nothing is broken" in data.tick()
    assert webhook.texts == []


def test_a_webhook_that_is_down_for_a_while_is_told_when_it_is_back(
    data: DataAlerts, pipeline: Pipeline, query: Query, webhook: Webhook
) -> None:
    query("DELETE FROM users WHERE partition_date = %s", [DAY])
    pipeline.check()
    webhook.always = says(503)
    for _ in range(2):
        assert "was not sent, and is sent again at the next tick. " in data.tick()
    webhook.always = says(200)
    webhook.asked.clear()
    data.tick()
    data.tick()
    assert webhook.texts == [NOT_AS_MANY.format(day=DAY, ui=UI)]


def test_a_url_that_does_not_take_an_alert_is_sent_it_again_and_the_others_are_not(
    data: DataAlerts, pipeline: Pipeline, query: Query, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Webhook() as other, Webhook() as late:
        other.always = says(503)
        monkeypatch.setenv("USERS_ALERT_URL", f"{os.environ['USERS_ALERT_URL']} http://{other.host}/")
        query("DELETE FROM users WHERE partition_date = %s", [DAY])
        pipeline.check()
        not_sent = (
            "The alert of rows_match_ledger was not sent, and is sent again at the next tick. http://{}: HTTP 503."
        )
        assert data.tick() == f"Told of rows_match_ledger. {not_sent.format(other.host)}"
        assert data.tick() == not_sent.format(other.host)
        # What breaks meanwhile is new to both.
        query("DELETE FROM users WHERE partition_date = %s", [LAST_DAY])
        pipeline.check()
        other.always = says(200)
        other.asked.clear()
        assert data.tick() == "Told of rows_match_ledger."
        assert [text.count("for 1 day: ") for text in webhook.texts] == [1, 1]
        assert [text.count(f"for 2 days: {DAY}, {LAST_DAY}. ") for text in other.texts] == [1]
        assert "Nothing is broken" in data.tick()
        assert CANARY not in str(data.cursor)
        # Who comes later is told of what is broken then.
        monkeypatch.setenv("USERS_ALERT_URL", f"{os.environ['USERS_ALERT_URL']} http://{late.host}/")
        assert data.tick() == "Told of rows_match_ledger."
        assert late.texts == other.texts
        assert len(webhook.texts) == 2


def test_a_webhook_that_never_takes_an_alert_is_not_told_for_ever(
    data: DataAlerts, pipeline: Pipeline, query: Query, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "PATIENCE", dt.timedelta())
    query("DELETE FROM users WHERE partition_date = %s", [DAY])
    pipeline.check()
    webhook.always = says(404)
    assert "sent again" in data.tick()
    assert "is given up after 0 hours. http" in data.tick()
    assert "Nothing is broken" in data.tick()
    # What breaks later is told again.
    query("DELETE FROM users WHERE partition_date = %s", [LAST_DAY])
    pipeline.check()
    webhook.always = says(200)
    assert data.tick() == "Told of rows_match_ledger."


def test_a_check_that_fails_is_told_as_soon_as_there_is_a_webhook(
    data: DataAlerts, pipeline: Pipeline, query: Query, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    query("DELETE FROM users WHERE partition_date = %s", [DAY])
    pipeline.check()
    url = os.environ["USERS_ALERT_URL"]
    monkeypatch.delenv("USERS_ALERT_URL")
    assert data.tick() == "USERS_ALERT_URL is not set: nobody is told of rows_match_ledger."
    monkeypatch.setenv("USERS_ALERT_URL", url)
    data.tick()
    assert webhook.texts == [NOT_AS_MANY.format(day=DAY, ui=UI)]


def gives_up(pipeline: Pipeline, day: str) -> dg.DagsterRun:
    """A run in which the day failed by itself."""
    tags = {"dagster/partition": day, FAILED_DAYS: day}
    run = pipeline.instance.create_run_for_job(
        defs.resolve_job_def("user_processing"),
        status=dg.DagsterRunStatus.STARTED,
        tags=tags,
        remote_job_origin=ORIGIN,
    )
    pipeline.instance.report_run_failed(run)
    return run


def test_a_day_that_is_given_up_is_told_once_with_its_last_run(
    data: DataAlerts, pipeline: Pipeline, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERS_MAX_ATTEMPTS", "2")
    gives_up(pipeline, LAST_DAY)
    assert "Nothing is broken" in data.tick()
    run = gives_up(pipeline, LAST_DAY)
    there, pipeline.postgres = pipeline.postgres, Postgres(url="postgresql://u@127.0.0.1:1/users")
    assert "Nothing is broken" in data.tick()
    pipeline.postgres = there
    assert [data.tick() for _ in range(2)] == ["Told of given_up.", "Nothing is broken that nobody was told of."]
    # The database is away for a tick: that is no news.
    pipeline.postgres = Postgres(url="postgresql://u@127.0.0.1:1/users")
    data.tick()
    pipeline.postgres = there
    data.tick()
    (text,) = webhook.texts
    assert text == (
        f"Failed 2 times, and not asked for any more: {LAST_DAY}. The last run says why: {UI}/runs/{run.run_id}\n"
        f"When it is mended: make run DAY={LAST_DAY}\n{UI}/assets/stored_users?view=checks"
    )
    assert pipeline.run(LAST_DAY).success
    data.tick()
    for _ in range(2):
        gives_up(pipeline, LAST_DAY)
    assert data.tick() == "Told of given_up."


def test_a_day_that_was_cancelled_is_not_told(data: DataAlerts, pipeline: Pipeline, webhook: Webhook) -> None:
    """It was somebody's own will."""
    run = pipeline.instance.create_run_for_job(
        defs.resolve_job_def("user_processing"), tags={"dagster/partition": LAST_DAY}, remote_job_origin=ORIGIN
    )
    pipeline.instance.report_run_canceled(run)
    assert "Nothing is broken" in data.tick()
    assert webhook.texts == []


def test_an_alert_of_many_days_still_says_what_to_type() -> None:
    days = [f"{year}-{month:02}-01" for year in range(2023, 2063) for month in range(1, 13)]
    alert = alerts.alert_of_data({"rows_match_ledger": days, "newest_day_stored": [DAY]}, {})
    assert "for 480 days: 2023-01-01, 2023-02-01, " in alert.text
    assert "2023-10-01, and 470 more. " in alert.text
    assert "make run FROM=2023-01-01 TO=2062-12-01\n" in alert.text
    hook = channel.open_channel("http://127.0.0.1:9/")
    assert channel.render(hook, *alert) == "\n".join(alert)

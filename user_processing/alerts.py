"""What somebody is told: runs that failed, checks that fail, days that are given up. How it is sent is in `notify`.

No secret goes out. The texts of `dagster.Failure` are quoted, which this project keeps free of secrets, and those that
Dagster writes where a run's process is gone. Of any other error the class is named.
"""

import contextlib
import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg
import msgspec
from dagster_shared.error import SerializableErrorInfo

from user_processing import automation, checks, notify, settings
from user_processing.assets import stored_users
from user_processing.catchup import facts
from user_processing.days.cadence import CADENCE, Cadence
from user_processing.days.runs import WILL_RETRY, RunDays, command_to_run, days_of_tag, format_days, tag_of_days
from user_processing.internals.ticks import failure_was_told
from user_processing.notify import Alert
from user_processing.store.postgres import Postgres

PATIENCE = dt.timedelta(days=1)
"""So long an alert of the data is sent again at every tick to a URL that does not take it."""

_GIVEN_UP = "given_up"
_MOST_EVALUATIONS = 1_000  # read in a tick; the next one reads on
_MOST_SPANS = 10  # of days, written out in an alert

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
    description="Tells USERS_ALERT_URL of each run that failed.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    # A run of the command line names no code location, and would be left out. The instance is this project's own.
    monitor_all_code_locations=True,
)
def failure_alerts(context: dg.RunFailureSensorContext) -> Any:  # noqa: ANN401 - Dagster's type is private
    """Tells every URL of one run. Where that fails, the alert is given up, and the tick says why."""
    run, urls = context.dagster_run, _urls()
    if not urls:
        return dg.SkipReason(f"USERS_ALERT_URL is not set: nobody is told that run {run.run_id} failed.")
    problems = notify.tell(dict.fromkeys(urls, alert_of_run(context)))
    if problems:
        sent = "was not sent" if len(problems) == len(urls) else "was not sent to all"
        return dg.SkipReason(f"The alert for run {run.run_id} {sent}. {' '.join(problems.values())}")
    return failure_was_told(run)


@dg.sensor(
    name="data_alerts",
    description="Tells USERS_ALERT_URL when a check of severity ERROR fails for days that nobody was told of, and when "
    "days are given up.",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def data_alerts(context: dg.SensorEvaluationContext, postgres: Postgres) -> dg.SensorResult:
    """Tells every URL once of what is broken, and once more when it was mended and breaks again."""
    return evaluate_data_alerts(context, postgres, now=dt.datetime.now(dt.UTC))


class Channel(msgspec.Struct):
    """What one URL knows."""

    told: dict[str, str] = {}
    unsent_since: dt.datetime | None = None
    """When it began to refuse what it is sent."""


class Told(msgspec.Struct, kw_only=True):
    """What `data_alerts` remembers: what is broken, and what of it was told to whom. Days are the values of tags."""

    evaluation: int
    """The last event that was read."""

    broken: dict[str, str] = {}
    """By check, the days for which it fails; and the days that are given up."""

    channels: list[Channel] = []
    """By the place of a URL in USERS_ALERT_URL, since a URL is a secret."""


def evaluate_data_alerts(
    context: dg.SensorEvaluationContext, postgres: Postgres, *, now: dt.datetime, cadence: Cadence = CADENCE
) -> dg.SensorResult:
    """What a tick of `data_alerts` comes to.

    Args:
        context: has the instance, which knows the evaluations of the checks, and the runs; the definitions, to read
            Dagster's own backfills with; and as cursor what the tick before this one has returned.
        postgres: holds the ledger. While it is away, no day is seen to be given up.
        now: when the tick is.
        cadence: says which days are due.
    """
    instance, repository = context.instance, context.repository_def
    if context.cursor:
        state = msgspec.json.decode(context.cursor, type=Told)
    else:
        # What was found before is found again: every morning by the checks.
        state = Told(evaluation=instance.event_log_storage.get_maximum_record_id() or 0)
    _read_evaluations(instance, state)
    given_up: Mapping[str, str] | None = None
    # While Postgres is away, a later tick sees.
    with contextlib.suppress(dg.Failure):
        given_up = automation.current_plan(instance, repository, postgres, now=now, cadence=cadence).given_up
        state.broken[_GIVEN_UP] = tag_of_days(sorted(given_up))
    reason = _tell(state, _urls(), given_up, now)
    return dg.SensorResult(skip_reason=reason, cursor=msgspec.json.encode(state).decode())


def _tell(state: Told, urls: list[str], given_up: Mapping[str, str] | None, now: dt.datetime) -> str:
    """Send each URL what is new to it, and note what became of it; returns what the tick says."""
    places = max(1, len(urls))
    state.channels = [*state.channels, *(Channel() for _ in range(places))][:places]
    fresh = [_news(state.broken, channel, given_up) for channel in state.channels]
    if not any(fresh):
        return "Nothing is broken that nobody was told of."
    if not urls:
        return f"USERS_ALERT_URL is not set: nobody is told of {', '.join(fresh[0])}."
    due = {url: news for url, news in zip(urls, fresh, strict=True) if news}
    problems = notify.tell({url: alert_of_data(news, given_up or {}) for url, news in due.items()})
    channels = dict(zip(urls, state.channels, strict=False))
    return " ".join(dict.fromkeys(_note(channels[url], news, problems.get(url), now) for url, news in due.items()))


def _news(broken: Mapping[str, str], channel: Channel, given_up: Mapping[str, str] | None) -> dict[str, list[str]]:
    """The days that are broken of which a URL was not told, oldest first; forgets those that are mended."""
    channel.told = {what: _both(days, broken.get(what, "")) for what, days in channel.told.items()}
    news = {
        what: fresh
        for what, days in broken.items()
        if (fresh := sorted({*days_of_tag(days)}.difference(days_of_tag(channel.told.get(what, "")))))
    }
    if given_up is None:
        news.pop(_GIVEN_UP, None)
    if not news:
        channel.unsent_since = None
    return news


def _note(channel: Channel, news: Mapping[str, list[str]], problem: str | None, now: dt.datetime) -> str:
    """Note what became of an alert that was sent to a URL; returns what the tick says of it."""
    names = ", ".join(news)
    channel.unsent_since = (channel.unsent_since or now) if problem else None
    if channel.unsent_since and now - channel.unsent_since <= PATIENCE:
        return f"The alert of {names} was not sent, and is sent again at the next tick. {problem}"
    channel.unsent_since = None
    for what, days in news.items():
        channel.told[what] = tag_of_days(sorted({*days, *days_of_tag(channel.told.get(what, ""))}))
    hours = PATIENCE // dt.timedelta(hours=1)
    return f"The alert of {names} is given up after {hours} hours. {problem}" if problem else f"Told of {names}."


def alert_of_data(news: Mapping[str, list[str]], given_up: Mapping[str, str]) -> Alert:
    """What is said of days for which checks fail, and of days that are given up.

    Args:
        news: the days by check, oldest first; those that are given up are under a name of their own.
        given_up: day → its last run.
    """
    ui = settings.load().users_ui_url.rstrip("/")
    lines = [
        f"The check {name} of {stored_users.key.to_user_string()} fails. {checks.describe(name, days, _MOST_SPANS)}"
        for name, days in news.items()
        if name in checks.CHECKS
    ]
    if days := news.get(_GIVEN_UP):
        attempts = settings.load().users_max_attempts
        lines.append(
            f"Failed {attempts} times, and not asked for any more: {format_days(days, _MOST_SPANS)}. The last run says "
            f"why: {ui}/runs/{given_up[days[-1]]}\nWhen it is mended: {command_to_run(days)}"
        )
    return Alert("\n".join(lines), f"{ui}/assets/{stored_users.key.to_user_string()}?view=checks")


def alert_of_run(context: dg.RunFailureSensorContext) -> Alert:
    """What is said of a run: job, days, assets, errors, what happens next, and where its page is."""
    run = context.dagster_run
    errors = [_step_error(event) for event in context.get_step_failure_events()] or [_run_error(context.failure_event)]
    ui = settings.load().users_ui_url
    end = [*_what_next(run), f"{ui.rstrip('/')}/runs/{run.run_id}"]
    return Alert("\n".join([f"{run.job_name} failed, {_days(run.tags)}.", *errors]), "\n".join(end))


def _read_evaluations(instance: dg.DagsterInstance, state: Told) -> None:
    """Note what the checks have found since the tick before this one."""
    unread = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION, after_cursor=state.evaluation)
    for record in instance.event_log_storage.get_event_records(unread, limit=_MOST_EVALUATIONS, ascending=True):
        state.evaluation = record.storage_id
        event = record.event_log_entry.dagster_event
        evaluation = event.event_specific_data if event else None
        if not isinstance(evaluation, dg.AssetCheckEvaluation):
            continue
        check = checks.CHECKS.get(evaluation.check_name)
        if check and check.severity is dg.AssetCheckSeverity.ERROR and evaluation.asset_key == stored_users.key:
            looked_at, failing = checks.days_found(evaluation)
            others = _outside(days_of_tag(state.broken.get(evaluation.check_name, "")), looked_at)
            state.broken[evaluation.check_name] = tag_of_days(sorted({*others, *failing}))


def _urls() -> list[str]:
    """Who is told."""
    secret = settings.load().users_alert_url
    return notify.split(secret.get_secret_value()) if secret else []


def _both(some: str, others: str) -> str:
    """The days that both tags hold."""
    return tag_of_days(sorted({*days_of_tag(some)}.intersection(days_of_tag(others))))


def _outside(days: Iterable[str], looked_at: RunDays | None) -> list[str]:
    """Those of the days at which an evaluation has not looked."""
    return [day for day in days if looked_at and not looked_at.first <= day <= looked_at.last]


def _what_next(run: dg.DagsterRun) -> list[str]:
    """Who runs the days of a failed run again, or what to type."""
    days = facts.days_of(run)
    if run.remote_job_origin is None:
        # Dagster marks a run of the command line as one to be retried too, and cannot launch it.
        return [f"Nobody runs it again by itself: {command_to_run(days)}"] if days else []
    # Dagster adds the tag right after the event that the sensor waits for.
    if run.tags.get(WILL_RETRY) == "true":
        return ["Dagster tries it again."]
    if days and not facts.are_refused(run, dt.datetime.now(dt.UTC)):
        return ["The sensor api_availability asks for the days that are missing."]
    return []


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
    span = RunDays.of(tags)
    if span is None:
        return "no day"
    return f"day {span}" if span.first == span.last else f"days {span}"

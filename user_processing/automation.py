"""When things run: the jobs, the daily schedule, the sensor that watches the API and asks for missing days.

Which days those are is decided by `catchup`, from what `facts` has read.
"""

import datetime as dt
import time
from collections.abc import Mapping, Sequence

import dagster as dg
import msgspec

from user_processing import catchup, checks, facts, tables, variables
from user_processing.assets import GROUP, PAGES_SINCE, Metadata, day_ranges, stored_users, user_api_source
from user_processing.cadence import CADENCE
from user_processing.resources.postgres import DatabaseUnavailableError, Postgres
from user_processing.resources.user_api import UserApi

_SEVEN_DAYS = 7 * 24 * 60 * 60  # seconds

# A new day is the schedule's at first. Apart by more than a launch takes, so that the two never ask for one day.
_SCHEDULE_ASKS_WITHIN = dt.timedelta(seconds=30)
_SENSOR_ASKS_AFTER = dt.timedelta(seconds=90)

_TIME = "%Y-%m-%d %H:%M:%S UTC"

# Days of the ledger that a tick reports to Dagster; each is an event to be written.
_MOST_REPORTED = 200

user_processing = dg.define_asset_job(
    "user_processing",
    selection=dg.AssetSelection.groups(GROUP),
    description="Takes the users of a day, or of a range of days, from the API to Postgres.",
)

morning_checks = dg.define_asset_job(
    "morning_checks",
    selection=dg.AssetSelection.checks(checks.reconciliation),
    description="Checks all that is stored.",
)

every_morning = dg.ScheduleDefinition(
    name="every_morning",
    job=morning_checks,
    cron_schedule=CADENCE.cron_schedule(hours_later=checks.DEADLINE_HOURS),
    execution_timezone=CADENCE.time_zone,
    description="Checks all that is stored, at the hour by which the newest day has to be there.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


class ApiDownError(dg.Failure):
    """The API has not answered for longer than anybody wants to wait for it in silence."""


class Watch(msgspec.Struct, frozen=True):
    """What the sensor remembers from one poll to the next: whether the API answered, and since when it does or not."""

    up: bool
    since: dt.datetime


@dg.schedule(
    job=user_processing,
    cron_schedule=CADENCE.cron_schedule(),
    execution_timezone=CADENCE.time_zone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def daily(context: dg.ScheduleEvaluationContext, user_api: UserApi) -> dg.RunRequest | dg.SkipReason:
    """Launches the day that has just ended, if the API answers. What it leaves out, the sensor asks for."""
    return new_day(context.scheduled_execution_time, user_api)


@dg.sensor(
    job=user_processing,
    # Part of the definition, so it is read with it.
    minimum_interval_seconds=variables.at_least_one("USER_API_POKE_INTERVAL") or 60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def api_availability(context: dg.SensorEvaluationContext, user_api: UserApi, postgres: Postgres) -> dg.SensorResult:
    """Polls the API. While it answers, the days that are due and not stored are asked for.

    Without USERS_CATCHUP that is the newest day alone. When the API goes or comes back, and whenever days are asked
    for, its state and latency become an observation of the asset `user_api`.
    """
    return poll(context.instance, context.repository_def, context.cursor, user_api, postgres)


def new_day(scheduled: dt.datetime, user_api: UserApi) -> dg.RunRequest | dg.SkipReason:
    """What a tick of the schedule comes to.

    Args:
        scheduled: when the tick was meant to be.
        user_api: is asked whether it is there.
    """
    day = CADENCE.newest_due(scheduled).isoformat()
    if day not in CADENCE.due(scheduled):
        return dg.SkipReason(f"{day} is not one of the days from {CADENCE.first_day} to {CADENCE.last_day or 'now'}.")
    late = _now() - scheduled
    if late > _SCHEDULE_ASKS_WITHIN:
        return dg.SkipReason(f"This tick comes {late.total_seconds():,.0f} s late; the sensor asks for day {day}.")
    seen = user_api.probe(seed=day)
    if seen:
        return dg.SkipReason(f"{user_api.address} does not answer: {seen}. The sensor asks for day {day} when it does.")
    return dg.RunRequest(run_key=day, partition_key=day)


def poll(
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition | None,
    cursor: str | None,
    user_api: UserApi,
    postgres: Postgres,
) -> dg.SensorResult:
    """What a tick of the sensor comes to.

    Args:
        instance: knows the days that are materialized, the runs and the backfills.
        repository: the definitions, to read Dagster's own backfills with.
        cursor: what the tick before this one has returned.
        user_api: is asked for one user.
        postgres: holds the ledger.

    Raises:
        ApiDownError: the API has been down for longer than USER_API_TIMEOUT allows.
        dagster.Failure: a variable holds what it cannot, or Postgres refuses to be read.
    """
    now = _now()
    due = CADENCE.due(now - _SENSOR_ASKS_AFTER)
    seed = due[-1] if due else CADENCE.first_day
    started = time.monotonic()
    seen = user_api.probe(seed=seed)
    seconds = round(time.monotonic() - started, 3)
    before = msgspec.json.decode(cursor, type=Watch) if cursor else None
    changed = before is None or before.up == bool(seen)
    watch = Watch(up=not seen, since=now) if before is None or changed else before
    plan = catchup.Plan()
    events: list[dg.AssetMaterialization | dg.AssetObservation] = []
    if seen:
        reason = (
            f"{user_api.address} does not answer: {seen}. It has been down since {watch.since:{_TIME}}; "
            "days that are due wait for it."
        )
        patience = dt.timedelta(seconds=variables.whole_number("USER_API_TIMEOUT", _SEVEN_DAYS))
        if now - watch.since > patience:
            message = f"{reason} That is longer than USER_API_TIMEOUT allows, {patience.total_seconds():,.0f} s."
            raise ApiDownError(message)
    else:
        # Before the ledger: a run that stores its day meanwhile is found in one of them.
        active = facts.active(instance)
        try:
            with postgres.transaction() as connection:
                ledger = {day.isoformat(): load for day, load in tables.ledger(connection).items()}
        except DatabaseUnavailableError as error:
            reason = f"{error.description} Days that are due wait for it."
        else:
            settings = settings_of_environment()
            plan, events = _planned(
                instance,
                repository,
                active=active,
                now=now,
                due=due,
                api_up_since=watch.since,
                ledger=ledger,
                settings=settings,
            )
            reason = f"The API answers in {seconds:.3f} s. {_reason(plan, settings, due)}"
    if changed or plan.requests:
        observed: Metadata = {"up": int(watch.up), "latency_seconds": seconds, "seen": seen or "a valid answer"}
        events.append(dg.AssetObservation(user_api_source.key, metadata=observed))
    return dg.SensorResult(
        run_requests=[_run_request(request) for request in plan.requests],
        skip_reason=None if plan.requests else dg.SkipReason(reason),
        cursor=msgspec.json.encode(watch).decode(),
        asset_events=events,
    )


def _planned(  # noqa: PLR0913 - all that is known
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition | None,
    *,
    active: Sequence[dg.DagsterRun],
    now: dt.datetime,
    due: Sequence[str],
    api_up_since: dt.datetime,
    ledger: Mapping[str, tables.Load],
    settings: catchup.Settings,
) -> tuple[catchup.Plan, list[dg.AssetMaterialization | dg.AssetObservation]]:
    """What to ask for, and which days Dagster has to be told of."""
    known = facts.materialized(instance)
    busy = facts.busy(active)
    # Stored by a run that died before it could say so, or before this instance of Dagster was there.
    unreported = [day for day in due if day in ledger and day not in known and day not in busy]
    stored = ledger.keys() & (known.keys() | set(unreported))
    attempts: Sequence[catchup.Attempt] = ()
    stored_at: Mapping[str, dt.datetime] = {}
    if any(day not in stored for day in (due if settings.catchup else due[-1:])):
        attempts, retried = facts.attempts(instance, now)
        backfilled = facts.backfilling(instance, repository) if repository else {}
        busy = {**backfilled, **retried, **busy}
        stored_at = facts.stored_at(instance, {day: event for day, event in known.items() if day not in ledger})
    found = catchup.Facts(
        now=now,
        due=due,
        stored=stored,
        busy=busy,
        # A backfill has a limit of its own.
        active_runs=sum(facts.LANE not in run.tags for run in active),
        attempts=attempts,
        stored_before=known,
        stored_at=stored_at,
        api_up_since=api_up_since,
    )
    return catchup.plan(found, settings), [_reported(day, ledger[day]) for day in unreported[:_MOST_REPORTED]]


def settings_of_environment() -> catchup.Settings:
    """What the environment says of catch-up.

    Raises:
        dagster.Failure: a variable holds what it cannot.
    """
    default = catchup.Settings()
    return catchup.Settings(
        catchup=variables.flag("USERS_CATCHUP"),
        max_active_runs=variables.at_least_one("USERS_MAX_ACTIVE_RUNS") or default.max_active_runs,
        days_per_run=variables.at_least_one("USERS_DAYS_PER_RUN"),
        max_attempts=variables.at_least_one("USERS_MAX_ATTEMPTS") or default.max_attempts,
    )


def tags_of_days(days: Sequence[str]) -> dict[str, str]:
    """The tags of a run over days that follow each other."""
    if len(days) == 1:
        return {"dagster/partition": days[0]}
    return {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}


def _run_request(request: catchup.Request) -> dg.RunRequest:
    tags = {PAGES_SINCE: request.pages_since} if request.pages_since else {}
    if len(request.days) == 1:
        return dg.RunRequest(run_key=request.run_key, partition_key=request.days[0], tags=tags)
    return dg.RunRequest(run_key=request.run_key, tags={**tags, **tags_of_days(request.days)})


def _reported(day: str, load: tables.Load) -> dg.AssetMaterialization:
    """A day that the ledger has and Dagster does not know of."""
    return dg.AssetMaterialization(
        stored_users.key,
        partition=day,
        description="Found in the ledger: the run that stored it could not say so.",
        metadata={"dagster/row_count": load.rows},
    )


def _reason(plan: catchup.Plan, settings: catchup.Settings, due: Sequence[str]) -> str:
    """Why no run is asked for."""
    parts = []
    if not due:
        parts.append("No day is due yet.")
    elif not plan.missing and not plan.busy:
        stored = f"All {len(due):,} days that are due are" if settings.catchup else f"The newest day, {due[-1]}, is"
        parts.append(f"{stored} stored.")
    if plan.busy:
        parts.append(f"At work: {_told(plan.busy)}.")
    if plan.queued:
        parts.append(f"{plan.queued:,} runs wait until fewer than {settings.max_active_runs} are at work.")
    if plan.pausing:
        first = min(plan.pausing.values())
        parts.append(f"Failed, and tried again from {first:{_TIME}} on: {_told(plan.pausing)}.")
    by_hand = "not asked for again until somebody runs them by hand"
    if plan.given_up:
        last = list(plan.given_up.values())[-1]
        parts.append(
            f"Failed {settings.max_attempts} times, and {by_hand}: {_told(plan.given_up)}; the last run is {last}."
        )
    if plan.cancelled:
        parts.append(f"Cancelled, and {by_hand}: {_told(plan.cancelled)}.")
    return " ".join(parts)


def _told(days: Sequence[str] | Mapping[str, object]) -> str:
    return day_ranges(dt.date.fromisoformat(day) for day in days)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)

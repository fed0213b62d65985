"""When things run: the jobs, the daily schedule, the sensor that watches the API and asks for missing days.

Which days those are is decided by `catchup.planner`, from what `catchup.facts` has read.
"""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import msgspec

from user_processing import checks, settings
from user_processing.assets import GROUP, stored_users, user_api_source
from user_processing.catchup import facts, planner
from user_processing.days.cadence import CADENCE, Cadence
from user_processing.days.runs import PAGES_SINCE, command_to_run, format_days
from user_processing.days.work import Metadata
from user_processing.source.user_api import UserApi
from user_processing.store import tables
from user_processing.store.postgres import DatabaseUnavailableError, Postgres

# A new day is the schedule's at first. Apart by more than a launch takes, so that the two never ask for one day.
_SCHEDULE_ASKS_WITHIN = dt.timedelta(seconds=30)
_SENSOR_ASKS_AFTER = dt.timedelta(seconds=90)

_TIME = "%Y-%m-%d %H:%M:%S UTC"

# Days of the ledger that a tick reports to Dagster; each is an event to be written.
_MOST_REPORTED = 200

user_processing = dg.define_asset_job(
    facts.JOB,
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
    return evaluate_schedule(context.scheduled_execution_time, user_api, now=dt.datetime.now(dt.UTC))


@dg.sensor(
    job=user_processing,
    # Part of the definition, so it is read with it.
    minimum_interval_seconds=settings.load().user_api_poke_interval,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def api_availability(context: dg.SensorEvaluationContext, user_api: UserApi, postgres: Postgres) -> dg.SensorResult:
    """Polls the API. While it answers, the days that are missing are asked for.

    These are the newest day that is due, or all that are due with USERS_CATCHUP, and the days that a run was launched
    for and has not stored. When the API goes or comes back, and whenever days are asked for, its state and latency
    become an observation of the asset `user_api`.
    """
    return evaluate_sensor(context, user_api, postgres, now=dt.datetime.now(dt.UTC))


def evaluate_schedule(
    scheduled: dt.datetime, user_api: UserApi, *, now: dt.datetime, cadence: Cadence = CADENCE
) -> dg.RunRequest | dg.SkipReason:
    """What a tick of the schedule comes to.

    Args:
        scheduled: when the tick was meant to be.
        user_api: is asked whether it is there.
        now: when the tick is.
        cadence: says which days are due.
    """
    day = cadence.newest_due(scheduled).isoformat()
    if day not in cadence.due(scheduled):
        return dg.SkipReason(f"{day} is not one of the days from {cadence.first_day} to {cadence.last_day or 'now'}.")
    late = now - scheduled
    if late > _SCHEDULE_ASKS_WITHIN:
        return dg.SkipReason(_reason_of_late_tick(day, late, cadence.due(now)))
    probe = user_api.probe(seed=day)
    if not probe.up:
        reason = f"{user_api.address} does not answer: {probe.problem}."
        return dg.SkipReason(f"{reason} The sensor asks for day {day} when it does.")
    return dg.RunRequest(run_key=day, partition_key=day)


def evaluate_sensor(
    context: dg.SensorEvaluationContext,
    user_api: UserApi,
    postgres: Postgres,
    *,
    now: dt.datetime,
    cadence: Cadence = CADENCE,
) -> dg.SensorResult:
    """What a tick of the sensor comes to.

    Args:
        context: has the instance, which knows the days that are materialized, the runs and the backfills; the
            definitions, to read Dagster's own backfills with; and as cursor what the tick before this one has returned.
        user_api: is asked for one user.
        postgres: holds the ledger.
        now: when the tick is.
        cadence: says which days are due.

    Raises:
        ApiDownError: the API has been down for longer than USER_API_TIMEOUT allows.
        dagster.Failure: a variable holds what it cannot, or Postgres refuses to be read.
    """
    repository = context.repository_def
    due = cadence.due(now - _SENSOR_ASKS_AFTER)
    probe = user_api.probe(seed=due[-1] if due else cadence.first_day)
    before = msgspec.json.decode(context.cursor, type=Watch) if context.cursor else None
    changed = before is None or before.up != probe.up
    watch = Watch(up=probe.up, since=now) if before is None or changed else before
    plan = planner.Plan()
    events: list[dg.AssetMaterialization | dg.AssetObservation] = []
    if not probe.up:
        reason = (
            f"{user_api.address} does not answer: {probe.problem}. It has been down since {watch.since:{_TIME}}; "
            "days that are missing wait for it."
        )
        patience = dt.timedelta(seconds=settings.load().user_api_timeout)
        if now - watch.since > patience:
            raise ApiDownError(
                f"{reason} That is longer than USER_API_TIMEOUT allows, {patience.total_seconds():,.0f} s."
            )
    else:
        rules = facts.rules()
        try:
            known = facts.gather(
                context.instance, repository, postgres, rules, now=now, due=due, api_up_since=watch.since
            )
        except DatabaseUnavailableError as error:
            reason = f"{error.description} Days that are missing wait for it."
        else:
            plan = planner.plan(known.facts, rules)
            events += [_reported(day, load) for day, load in [*known.unreported.items()][:_MOST_REPORTED]]
            reason = f"The API answers in {probe.latency:.3f} s. {_reason(plan, rules, due)}"
    if changed or plan.requests:
        observed: Metadata = {
            "up": int(probe.up),
            "latency_seconds": round(probe.latency, 3),
            "problem": probe.problem or "none",
        }
        events.append(dg.AssetObservation(user_api_source.key, metadata=observed))
    return dg.SensorResult(
        run_requests=[_run_request(request, repository) for request in plan.requests],
        skip_reason=None if plan.requests else dg.SkipReason(reason),
        cursor=msgspec.json.encode(watch).decode(),
        asset_events=events,
    )


def current_plan(
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition | None,
    postgres: Postgres,
    *,
    now: dt.datetime,
    cadence: Cadence = CADENCE,
) -> planner.Plan:
    """What the sensor would ask for now if the API answered, and what nobody asks for any more.

    Raises:
        dagster.Failure: Postgres cannot be read.
    """
    rules = facts.rules()
    due = cadence.due(now - _SENSOR_ASKS_AFTER)
    return planner.plan(facts.gather(instance, repository, postgres, rules, now=now, due=due).facts, rules)


def _reason_of_late_tick(day: str, late: dt.timedelta, due: Sequence[str]) -> str:
    """What becomes of the day of a tick that comes too late, or that somebody looks at long afterwards."""
    start = f"This tick comes {late // dt.timedelta(seconds=1) * dt.timedelta(seconds=1)} late."
    if day in due[-1:] or settings.load().users_catchup:
        return f"{start} While day {day} is not stored, the sensor asks for it."
    return (
        f"{start} Day {day} is not the newest any more. The sensor asks for it only if a run was launched for it and "
        f"failed. To run it: make run DAY={day}. To have every day that is missing asked for: USERS_CATCHUP=true."
    )


def _run_request(request: planner.Request, repository: dg.RepositoryDefinition | None) -> dg.RunRequest:
    """A run of the days, with what the run in whose place it is asked for was launched with."""
    days = request.days
    tags = {**dict(request.launch.tags), **({PAGES_SINCE: request.pages_since} if request.pages_since else {})}
    run_config = json.loads(request.launch.run_config)
    if run_config and repository and not _is_valid(run_config, repository):
        run_config = {}
    if days.first == days.last:
        return dg.RunRequest(run_key=request.run_key, partition_key=days.first, tags=tags, run_config=run_config)
    return dg.RunRequest(run_key=request.run_key, tags={**tags, **days.tags()}, run_config=run_config)


def _is_valid(run_config: Mapping[str, Any], repository: dg.RepositoryDefinition) -> bool:
    """Whether the job takes this configuration today; a request with another would fail the tick, and all after it."""
    try:
        dg.validate_run_config(repository.get_job(user_processing.name), run_config)
    except dg.DagsterInvalidConfigError:
        return False
    return True


def _reported(day: str, entry: tables.LedgerEntry) -> dg.AssetMaterialization:
    """A day that the ledger has and Dagster does not know of."""
    return dg.AssetMaterialization(
        stored_users.key,
        partition=day,
        description="Found in the ledger: the run that stored it could not say so.",
        metadata={"dagster/row_count": entry.rows},
    )


def _reason(plan: planner.Plan, rules: planner.Settings, due: Sequence[str]) -> str:
    """Why no run is asked for."""
    parts = []
    if not due:
        parts.append("No day is due yet.")
    elif not plan.missing and not plan.busy:
        stored = f"All {len(due):,} days that are due are" if rules.catchup else f"The newest day, {due[-1]}, is"
        parts.append(f"{stored} stored.")
    if plan.busy:
        parts.append(f"In progress: {format_days(plan.busy)}.")
    if plan.queued:
        parts.append(f"{plan.queued:,} runs wait until fewer than {rules.max_active_runs} are in progress.")
    if plan.pausing:
        first = min(plan.pausing.values())
        parts.append(f"Failed, and tried again from {first:{_TIME}} on: {format_days(plan.pausing)}.")
    if plan.given_up:
        last = list(plan.given_up.values())[-1]
        parts.append(
            f"Failed {rules.max_attempts} times, and not asked for any more: {format_days(plan.given_up)}. Run {last} "
            f"says why. When it is mended: {command_to_run(plan.given_up)}"
        )
    if plan.cancelled:
        parts.append(
            f"Cancelled, and not asked for any more: {format_days(plan.cancelled)}. To run them all the same: "
            f"{command_to_run(plan.cancelled)}"
        )
    return " ".join(parts)

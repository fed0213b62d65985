"""What is known of the days: read from Dagster's instance and from the ledger, in a fixed number of queries.

Nothing is remembered here and nothing decided: `planner` does that.
"""

import datetime as dt
import functools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence

import dagster as dg
import msgspec

from user_processing import settings
from user_processing.catchup import planner
from user_processing.catchup.planner import Attempt, Launch
from user_processing.days.cadence import CADENCE
from user_processing.days.runs import (
    BACKFILL,
    CANCELLED,
    DAGSTER_BACKFILL,
    FAILED_DAYS,
    LANE,
    PRIORITY,
    RETRIED_BY,
    STOPPED_AT,
    WILL_RETRY,
    RunDays,
    days_of_tag,
)
from user_processing.internals import backfills
from user_processing.store import tables
from user_processing.store.postgres import Postgres

STORED_USERS = dg.AssetKey("stored_users")
"""The asset whose partitions are the days that are stored."""

JOB = "user_processing"
"""The job that stores days."""

_days_of_backfill = functools.partial(backfills.partitions_of, asset=STORED_USERS, job=JOB)

REMEMBERED = dt.timedelta(days=30)
"""A run that failed longer ago says nothing any more of days that are not due."""

# A run that is NOT_STARTED was given up before it was queued; asked for by its run key again, it is launched.
_ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_UNSUCCESSFUL = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]

# A run that is asked for in the place of one that failed belongs to the same backfill.
_KEPT_TAGS = (BACKFILL, LANE, PRIORITY)

# After so long a run that Dagster meant to retry is not waited for any more.
_RETRY_COMES_WITHIN = dt.timedelta(minutes=10)


class Gathered(msgspec.Struct, frozen=True):
    """The facts, and what Dagster does not know yet."""

    facts: planner.Facts
    unreported: Mapping[str, tables.LedgerEntry]
    """Days that are stored by a run that died before it could say so, or before this instance of Dagster was there."""


def gather(  # noqa: PLR0913 - the places to look at
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition | None,
    postgres: Postgres,
    rules: planner.Settings,
    *,
    now: dt.datetime,
    due: Sequence[str],
    api_up_since: dt.datetime | None = None,
) -> Gathered:
    """Read all that the planner has to know.

    Raises:
        DatabaseUnavailableError: the ledger cannot be read now.
        DatabaseRefusedError: the ledger may not be read.
    """
    # Before the ledger: a run that stores its day meanwhile is found in one of them.
    runs = active(instance)
    with postgres.transaction() as connection:
        ledger = tables.ledger(connection)
    known, at_work = materialized(instance), busy(runs)
    unreported = {day: ledger[day] for day in due if day in ledger and day not in known and day not in at_work}
    stored = ledger.keys() & (known.keys() | unreported.keys())
    # A day that is due and missing may have been cancelled or given up long ago.
    missing = any(day not in stored for day in planner.days_to_keep_up(due, rules))
    since = None if missing else now - REMEMBERED
    by_runs, retried = attempts(instance, now, since)
    tried = _with_backfills(instance, repository, by_runs, now) if repository else by_runs
    backfilled = backfilling(instance, repository) if repository else {}
    return Gathered(
        facts=planner.Facts(
            now=now,
            due=due,
            stored=stored,
            busy={**backfilled, **retried, **at_work},
            # A backfill has a limit of its own.
            active_runs=sum(LANE not in run.tags for run in runs),
            attempts=tried,
            stored_before=known,
            stored_at={
                **stored_at(instance, {day: known[day] for day in known if day not in ledger}),
                **{day: load.loaded_at for day, load in ledger.items()},
            },
            api_up_since=api_up_since,
        ),
        unreported=unreported,
    )


def rules() -> planner.Settings:
    """What the settings say of catch-up.

    Raises:
        SettingsError: a variable holds what it must not.
    """
    chosen = settings.load()
    return planner.Settings(
        catchup=chosen.users_catchup,
        max_active_runs=chosen.users_max_active_runs,
        days_per_run=chosen.users_days_per_run,
        max_attempts=chosen.users_max_attempts,
    )


def materialized(instance: dg.DagsterInstance) -> Mapping[str, int]:
    """The days that Dagster knows to be stored, each with the event of its last materialization."""
    return instance.get_latest_storage_id_by_partition(STORED_USERS, dg.DagsterEventType.ASSET_MATERIALIZATION)


def stored_at(instance: dg.DagsterInstance, events: Mapping[str, int]) -> dict[str, dt.datetime]:
    """When the days were materialized, whose last materializations are these events."""
    if not events:
        return {}
    chosen = dg.AssetRecordsFilter(asset_key=STORED_USERS, storage_ids=sorted(events.values()))
    records = instance.fetch_materializations(chosen, limit=len(events)).records
    return {
        record.partition_key: dt.datetime.fromtimestamp(record.timestamp, dt.UTC)
        for record in records
        if record.partition_key
    }


def active(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that store days and are queued or in progress, whoever launched them."""
    runs = instance.get_runs(dg.RunsFilter(statuses=_ACTIVE))
    return [run for run in runs if days_of(run)]


def busy(runs: Iterable[dg.DagsterRun]) -> dict[str, str]:
    """Day → the run that is in progress on it, or waits to be."""
    return {day: f"run {run.run_id}" for run in runs for day in days_of(run)}


def backfilling(instance: dg.DagsterInstance, repository: dg.RepositoryDefinition) -> dict[str, str]:
    """Day → the backfill of Dagster's own, not yet finished, that it belongs to."""
    return {
        day: f"backfill {backfill.backfill_id}"
        for backfill in backfills.with_status(instance, backfills.IN_PROGRESS)
        for day in _days_of_backfill(backfill, repository)
    }


def attempts(
    instance: dg.DagsterInstance, now: dt.datetime, since: dt.datetime | None = None
) -> tuple[list[Attempt], dict[str, str]]:
    """What failed or was cancelled, oldest first; and day → the run that Dagster is about to retry.

    Args:
        instance: knows the runs.
        now: the moment from which a retry by Dagster is waited for.
        since: leaves out runs that ended before.
    """
    filters = dg.RunsFilter(statuses=_UNSUCCESSFUL, updated_after=since)
    groups: dict[str, list[dg.RunRecord]] = {}
    for record in instance.get_run_records(filters, ascending=True):
        if days_of(record.dagster_run) and not are_refused(record.dagster_run, _ended(record)):
            groups.setdefault(record.dagster_run.root_run_id or record.dagster_run.run_id, []).append(record)
    # None of the runs of a backfill that is over is retried.
    finished = _backfills_of(instance, groups.values(), backfills.ENDED)
    retried = {
        day: f"the retry of run {records[-1].dagster_run.run_id}"
        for records in groups.values()
        if _about_to_be_retried(records[-1], now) and records[-1].dagster_run.tags.get(DAGSTER_BACKFILL) not in finished
        for day in days_of(records[-1].dagster_run)
    }
    cancelled = _backfills_of(instance, groups.values(), backfills.CANCELLED)
    return [_attempt(records, cancelled) for records in groups.values()], retried


def days_of(run: dg.DagsterRun) -> Sequence[str]:
    """The days that a run is to store, oldest first; none if it leaves `stored_users` out."""
    if run.asset_selection or run.asset_check_selection:
        stores = STORED_USERS in (run.asset_selection or ())
    else:
        stores = run.job_name == JOB or run.job_name.startswith("__ASSET_JOB")
    if not stores:
        return ()
    span = RunDays.of(run.tags)
    try:
        return list(span) if span else ()
    except ValueError:  # somebody's tags name what is no day
        return ()


def are_refused(run: dg.DagsterRun, moment: dt.datetime) -> bool:
    """Whether days of the run are not over at this moment; the assets refuse all of them then."""
    span = RunDays.of(run.tags)
    return span is None or not CADENCE.are_over(span, moment)


def _attempt(records: Sequence[dg.RunRecord], cancelled_backfills: Collection[str]) -> Attempt:
    last = records[-1].dagster_run
    return Attempt(
        run_id=last.run_id,
        created=records[0].create_timestamp,
        ended=_ended(records[-1]),
        days=frozenset(days_of(last)),
        failed=frozenset(days_of_tag(last.tags.get(FAILED_DAYS, ""))),
        stopped_at=last.tags.get(STOPPED_AT),
        cancelled=last.status == dg.DagsterRunStatus.CANCELED
        or CANCELLED in last.tags
        or last.tags.get(DAGSTER_BACKFILL) in cancelled_backfills,
        launch=_launch(last.run_config, last.tags) if last.remote_job_origin else None,
    )


def _launch(run_config: Mapping[str, object] | None, tags: Mapping[str, str]) -> Launch:
    return Launch(
        run_config=json.dumps(run_config or {}, sort_keys=True),
        tags=tuple((name, tags[name]) for name in _KEPT_TAGS if name in tags),
    )


def _ended(record: dg.RunRecord) -> dt.datetime:
    return dt.datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), dt.UTC)


def _about_to_be_retried(record: dg.RunRecord, now: dt.datetime) -> bool:
    tags = record.dagster_run.tags
    # Dagster marks a run of the command line too, and cannot launch it again.
    launched = record.dagster_run.remote_job_origin is not None
    waits = launched and tags.get(WILL_RETRY) == "true" and RETRIED_BY not in tags
    return waits and record.end_time is not None and now.timestamp() - record.end_time < _RETRY_COMES_WITHIN.seconds


def _backfills_of(
    instance: dg.DagsterInstance, groups: Iterable[Sequence[dg.RunRecord]], statuses: backfills.Statuses
) -> set[str]:
    """Those of Dagster's own backfills that these runs belong to which have one of the statuses."""
    names = {name for records in groups if (name := records[-1].dagster_run.tags.get(DAGSTER_BACKFILL))}
    found = backfills.with_status(instance, statuses, ids=names) if names else []
    return {backfill.backfill_id for backfill in found}


def _with_backfills(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, tried: Sequence[Attempt], now: dt.datetime
) -> Sequence[Attempt]:
    """The attempts, and the backfills of Dagster's own that failed before they launched a run for some of their days.

    One of the assets launches `users_table` first, and nothing else if that fails.
    """
    for backfill in backfills.with_status(instance, backfills.FAILED, created_after=now - REMEMBERED):
        created = dt.datetime.fromtimestamp(backfill.backfill_timestamp, dt.UTC)
        later = {day for attempt in tried if attempt.created >= created for day in attempt.days}
        days = frozenset(_days_of_backfill(backfill, repository)) - later
        if days:
            ended = dt.datetime.fromtimestamp(backfill.backfill_end_timestamp or backfill.backfill_timestamp, dt.UTC)
            launch = _launch(backfill.run_config, backfill.tags)
            tried = [*tried, Attempt(backfill.backfill_id, created, ended, days, launch=launch)]
    return sorted(tried, key=lambda attempt: attempt.created)

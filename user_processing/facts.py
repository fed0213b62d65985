"""What is known of the days: read from Dagster's instance and from the ledger, in a fixed number of queries.

Nothing is remembered here and nothing decided: `catchup` does that.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence

import dagster as dg
from dagster._core.errors import DagsterDefinitionChangedDeserializationError
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    AUTO_RETRY_RUN_ID_TAG,
    PARTITION_NAME_TAG,
    WILL_RETRY_TAG,
)

from user_processing.assets import FAILED_DAYS, STOPPED_AT, stored_users
from user_processing.catchup import Attempt

# Tags of the runs that `backfill` queues: which backfill, and which of its lanes.
BACKFILL = "user_processing/backfill"
LANE = "user_processing/lane"

# A run that is NOT_STARTED was given up before it was queued; asked for by its run key again, it is launched.
_ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_UNSUCCESSFUL = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_UNFINISHED_BACKFILLS = [BulkActionStatus.REQUESTED]

# After so long a run that Dagster meant to retry is not waited for any more.
_RETRY_COMES_WITHIN = dt.timedelta(minutes=10)


def materialized(instance: dg.DagsterInstance) -> Mapping[str, int]:
    """The days that Dagster knows to be stored, each with the event of its last materialization."""
    return instance.get_latest_storage_id_by_partition(stored_users.key, dg.DagsterEventType.ASSET_MATERIALIZATION)


def stored_at(instance: dg.DagsterInstance, events: Mapping[str, int]) -> dict[str, dt.datetime]:
    """When the days were materialized, whose last materializations are these events."""
    if not events:
        return {}
    chosen = dg.AssetRecordsFilter(asset_key=stored_users.key, storage_ids=sorted(events.values()))
    records = instance.fetch_materializations(chosen, limit=len(events)).records
    return {
        record.partition_key: dt.datetime.fromtimestamp(record.timestamp, dt.UTC)
        for record in records
        if record.partition_key
    }


def active(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that store days and are queued or at work, whoever launched them."""
    runs = instance.get_runs(dg.RunsFilter(statuses=_ACTIVE))
    return [run for run in runs if days_of(run)]


def busy(runs: Iterable[dg.DagsterRun]) -> dict[str, str]:
    """Day → what is at work on it, or waits to be."""
    return {day: f"run {run.run_id}" for run in runs for day in days_of(run)}


def backfilling(instance: dg.DagsterInstance, repository: dg.RepositoryDefinition) -> dict[str, str]:
    """Day → the backfill of Dagster's own, not yet finished, that it belongs to."""
    backfills = instance.get_backfills(BulkActionsFilter(statuses=_UNFINISHED_BACKFILLS))
    return {
        day: f"backfill {backfill.backfill_id}"
        for backfill in backfills
        for day in _days_of_backfill(backfill, repository)
    }


def attempts(instance: dg.DagsterInstance, now: dt.datetime) -> tuple[list[Attempt], dict[str, str]]:
    """What failed or was cancelled, oldest first; and day → the run that Dagster is about to retry."""
    records = instance.get_run_records(dg.RunsFilter(statuses=_UNSUCCESSFUL), ascending=True)
    groups: dict[str, list[dg.RunRecord]] = {}
    for record in records:
        if days_of(record.dagster_run):
            groups.setdefault(record.dagster_run.root_run_id or record.dagster_run.run_id, []).append(record)
    retried = {
        day: f"the retry of run {records[-1].dagster_run.run_id}"
        for records in groups.values()
        if _about_to_be_retried(records[-1], now)
        for day in days_of(records[-1].dagster_run)
    }
    return [_attempt(records) for records in groups.values()], retried


def days_of(run: dg.DagsterRun) -> Sequence[str]:
    """The days that a run is to store, oldest first; none if it leaves `stored_users` out."""
    if run.asset_selection or run.asset_check_selection:
        stores = stored_users.key in (run.asset_selection or ())
    else:
        stores = run.job_name == "user_processing" or run.job_name.startswith("__ASSET_JOB")
    if not stores:
        return ()
    first = run.tags.get(PARTITION_NAME_TAG) or run.tags.get(ASSET_PARTITION_RANGE_START_TAG)
    last = run.tags.get(PARTITION_NAME_TAG) or run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
    return _between(first, last) if first and last else ()


def _between(first: str, last: str) -> Sequence[str]:
    try:
        start, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    except ValueError:
        return ()
    return [(start + dt.timedelta(days=number)).isoformat() for number in range((end - start).days + 1)]


def _attempt(records: Sequence[dg.RunRecord]) -> Attempt:
    last = records[-1].dagster_run
    failed = frozenset(
        day
        for span in last.tags.get(FAILED_DAYS, "").split(",")
        if span
        for day in _between(span.partition("...")[0], span.rpartition("...")[2])
    )
    return Attempt(
        run_id=last.run_id,
        created=records[0].create_timestamp,
        ended=dt.datetime.fromtimestamp(records[-1].end_time or records[-1].update_timestamp.timestamp(), dt.UTC),
        days=frozenset(days_of(last)),
        failed=failed,
        stopped_at=last.tags.get(STOPPED_AT),
        cancelled=last.status == dg.DagsterRunStatus.CANCELED,
    )


def _about_to_be_retried(record: dg.RunRecord, now: dt.datetime) -> bool:
    tags = record.dagster_run.tags
    # Dagster marks a run of the command line too, and cannot launch it again.
    launched = record.dagster_run.remote_job_origin is not None
    waits = launched and tags.get(WILL_RETRY_TAG) == "true" and AUTO_RETRY_RUN_ID_TAG not in tags
    return waits and record.end_time is not None and now.timestamp() - record.end_time < _RETRY_COMES_WITHIN.seconds


def _days_of_backfill(backfill: PartitionBackfill, repository: dg.RepositoryDefinition) -> Iterator[str]:
    if not backfill.is_asset_backfill:
        if backfill.job_name == "user_processing":
            yield from backfill.partition_names or ()
        return
    try:
        data = backfill.get_asset_backfill_data(repository.asset_graph)
    except DagsterDefinitionChangedDeserializationError:
        return
    if stored_users.key in data.target_subset.asset_keys:
        yield from data.get_target_partitions_subset(stored_users.key).get_partition_keys()

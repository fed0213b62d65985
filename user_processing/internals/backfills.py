"""Dagster's own backfills: those of the UI and of `dagster job backfill`.

Their runs are public, and they themselves are not: what a backfill is to store is known nowhere else before its runs
are launched. Can be deleted when `DagsterInstance` has a public way to list backfills with their partitions.
"""

import datetime as dt
from collections.abc import Collection, Iterator
from typing import TypeAlias

import dagster as dg
from dagster._core.errors import DagsterDefinitionChangedDeserializationError
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
)

Statuses: TypeAlias = Collection[BulkActionStatus]

IN_PROGRESS = frozenset({BulkActionStatus.REQUESTED})
FAILED = frozenset({BulkActionStatus.FAILED, BulkActionStatus.COMPLETED_FAILED})
CANCELLED = frozenset({BulkActionStatus.CANCELING, BulkActionStatus.CANCELED})
ENDED = frozenset(BULK_ACTION_TERMINAL_STATUSES)


def with_status(
    instance: dg.DagsterInstance,
    statuses: Statuses,
    *,
    ids: Collection[str] | None = None,
    created_after: dt.datetime | None = None,
) -> list[PartitionBackfill]:
    """Those that have one of the statuses, among these ids if any are given."""
    filters = BulkActionsFilter(
        statuses=list(statuses), backfill_ids=None if ids is None else sorted(ids), created_after=created_after
    )
    return list(instance.get_backfills(filters))


def partitions_of(
    backfill: PartitionBackfill, repository: dg.RepositoryDefinition, *, asset: dg.AssetKey, job: str
) -> Iterator[str]:
    """The partitions of the asset that a backfill is to materialize, by itself or as a part of the job."""
    if not backfill.is_asset_backfill:
        if backfill.job_name == job:
            yield from backfill.partition_names or ()
        return
    try:
        data = backfill.get_asset_backfill_data(repository.asset_graph)
    except DagsterDefinitionChangedDeserializationError:
        return
    if asset in data.target_subset.asset_keys:
        yield from data.get_target_partitions_subset(asset).get_partition_keys()

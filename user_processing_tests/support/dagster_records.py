"""What Dagster keeps of runs and backfills, made as a daemon or the UI would make it. It has no public way to do so."""

import datetime as dt

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteJobOrigin,
    RemotePartitionSetOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from user_processing.assets import stored_users
from user_processing.days.cadence import CADENCE

_REPOSITORY = RemoteRepositoryOrigin(
    InProcessCodeLocationOrigin(loadable_target_origin=LoadableTargetOrigin()), "__repository__"
)

ORIGIN = RemoteJobOrigin(_REPOSITORY, "user_processing")
"""What a run has that a code location has launched."""


def backfill_of_assets(days: list[str], created: dt.datetime) -> PartitionBackfill:
    """One of the UI, in progress."""
    subset = CADENCE.days.subset_with_partition_keys(days)
    found: PartitionBackfill = PartitionBackfill.from_asset_graph_subset(
        backfill_id="abc",
        backfill_timestamp=created.timestamp(),
        tags={},
        dynamic_partitions_store=dg.DagsterInstance.ephemeral(),
        asset_graph_subset=AssetGraphSubset({stored_users.key: subset}),  # type: ignore[call-arg]
        title=None,
        description=None,
        run_config=None,
    )
    return found


def backfill_of_the_job(days: list[str], created: dt.datetime) -> PartitionBackfill:
    """One of the UI or of `dagster job backfill`, in progress."""
    return PartitionBackfill(
        backfill_id="abc",
        status=BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={},
        backfill_timestamp=created.timestamp(),
        partition_set_origin=RemotePartitionSetOrigin(
            repository_origin=_REPOSITORY, partition_set_name="user_processing_partition_set"
        ),
        partition_names=days,
    )


def with_status(backfill: PartitionBackfill, status: str) -> PartitionBackfill:
    """The same backfill, some time later."""
    return backfill._replace(status=BulkActionStatus(status))

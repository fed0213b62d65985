"""The four assets: the table, then fetch, process and store.

What each verb does for one day is in `steps`; how a run goes through its days is in `days.work`.
"""

import functools

import dagster as dg
from pydantic import Field

from user_processing import settings
from user_processing.columns import COLUMNS
from user_processing.days.cadence import CADENCE
from user_processing.days.work import PermanentError, day_by_day, days_of, start_of_first_try
from user_processing.source import contract
from user_processing.source.user_api import UserApi
from user_processing.steps.fetch import fetching
from user_processing.steps.process import process_day
from user_processing.steps.store import store_day
from user_processing.store import tables
from user_processing.store.day_files import DayFiles
from user_processing.store.migrations import TableError
from user_processing.store.postgres import Postgres

days = CADENCE.days

GROUP = "user_processing"
OWNERS = ["team:data-engineering"]
# One run for all the days of a backfill, unless USERS_DAYS_PER_RUN says how many. A run per day would pay for a process
# and its events every time. Part of the definition, so it is read with it.
_DAYS_PER_RUN = settings.load().users_days_per_run
ONE_RUN = dg.BackfillPolicy.single_run()
RUNS = dg.BackfillPolicy.multi_run(_DAYS_PER_RUN) if _DAYS_PER_RUN else ONE_RUN

_COLUMNS = [
    dg.TableColumn(
        column.name, column.type, column.description, constraints=dg.TableColumnConstraints(nullable=column.nullable)
    )
    for column in COLUMNS
]
_DAY = dg.TableColumn("partition_date", "date", "The day; empty for rows that were there before this pipeline.")
_CSV = {"dagster/column_schema": dg.TableSchema(_COLUMNS)}
_TABLE = {"dagster/column_schema": dg.TableSchema([*_COLUMNS, _DAY])}


class RawUserConfig(dg.Config):
    """What one run may ask for differently."""

    users_per_day: int | None = Field(
        default=None,
        ge=1,
        le=contract.LARGEST_PAGE * contract.LAST_PAGE,
        description="Users to fetch for each day. Without it: USERS_PER_DAY, or else 1.",
    )


@dg.asset(
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "table"},
    metadata=_TABLE,
)
def users_table(context: dg.AssetExecutionContext, postgres: Postgres) -> dg.MaterializeResult[None]:
    """The table `users`, empty or not, with its ledger `user_loads` and its quarantine `rejected_users`.

    A `users` table that the Airflow pipeline filled is taken over as it is; its rows belong to no day.
    """
    context.log.info(f"Users are kept in {postgres.address}")
    with postgres.transaction() as connection:
        try:
            name = tables.create_tables(connection)
        except TableError as error:
            raise PermanentError(str(error)) from None
    return dg.MaterializeResult(metadata={"dagster/relation_identifier": name})


user_api_source = dg.AssetSpec(
    "user_api",
    group_name="sources",
    owners=OWNERS,
    kinds={"http"},
    description="The API that the users come from. Observed by the sensor: whether it is up, and how long it took.",
)


@dg.asset(
    partitions_def=days,
    backfill_policy=RUNS,
    deps=[users_table, user_api_source],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"json"},
    pool="user_api",
)
def raw_user(
    context: dg.AssetExecutionContext,
    config: RawUserConfig,
    user_api: UserApi,
    day_files: DayFiles,
    postgres: Postgres,
) -> dg.MaterializeResult[None]:
    """The day's users as the API sent them: pages of at most 5,000, byte for byte.

    The day is the API's seed, so a day fetched again is the same day.
    """
    context.log.info(f"Users come from {user_api.address}")
    with fetching(
        user_api,
        day_files,
        days=days_of(context),
        users_per_day=user_api.users_requested if config.users_per_day is None else config.users_per_day,
        limit=user_api.limit(postgres.transaction),
        reuse_since=start_of_first_try(context),
    ) as fetch_day:
        return day_by_day(context, fetch_day)


@dg.asset(
    partitions_def=days,
    backfill_policy=RUNS,
    deps=[raw_user],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"csv"},
    metadata=_CSV,
)
def processed_user_csv(context: dg.AssetExecutionContext, day_files: DayFiles) -> dg.MaterializeResult[None]:
    """The day's users as CSV: the columns of `users`, no header, no index, every string as the API meant it.

    A record that breaks the API's contract is set aside with the reason; a day with too many of them fails.
    """
    chosen = settings.load()
    process = functools.partial(
        process_day, day_files=day_files, passwords=chosen.users_passwords, max_rejected=chosen.users_max_rejected
    )
    return day_by_day(context, process)


@dg.asset(
    partitions_def=days,
    backfill_policy=RUNS,
    deps=[processed_user_csv],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "table"},
    metadata=_TABLE,
)
def stored_users(
    context: dg.AssetExecutionContext, day_files: DayFiles, postgres: Postgres
) -> dg.MaterializeResult[None]:
    """Every user of the day, in the table `users`. Running a day again replaces that day."""
    store = functools.partial(store_day, day_files=day_files, postgres=postgres, run_id=context.run.run_id)
    return day_by_day(context, store, stores=True)

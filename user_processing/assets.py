"""The four assets: each reads, calls a function, writes, returns.

What a record is lives in `users`, what a statement is in `tables`, what a file is in `resources.day_files`.
A run covers one day or a range of them; each day is a unit of its own in all of the assets.
"""

import datetime as dt
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import dagster as dg
import msgspec
from pydantic import Field

from user_processing import tables, users, variables
from user_processing.cadence import CADENCE, NoSuchDaysError
from user_processing.resources.day_files import DayFiles, MissingFileError
from user_processing.resources.postgres import DatabaseUnavailableError, Postgres
from user_processing.resources.user_api import ApiUnavailableError, UserApi
from user_processing.resources.user_records import UserRecords

days = CADENCE.days

GROUP = "user_processing"
OWNERS = ["team:data-engineering"]
# One run for all the days of a backfill, unless USERS_DAYS_PER_RUN says how many. A run per day would pay for a process
# and its events every time. Part of the definition, so it is read with it.
_DAYS_PER_RUN = variables.at_least_one("USERS_DAYS_PER_RUN")
ONE_RUN = dg.BackfillPolicy.single_run()
RUNS = dg.BackfillPolicy.multi_run(_DAYS_PER_RUN) if _DAYS_PER_RUN else ONE_RUN

# Tags that a run gets when it fails: what is its own days' fault, and what is the API's or the database's.
FAILED_DAYS = "user_processing/failed_days"
STOPPED_AT = "user_processing/stopped_at"
# A tag that a run is asked for with: pages that were written since this earlier run was created are good.
PAGES_SINCE = "user_processing/pages_since"

Metadata: TypeAlias = Mapping[str, int | float | str]

_SECONDS_BETWEEN_REPORTS = 10.0

_COLUMN_MEANINGS = {
    "firstname": "name.first",
    "lastname": "name.last",
    "country": "location.country",
    "username": "login.username; not unique",
    "password": "login.password, or what USERS_PASSWORDS makes of it; can be empty",
    "email": "email; not unique",
}
_CSV_SCHEMA = dg.TableSchema(
    columns=[dg.TableColumn(column, "text", description=_COLUMN_MEANINGS[column]) for column in users.COLUMNS]
)
_TABLE_SCHEMA = dg.TableSchema(
    columns=[
        *(
            dg.TableColumn(
                column,
                "text",
                description=_COLUMN_MEANINGS[column],
                constraints=dg.TableColumnConstraints(nullable=False),
            )
            for column in users.COLUMNS
        ),
        dg.TableColumn(
            "partition_date", "date", description="The day; empty for rows that were there before this pipeline."
        ),
    ]
)


class PageFile(msgspec.Struct):
    """One page of a day, as it lies in the day's files."""

    page: int
    results: int
    bytes: int
    sha256: str


class DayOfPages(msgspec.Struct):
    """The account of `raw_user`: which pages make up the day."""

    users_asked: int
    pages: list[PageFile]


class RawUserConfig(dg.Config):
    """What one run may ask for differently."""

    users_per_day: int | None = Field(
        default=None,
        ge=1,
        le=users.LARGEST_PAGE * users.LAST_PAGE,
        description="Users to fetch for each day. Without it: USERS_PER_DAY, or else 1.",
    )


@dg.asset(
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "table"},
    metadata={"dagster/column_schema": _TABLE_SCHEMA},
)
def users_table(context: dg.AssetExecutionContext, postgres: Postgres) -> dg.MaterializeResult[None]:
    """The table `users`, empty or not, with its ledger `user_loads` and its quarantine `rejected_users`.

    A `users` table that the Airflow pipeline filled is taken over as it is; its rows belong to no day.
    """
    context.log.info(f"users are kept in {postgres.address}")
    with postgres.transaction() as connection:
        try:
            name = tables.create_tables(connection)
        except tables.TableError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
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
    context: dg.AssetExecutionContext, config: RawUserConfig, user_api: UserApi, day_files: DayFiles
) -> dg.MaterializeResult[None]:
    """The day's users as the API sent them: pages of at most 5,000, byte for byte.

    The day is the API's seed, so a day fetched again is the same day.
    """
    asked = user_api.users_asked if config.users_per_day is None else config.users_per_day
    try:
        sizes = list(enumerate(users.page_sizes(asked), start=1))
    except ValueError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    since = _start_of_first_try(context)
    context.log.info(f"users come from {user_api.address}")
    stopping = threading.Event()

    def fetch(day: str, page: int, results: int) -> PageFile:
        path = day_files.page(day, page)
        body = day_files.written_since(path, since) if since else None
        if body is None or not _is_page(body, seed=day, page=page, results=results):
            body = user_api.page(seed=day, page=page, results=results, stopping=stopping)
            day_files.write(path, body)
        return PageFile(page, results, len(body), hashlib.sha256(body).hexdigest())

    with ThreadPoolExecutor(user_api.concurrency, thread_name_prefix="page") as pool:
        fetching: dict[str, list[Future[PageFile]]] = {}
        coming = iter(days_of(context))

        def gather(day: str, progress: Callable[[int], None]) -> Metadata:
            # Some days ahead: with one page a day the connections would wait for each other otherwise.
            for ahead in itertools.islice(coming, user_api.concurrency + 1 - len(fetching)):
                fetching[ahead] = [pool.submit(fetch, ahead, page, size) for page, size in sizes]
            pages = []
            for future in fetching.pop(day):
                pages.append(future.result())
                progress(pages[-1].results)
            day_files.write(day_files.pages(day), msgspec.json.encode(DayOfPages(asked, pages)))
            return {"dagster/row_count": asked, "pages": len(pages), "bytes": sum(page.bytes for page in pages)}

        try:
            return day_by_day(context, gather)
        finally:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)


@dg.asset(
    partitions_def=days,
    backfill_policy=RUNS,
    deps=[raw_user],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"csv"},
    metadata={"dagster/column_schema": _CSV_SCHEMA},
)
def processed_user_csv(
    context: dg.AssetExecutionContext, day_files: DayFiles, user_records: UserRecords
) -> dg.MaterializeResult[None]:
    """The day's users as CSV: six columns, no header, no index, every string as the API meant it.

    A record that breaks the API's contract is set aside with the reason; a day with too many of them fails.
    """
    passwords = user_records.password_column
    largest_share = user_records.largest_rejected_share

    def process(day: str, progress: Callable[[int], None]) -> Metadata:
        pages = day_files.account(day_files.pages(day), DayOfPages, day=day, asset="raw_user")
        digest = hashlib.sha256()
        rows = size = 0
        rejected: list[users.Rejection] = []
        page_of: dict[str, int] = {}
        with day_files.writing(day_files.csv(day)) as csv:
            for file in pages.pages:
                parsed = users.parse_page(_page_bytes(day_files, day, file), page=file.page, passwords=passwords)
                if parsed.first_uuid and page_of.setdefault(parsed.first_uuid, file.page) != file.page:
                    message = (
                        f"Day {day}: page {file.page} holds the users of page {page_of[parsed.first_uuid]} again. "
                        "Materialize raw_user for this day. What is stored was left as it is."
                    )
                    raise dg.Failure(message, allow_retries=False)
                csv.write(parsed.csv)
                digest.update(parsed.csv)
                rows += parsed.rows
                size += len(parsed.csv)
                rejected += parsed.rejected
                progress(parsed.rows)
            _accept(day, rows, rejected, largest_share)
        load = tables.Load(pages.users_asked, rows, digest.hexdigest(), rejected)
        day_files.write(day_files.users(day), msgspec.json.encode(load))
        return {"dagster/row_count": rows, "rejected": len(rejected), "bytes": size}

    return day_by_day(context, process)


@dg.asset(
    partitions_def=days,
    backfill_policy=RUNS,
    deps=[processed_user_csv],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "table"},
    metadata={"dagster/column_schema": _TABLE_SCHEMA},
)
def stored_users(
    context: dg.AssetExecutionContext, day_files: DayFiles, postgres: Postgres
) -> dg.MaterializeResult[None]:
    """Every user of the day, in the table `users`. Running a day again replaces that day."""

    def store(day: str, progress: Callable[[int], None]) -> Metadata:
        load = day_files.account(day_files.users(day), tables.Load, day=day, asset="processed_user_csv")
        csv_path = day_files.csv(day)
        try:
            with (
                day_files.reading(csv_path, day=day, asset="processed_user_csv") as csv,
                postgres.transaction() as connection,
            ):
                tables.replace_day(connection, dt.date.fromisoformat(day), csv, load, run_id=context.run.run_id)
                table = tables.full_name(connection)
        except tables.LoadError as error:
            raise MissingFileError(day, csv_path, f"is not whole: {error}", "processed_user_csv") from None
        progress(load.rows)
        return {"dagster/row_count": load.rows, "rejected": len(load.rejected), "dagster/relation_identifier": table}

    return day_by_day(context, store)


def days_of(context: dg.AssetExecutionContext) -> list[str]:
    """The days of the run, oldest first.

    Raises:
        dagster.Failure: the run names none, or some that are not over. Dagster itself would take a range whose end lies
            before its start for an empty one and succeed, and fetch days of the next century.
    """
    tags = context.run.tags
    first = tags.get("dagster/partition") or tags.get("dagster/asset_partition_range_start")
    last = tags.get("dagster/partition") or tags.get("dagster/asset_partition_range_end")
    if not first or not last:
        message = "The run names no day. Give it one, such as --partition 2023-01-01."
        raise dg.Failure(message, allow_retries=False)
    try:
        return CADENCE.between(first, last, dt.datetime.now(dt.UTC))
    except NoSuchDaysError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


def day_by_day(
    context: dg.AssetExecutionContext, work: Callable[[str, Callable[[int], None]], Metadata]
) -> dg.MaterializeResult[None]:
    """Do the work of each day of the run, and report each day by itself.

    A day that fails does not keep the others from being done, unless the API or the database is gone for all of them.
    When any failed, what is done is recorded with its own metadata before the run fails.

    Args:
        context: of the asset that runs.
        work: takes a day and a function that counts rows as they are done; returns the day's metadata.

    Raises:
        dagster.Failure: names the days that are not done.
    """
    wanted = days_of(context)
    done: dict[str, Metadata] = {}
    failed: dict[str, dg.Failure] = {}
    progress = _Progress(context.log.info, len(wanted))
    try:
        for day in wanted:
            started = time.monotonic()
            try:
                counts = work(day, progress.rows)
            except (ApiUnavailableError, DatabaseUnavailableError) as error:
                failed[day] = error
                break
            except dg.Failure as error:
                context.log.error(f"{day}: {error.description}")  # noqa: TRY400 - the run ends with the trace
                failed[day] = error
            else:
                done[day] = {**counts, "seconds": round(time.monotonic() - started, 3)}
                progress.day_done()
    finally:
        # Dagster records the days of an asset when it succeeds. One that fails or is interrupted records its own.
        for day, metadata in done.items():
            if len(done) == len(wanted):
                context.add_asset_metadata(metadata, partition_key=day)
            else:
                context.log_event(dg.AssetMaterialization(context.asset_key, partition=day, metadata=dict(metadata)))
    progress.report()
    if failed:
        context.instance.add_run_tags(context.run.run_id, _tags_of_failure(failed))
        raise _days_failed(wanted, done, failed)
    return dg.MaterializeResult()


def _tags_of_failure(failed: Mapping[str, dg.Failure]) -> dict[str, str]:
    """Whose fault it is, for those who decide what to run again."""
    gone = [day for day, error in failed.items() if isinstance(error, (ApiUnavailableError, DatabaseUnavailableError))]
    own = [dt.date.fromisoformat(day) for day in failed if day not in gone]
    ranges = ",".join("...".join(dict.fromkeys((span[0], span[-1]))) for span in _spans(own))
    return {name: value for name, value in ((FAILED_DAYS, ranges), (STOPPED_AT, ",".join(gone))) if value}


def _days_failed(wanted: list[str], done: Mapping[str, object], failed: Mapping[str, dg.Failure]) -> dg.Failure:
    missing = [dt.date.fromisoformat(day) for day in wanted if day not in done]
    first, error = next(iter(failed.items()))
    return dg.Failure(
        f"{len(missing)} of {len(wanted)} days are not done: {day_ranges(missing)}. {first}: {error.description}",
        metadata={"days done": len(done), "days missing": len(missing)},
        allow_retries=any(error.allow_retries for error in failed.values()),
    )


def day_ranges(dates: Iterable[dt.date]) -> str:
    """Days, oldest first, as people write them: 2023-01-03, 2023-01-05…2023-01-09."""
    return ", ".join("…".join(dict.fromkeys((span[0], span[-1]))) for span in _spans(dates))


def _spans(dates: Iterable[dt.date]) -> Iterator[list[str]]:
    """Cut days, oldest first, where one is missing."""
    for _, group in itertools.groupby(enumerate(dates), key=lambda pair: pair[1].toordinal() - pair[0]):
        yield [str(date) for _, date in group]


class _Progress:
    """Says how far the run is, every few seconds: days, rows, and rows a second."""

    def __init__(self, say: Callable[[str], None], days: int) -> None:
        self._say = say
        self._days = days
        self._days_done = 0
        self._rows = 0
        self._started = self._said = time.monotonic()

    def rows(self, count: int) -> None:
        self._rows += count
        if time.monotonic() - self._said >= _SECONDS_BETWEEN_REPORTS:
            self.report()

    def day_done(self) -> None:
        self._days_done += 1

    def report(self) -> None:
        self._said = time.monotonic()
        rate = self._rows / max(self._said - self._started, 0.001)
        self._say(f"{self._days_done:,} of {self._days:,} days done, {self._rows:,} users, {rate:,.0f} a second")


def _start_of_first_try(context: dg.AssetExecutionContext) -> float | None:
    """When this run tries again what another did: the time (Unix seconds) at which the first of them was created."""
    root = context.run.tags.get(PAGES_SINCE) or context.run.root_run_id
    record = context.instance.get_run_record_by_id(root) if root else None
    return record.create_timestamp.timestamp() if record else None


def _is_page(body: bytes, *, seed: str, page: int, results: int) -> bool:
    try:
        users.check_page(body, seed=seed, page=page, results=results)
    except users.ContractError:
        return False
    return True


def _page_bytes(day_files: DayFiles, day: str, file: PageFile) -> bytes:
    path = day_files.page(day, file.page)
    with day_files.reading(path, day=day, asset="raw_user") as page:
        body = page.read()
    if hashlib.sha256(body).hexdigest() != file.sha256:
        raise MissingFileError(day, path, "is not the page that was fetched", "raw_user")
    return body


def _accept(day: str, rows: int, rejected: list[users.Rejection], largest_share: float) -> None:
    """Let the day pass if few of its records were rejected.

    Raises:
        dagster.Failure: so many were that it is the API's contract that has changed.
    """
    share = len(rejected) / (rows + len(rejected))
    if rejected and (share > largest_share or not rows):
        first = rejected[0]
        message = (
            f"Day {day}: {len(rejected):,} of {rows + len(rejected):,} records break the API's contract; "
            f"the first, on page {first.page} at position {first.position}: {first.reason}. "
            f"What is stored was left as it is. USERS_MAX_REJECTED allows a share of {largest_share:g}."
        )
        raise dg.Failure(message, allow_retries=False)

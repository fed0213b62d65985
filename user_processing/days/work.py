"""How an asset goes through the days of its run: one after the other, each reported by itself.

What is done for a day is told by the asset. Progress, failures and Dagster's events are the same for all of them.
"""

import contextlib
import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TypeAlias

import dagster as dg

from user_processing.days.cadence import CADENCE, NoSuchDaysError
from user_processing.days.runs import FAILED_DAYS, PAGES_SINCE, STOPPED_AT, RunDays, format_days, tag_of_days

Metadata: TypeAlias = Mapping[str, int | float | str]
CountRows: TypeAlias = Callable[[int], None]
Work: TypeAlias = Callable[[str, CountRows], Metadata]
"""What is done for one day: takes the day and a function that counts rows as they are done; returns its metadata."""

_SECONDS_BETWEEN_REPORTS = 10.0


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far an asset is with the days of its run."""

    asset: str
    days_done: int
    days: int
    rows: int
    seconds: float


_watcher: ContextVar[Callable[[Progress], None] | None] = ContextVar("watcher", default=None)


@contextlib.contextmanager
def watched(watcher: Callable[[Progress], None]) -> Iterator[None]:
    """Within the block, `watcher` is told of each day and page that a run of this thread has done."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


class OutageError(dg.Failure):
    """A service that all days need is away. Nothing is wrong with the day; it can be done when the service is back."""


class PermanentError(dg.Failure):
    """The day itself is bad, or what is asked of it: the same work would fail again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, allow_retries=False)


def days_of(context: dg.AssetExecutionContext) -> list[str]:
    """The days of the run, oldest first.

    Raises:
        dagster.Failure: the run names none, or some that are not over. Dagster itself would take a range whose end lies
            before its start for an empty one and succeed, and fetch days of the next century.
    """
    span = RunDays.of(context.run.tags)
    if not span:
        raise PermanentError("The run names no day. Give it one, such as --partition 2023-01-01.")
    try:
        return CADENCE.between(span.first, span.last, dt.datetime.now(dt.UTC))
    except NoSuchDaysError as error:
        raise PermanentError(str(error)) from None


def start_of_first_try(context: dg.AssetExecutionContext) -> float | None:
    """When this run tries again what another did: the time (Unix seconds) at which the first of them was created."""
    root = context.run.tags.get(PAGES_SINCE) or context.run.root_run_id
    record = context.instance.get_run_record_by_id(root) if root else None
    return record.create_timestamp.timestamp() if record else None


def day_by_day(context: dg.AssetExecutionContext, work: Work, *, stores: bool = False) -> dg.MaterializeResult[None]:
    """Do the work of each day of the run, and report each day by itself.

    A day that fails does not keep the others from being done, unless the API or the database is gone for all of them.
    When any failed, what is done is recorded with its own metadata before the run fails.

    Args:
        context: of the asset that runs.
        work: what is done for each day.
        stores: whether the work changes what is stored. A failure of any other says that nothing of it did change: the
            UI shows the checks of what is stored as failed, since Dagster has planned them.

    Raises:
        dagster.Failure: names the days that are not done.
    """
    wanted = days_of(context)
    done: dict[str, Metadata] = {}
    failed: dict[str, dg.Failure] = {}
    progress = _Reporter(context.log.info, context.asset_key.to_user_string(), len(wanted))
    try:
        for day in wanted:
            started = time.monotonic()
            try:
                counts = work(day, progress.rows)
            except OutageError as error:
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
        unchanged = "" if stores else " What is stored for them did not change."
        raise _days_failed(wanted, done, failed, unchanged)
    return dg.MaterializeResult()


def _tags_of_failure(failed: Mapping[str, dg.Failure]) -> dict[str, str]:
    """What caused the failure, for those who decide what to run again."""
    outages = [day for day, error in failed.items() if isinstance(error, OutageError)]
    own = tag_of_days(day for day in failed if day not in outages)
    return {name: value for name, value in ((FAILED_DAYS, own), (STOPPED_AT, ",".join(outages))) if value}


def _days_failed(
    wanted: list[str], done: Mapping[str, object], failed: Mapping[str, dg.Failure], unchanged: str
) -> dg.Failure:
    missing = [day for day in wanted if day not in done]
    first, error = next(iter(failed.items()))
    return dg.Failure(
        f"{len(missing)} of {len(wanted)} days are not done: {format_days(missing)}.{unchanged} "
        f"{first}: {error.description}",
        metadata={"days done": len(done), "days missing": len(missing)},
        allow_retries=any(error.allow_retries for error in failed.values()),
    )


class _Reporter:
    """Says how far the run is, every few seconds: days, rows, and rows a second."""

    def __init__(self, say: Callable[[str], None], asset: str, days: int) -> None:
        self._say = say
        self._asset = asset
        self._days = days
        self._days_done = 0
        self._rows = 0
        self._started = self._said = time.monotonic()

    def rows(self, count: int) -> None:
        self._rows += count
        self._tell_watcher()
        if time.monotonic() - self._said >= _SECONDS_BETWEEN_REPORTS:
            self.report()

    def day_done(self) -> None:
        self._days_done += 1
        self._tell_watcher()

    def _tell_watcher(self) -> None:
        if watcher := _watcher.get():
            seconds = time.monotonic() - self._started
            watcher(Progress(self._asset, self._days_done, self._days, self._rows, seconds))

    def report(self) -> None:
        self._said = time.monotonic()
        rate = self._rows / max(self._said - self._started, 0.001)
        self._say(f"{self._days_done:,} of {self._days:,} days done, {self._rows:,} users, {rate:,.0f} a second")

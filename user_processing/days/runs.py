"""The days of a run: how its tags name them, how spans of days are cut, and how people write them.

Every tag that this project reads or writes is named here, Dagster's own as well. Whether days exist is for `cadence`.
"""

import dataclasses
import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Self

# Dagster's own tags.
PARTITION = "dagster/partition"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
PRIORITY = "dagster/priority"
WILL_RETRY = "dagster/will_retry"
RETRIED_BY = "dagster/auto_retry_run_id"
DAGSTER_BACKFILL = "dagster/backfill"

# A run that fails gets them: the days that failed by themselves, and the day at which the API or the database was gone.
FAILED_DAYS = "user_processing/failed_days"
STOPPED_AT = "user_processing/stopped_at"
# A run is asked for with it: pages that were written since this earlier run was created are good.
PAGES_SINCE = "user_processing/pages_since"
# The runs of a backfill have them: which backfill, and which of its lanes. At most one run of a lane is in progress.
BACKFILL = "user_processing/backfill"
LANE = "user_processing/lane"
# They have these too, as the backfill was asked for: what resumes it keeps to them.
DAYS_PER_RUN = "user_processing/days_per_run"
MAX_ACTIVE_RUNS = "user_processing/max_active_runs"
BACKWARDS = "user_processing/backwards"
# The failed runs of a backfill get it when the backfill is cancelled: nobody asks for their days again.
CANCELLED = "user_processing/cancelled"

_MOST_COMMANDS = 3
_BETWEEN = "..."  # as `--partition-range` has it


@dataclasses.dataclass(frozen=True)
class RunDays:
    """The calendar days from the first to the last, both included, each YYYY-MM-DD."""

    first: str
    last: str

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Self | None:
        """The days of the run with these tags; None if they name none."""
        first = tags.get(PARTITION) or tags.get(RANGE_START)
        last = tags.get(PARTITION) or tags.get(RANGE_END)
        return cls(first, last) if first and last else None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `key` has written."""
        return cls(text.partition(_BETWEEN)[0], text.rpartition(_BETWEEN)[2])

    @property
    def key(self) -> str:
        """As `--partition` and `--partition-range` take them: 2023-01-01, 2023-01-01...2023-01-05."""
        return _BETWEEN.join(dict.fromkeys((self.first, self.last)))

    def tags(self) -> dict[str, str]:
        """The tags of a run over these days."""
        if self.first == self.last:
            return {PARTITION: self.first}
        return {RANGE_START: self.first, RANGE_END: self.last}

    def __iter__(self) -> Iterator[str]:
        """Each day, oldest first; none if they are the wrong way round.

        Raises:
            ValueError: the first or the last is not a day.
        """
        start, end = dt.date.fromisoformat(self.first), dt.date.fromisoformat(self.last)
        return ((start + dt.timedelta(days=number)).isoformat() for number in range((end - start).days + 1))

    def __str__(self) -> str:
        """As people write them: 2023-01-01, 2023-01-01 to 2023-01-05."""
        return " to ".join(dict.fromkeys((self.first, self.last)))


def spans(days: Iterable[str], longest: int | None = None, alone: Collection[str] = ()) -> Iterator[RunDays]:
    """Cut days, oldest first, where one is missing, after `longest` of them, and around those that stand alone."""
    span: list[str] = []
    for day in days:
        follows = span and dt.date.fromisoformat(day) - dt.date.fromisoformat(span[-1]) == dt.timedelta(days=1)
        if span and (not follows or len(span) == longest or day in alone or span[-1] in alone):
            yield RunDays(span[0], span[-1])
            span = []
        span.append(day)
    if span:
        yield RunDays(span[0], span[-1])


def format_days(days: Iterable[str], most: int | None = None) -> str:
    """Days, oldest first, as people write them: 2023-01-03, 2023-01-05 to 2023-01-09.

    With `most`, no more than so many of these spans are written out.
    """
    written = [str(span) for span in spans(days)]
    shown = written[:most]
    more = [f"and {len(written) - len(shown):,} more"] if len(shown) < len(written) else []
    return ", ".join(shown + more)


def command_to_run(days: Iterable[str]) -> str:
    """What to type to run these days, oldest first. Of many spans, one range that holds them all."""
    chosen = list(spans(days))
    if len(chosen) > _MOST_COMMANDS:
        chosen = [RunDays(chosen[0].first, chosen[-1].last)]
    return " and ".join(
        f"make run DAY={span.first}" if span.first == span.last else f"make run FROM={span.first} TO={span.last}"
        for span in chosen
    )


def tag_of_days(days: Iterable[str]) -> str:
    """Days, oldest first, as the value of a tag."""
    return ",".join(span.key for span in spans(days))


def days_of_tag(value: str) -> Sequence[str]:
    """The days that `tag_of_days` has written."""
    return [day for span in value.split(",") if span for day in RunDays.parse(span)]

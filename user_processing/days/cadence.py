"""When days begin, end and are due: the one place that says so.

The days of the assets, the daily schedule, the sensor, the checks and the backfill command all follow `CADENCE`.
"""

import dataclasses
import datetime as dt
import functools
from zoneinfo import ZoneInfo

import dagster as dg

from user_processing.days.runs import RunDays


@dataclasses.dataclass(frozen=True)
class Cadence:
    """One partition a calendar day, named YYYY-MM-DD, from midnight to midnight in `time_zone`."""

    first_day: str = "2023-01-01"
    """Airflow's start_date."""

    last_day: str | None = None
    """Airflow's end_date, itself included; None: no end."""

    time_zone: str = "UTC"
    """An IANA name. A day of 23 or 25 hours is one day."""

    hour: int = 0
    """Hour of the next day, by the clock of `time_zone`, from which on a day is due."""

    @functools.cached_property
    def days(self) -> dg.DailyPartitionsDefinition:
        """The partitions of the assets."""
        end = dt.date.fromisoformat(self.last_day) + dt.timedelta(days=1) if self.last_day else None
        return dg.DailyPartitionsDefinition(
            start_date=self.first_day, end_date=end.isoformat() if end else None, timezone=self.time_zone
        )

    def cron_schedule(self, *, hours_later: int = 0) -> str:
        """Once a day, at the hour at which a day is due, or so many hours later."""
        return f"0 {(self.hour + hours_later) % 24} * * *"

    def newest_due(self, now: dt.datetime, *, hours_later: int = 0) -> dt.date:
        """The newest day that is due at this moment, whether or not it lies within the first and the last day.

        With `hours_later`: that was due so many hours ago, by the clock on the wall.
        """
        wall = now.astimezone(ZoneInfo(self.time_zone)).replace(tzinfo=None)
        return (wall - dt.timedelta(hours=self.hour + hours_later)).date() - dt.timedelta(days=1)

    def due(self, now: dt.datetime, *, hours_later: int = 0) -> list[str]:
        """Every day that is due at this moment, or was so many hours ago, oldest first."""
        last = self.newest_due(now, hours_later=hours_later).isoformat()
        return list(RunDays(self.first_day, min(last, self.last_day or last)))

    def are_over(self, days: RunDays, now: dt.datetime) -> bool:
        """Whether all of these are days of this cadence, and over at this moment."""
        newest = dataclasses.replace(self, hour=0).newest_due(now).isoformat()
        return self.first_day <= days.first <= days.last <= min(newest, self.last_day or newest)

    def between(self, first: str, last: str, now: dt.datetime) -> list[str]:
        """The days from the first to the last, both included, all of which have to be over at this moment.

        Raises:
            NoSuchDaysError: one of them is no day, or not within those that there are, or they are the wrong way round.
        """
        for text in (first, last):
            try:
                if dt.date.fromisoformat(text).isoformat() != text:
                    raise ValueError  # noqa: TRY301 - other spellings that Python reads
            except ValueError:
                raise NoSuchDaysError(f"{text!r} is not a day. Write it as YYYY-MM-DD.") from None
        if first > last:
            raise NoSuchDaysError(f"{first} is after {last}. Give the earlier day first: {last}...{first}.")
        over = dataclasses.replace(self, hour=0).due(now)
        if not over or first < over[0] or last > over[-1]:
            asked = first if first == last else f"{first}...{last}"
            there = f"run from {over[0]} to {over[-1]} ({self.time_zone})" if over else "are yet to come"
            raise NoSuchDaysError(f"{asked} is not within the days that there are. They {there}.")
        return over[over.index(first) : over.index(last) + 1]


class NoSuchDaysError(ValueError):
    """What was asked for are not days of this pipeline; the message says why, and which there are."""


CADENCE = Cadence()

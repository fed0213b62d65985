"""The cadence: which days there are, and from when on each is due."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from dagster._utils.schedules import cron_string_iterator  # noqa: TID251 - how Dagster reads a cron schedule

from user_processing.days.cadence import CADENCE, Cadence
from user_processing.days.runs import RunDays

BERLIN = Cadence(first_day="2023-03-20", last_day="2023-11-05", time_zone="Europe/Berlin", hour=2)


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("cadence", "now", "newest"),
    [
        (CADENCE, "2023-01-01T23:59:59+00:00", None),
        (CADENCE, "2023-01-02T00:00:00+00:00", "2023-01-01"),
        (CADENCE, "2023-01-02T23:59:59+00:00", "2023-01-01"),
        (CADENCE, "2024-03-01T00:00:00+00:00", "2024-02-29"),
        # The same moment, told by another clock.
        (CADENCE, "2023-06-02T01:30:00+02:00", "2023-05-31"),
        (BERLIN, "2023-03-21T00:59:59+00:00", None),
        (BERLIN, "2023-03-21T01:00:00+00:00", "2023-03-20"),
        # 02:00 does not exist on the 26th of March, and is there twice on the 29th of October.
        (BERLIN, "2023-03-26T00:59:59+00:00", "2023-03-24"),
        (BERLIN, "2023-03-26T01:00:00+00:00", "2023-03-25"),
        (BERLIN, "2023-10-28T23:59:59+00:00", "2023-10-27"),
        (BERLIN, "2023-10-29T00:00:00+00:00", "2023-10-28"),
        (BERLIN, "2023-10-29T01:00:00+00:00", "2023-10-28"),
        (BERLIN, "2024-01-01T00:00:00+00:00", "2023-11-05"),
    ],
)
def test_a_day_is_due_from_its_hour_on(cadence: Cadence, now: str, newest: str | None) -> None:
    due = cadence.due(at(now))
    assert (due[-1] if due else None) == newest


@pytest.mark.parametrize("cadence", [Cadence(last_day="2024-12-31"), BERLIN])
def test_every_day_is_one_partition_and_is_due_once(cadence: Cadence) -> None:
    due = cadence.due(at("2030-01-01T00:00:00+00:00"))
    assert due == cadence.days.get_partition_keys()
    assert len(set(due)) == len(due)
    assert (due[0], due[-1]) == (cadence.first_day, cadence.last_day)


@pytest.mark.parametrize("hour", [0, 1, 2, 3, 12, 23])
@pytest.mark.parametrize("time_zone", ["UTC", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe"])
def test_the_schedule_ticks_once_for_each_day_also_where_clocks_change(time_zone: str, hour: int) -> None:
    cadence = Cadence(time_zone=time_zone, hour=hour)
    start, end = at("2023-01-10T12:00:00+00:00"), at("2024-01-10T12:00:00+00:00")
    launched = []
    for moment in cron_string_iterator(start.timestamp(), cadence.cron_schedule(), time_zone):
        if moment > end:
            break
        launched.append(cadence.newest_due(moment).isoformat())
    assert len(launched) in {364, 365, 366}
    assert launched == sorted(set(launched))
    span = dt.date.fromisoformat(launched[-1]) - dt.date.fromisoformat(launched[0])
    assert span.days + 1 == len(launched), "no day is left out"


def test_hours_later_are_hours_by_the_clock_on_the_wall() -> None:
    """At six in the morning the day before is six hours late, also where the night had five."""
    berlin = Cadence(time_zone="Europe/Berlin")
    for day, evening in (("2024-03-31", "2024-03-30"), ("2024-04-01", "2024-03-31"), ("2024-10-27", "2024-10-26")):
        morning = dt.datetime.fromisoformat(f"{day}T06:00").replace(tzinfo=ZoneInfo("Europe/Berlin"))
        assert berlin.due(morning, hours_later=6)[-1] == evening
        assert berlin.due(morning - dt.timedelta(seconds=1), hours_later=6)[-1] < evening


def test_a_schedule_some_hours_later_stays_within_the_day() -> None:
    assert Cadence(hour=20).cron_schedule(hours_later=6) == "0 2 * * *"


@pytest.mark.parametrize(
    ("first", "last", "now", "expected"),
    [
        ("2023-01-01", "2023-01-02", "2023-01-03T00:00", True),
        ("2023-01-02", "2023-01-02", "2023-01-02T23:59", False),
        ("2023-01-02", "2023-01-01", "2023-01-05T00:00", False),
        ("2022-12-31", "2023-01-01", "2023-01-05T00:00", False),
        ("2023-01-01", "2199-01-01", "2023-01-05T00:00", False),
    ],
)
def test_days_are_over_or_not(first: str, last: str, now: str, *, expected: bool) -> None:
    assert Cadence().are_over(RunDays(first, last), dt.datetime.fromisoformat(f"{now}+00:00")) == expected
    assert not Cadence(last_day="2022-12-31").are_over(RunDays(first, last), dt.datetime(2024, 1, 1, tzinfo=dt.UTC))

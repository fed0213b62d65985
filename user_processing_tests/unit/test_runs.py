"""A run's days, in its tags and as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from user_processing.days.runs import RunDays, days_of_tag, format_days, spans, tag_of_days

_DAYS = list(RunDays("2023-12-28", "2024-03-02"))


@pytest.mark.parametrize("days", [RunDays("2023-01-01", "2023-01-01"), RunDays("2023-12-31", "2024-01-02")])
def test_days_come_back_from_tags_and_from_a_key(days: RunDays) -> None:
    assert RunDays.of(days.tags()) == days
    assert RunDays.parse(days.key) == days


def test_a_run_without_days_names_none() -> None:
    assert RunDays.of({"dagster/backfill": "abc"}) is None


@given(st.sets(st.sampled_from(_DAYS)), st.none() | st.integers(1, 9), st.sets(st.sampled_from(_DAYS)))
def test_every_day_is_in_exactly_one_span(chosen: set[str], longest: int | None, alone: set[str]) -> None:
    days = sorted(chosen)
    cut = [list(span) for span in spans(days, longest, alone)]
    assert [day for span in cut for day in span] == days
    assert all(len(span) <= (longest or len(days)) for span in cut)
    assert all(len(span) == 1 for span in cut if alone & set(span))


@given(st.sets(st.sampled_from(_DAYS)))
def test_days_come_back_from_the_value_of_a_tag(chosen: set[str]) -> None:
    assert days_of_tag(tag_of_days(sorted(chosen))) == sorted(chosen)


def test_people_read_days_as_spans() -> None:
    days = ["2023-02-27", "2023-02-28", "2023-03-01", "2023-03-04"]
    assert format_days(days) == "2023-02-27 to 2023-03-01, 2023-03-04"
    assert format_days([]) == ""

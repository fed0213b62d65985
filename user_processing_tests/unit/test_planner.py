"""Which days are asked for: tables of facts and settings, and what follows from them."""

import datetime as dt
from typing import Any

import pytest

from user_processing.catchup import planner
from user_processing.catchup.planner import Attempt, Facts, Plan, Settings
from user_processing.days.runs import spans

NOW = dt.datetime(2023, 1, 11, 12, tzinfo=dt.UTC)
DUE = [f"2023-01-{day:02}" for day in range(1, 11)]
EVERY = Settings(catchup=True)


def days(*numbers: int) -> list[str]:
    return [DUE[number - 1] for number in numbers]


def attempt(
    *numbers: int,
    minutes_ago: float = 60,
    failed: list[str] | None = None,
    **more: Any,  # noqa: ANN401
) -> Attempt:
    ended = NOW - dt.timedelta(minutes=minutes_ago)
    run_id = more.pop("run_id", f"run-{minutes_ago}")
    return Attempt(
        run_id, ended - dt.timedelta(minutes=1), ended, frozenset(days(*numbers)), frozenset(failed or ()), **more
    )


def plan(settings: Settings = EVERY, **facts: Any) -> Plan:  # noqa: ANN401
    return planner.plan(Facts(**{"now": NOW, "due": DUE, "stored": (), "busy": {}, **facts}), settings)


def asked(found: Plan) -> list[str]:
    """The run keys, without what they come after."""
    return [request.run_key.partition(" after ")[0] for request in found.requests]


def test_without_catch_up_the_newest_day_alone_is_asked_for() -> None:
    assert asked(plan(Settings())) == ["2023-01-10#1"]
    assert asked(plan(Settings(), stored=days(10))) == []
    assert asked(plan(Settings(), due=[])) == []


def test_with_catch_up_days_that_follow_each_other_are_one_run_and_the_oldest_come_first() -> None:
    assert asked(plan()) == ["2023-01-01...2023-01-10#1"]
    assert asked(plan(stored=days(1, 4, 5))) == ["2023-01-02...2023-01-03#1", "2023-01-06...2023-01-10#1"]
    assert asked(plan(stored=days(2, 3, 4, 5, 6, 7, 8, 10))) == ["2023-01-01#1", "2023-01-09#1"]
    assert asked(plan(stored=DUE)) == []


def test_a_run_has_no_more_days_than_it_may() -> None:
    found = plan(Settings(catchup=True, days_per_run=4), stored=days(1))
    assert [list(request.days) for request in found.requests] == [days(2, 3, 4, 5), days(6, 7, 8, 9), days(10)]


@pytest.mark.parametrize(("active", "expected", "queued"), [(0, 3, 7), (2, 1, 9), (3, 0, 10), (9, 0, 10)])
def test_no_more_runs_are_active_than_may(active: int, expected: int, queued: int) -> None:
    found = plan(Settings(catchup=True, days_per_run=1, max_active_runs=3), active_runs=active)
    assert [request.days.first for request in found.requests] == DUE[:expected]
    assert found.queued == queued


def test_a_day_at_work_is_not_asked_for_and_splits_the_others() -> None:
    found = plan(busy={"2023-01-05": "run a"})
    assert asked(found) == ["2023-01-01...2023-01-04#1", "2023-01-06...2023-01-10#1"]
    assert found.busy == days(5)
    assert "2023-01-05" not in found.missing


@pytest.mark.parametrize(
    ("failures", "minutes_ago", "asks"),
    [(1, 4.9, False), (1, 5, True), (2, 9.9, False), (2, 10, True), (3, 19, False), (3, 20, True), (7, 319, False),
     (7, 320, True)],
)  # fmt: skip
def test_a_day_that_failed_is_asked_for_again_after_a_pause_that_grows_with_a_new_run_key(
    failures: int, minutes_ago: float, *, asks: bool
) -> None:
    history = [attempt(10, minutes_ago=10_000 - number, failed=days(10)) for number in range(failures - 1)]
    found = plan(Settings(), attempts=[*history, attempt(10, minutes_ago=minutes_ago, failed=days(10))])
    assert asked(found) == ([f"2023-01-10#{failures + 1}"] if asks else [])
    assert set(found.pausing) == (set() if asks else set(days(10)))


def test_a_pause_never_grows_beyond_the_longest() -> None:
    history = [attempt(10, minutes_ago=minutes) for minutes in range(10_000, 9_900, -1)]
    assert asked(plan(Settings(), attempts=[*history, attempt(10, minutes_ago=359)])) == []
    assert asked(plan(Settings(), attempts=[*history, attempt(10, minutes_ago=360)])) == ["2023-01-10#102"]


def test_a_day_that_failed_by_itself_too_often_is_given_up() -> None:
    seven = [attempt(10, minutes_ago=9_000 - number, failed=days(10)) for number in range(7)]
    last = attempt(10, minutes_ago=8_000, failed=days(10), run_id="the-last")
    assert asked(plan(Settings(), attempts=seven)) == ["2023-01-10#8"]
    found = plan(Settings(), attempts=[*seven, last])
    assert asked(found) == []
    assert found.given_up == {"2023-01-10": "the-last"}
    assert asked(plan(Settings(max_attempts=9), attempts=[*seven, last])) == ["2023-01-10#9"]


def test_an_outage_is_held_against_no_day() -> None:
    """Runs that were killed or found the API gone: however often, the days are asked for again."""
    outages = [attempt(10, minutes_ago=20_000 - number) for number in range(20)]
    gone = [attempt(10, minutes_ago=10_000 - number, stopped_at="2023-01-10") for number in range(20)]
    assert asked(plan(Settings(), attempts=[*outages, *gone])) == ["2023-01-10#41"]


def test_what_an_outage_broke_is_asked_for_as_soon_as_the_api_is_back() -> None:
    outage = attempt(10, minutes_ago=2, stopped_at="2023-01-10")
    assert asked(plan(Settings(), attempts=[outage])) == []
    assert asked(plan(Settings(), attempts=[outage], api_up_since=NOW - dt.timedelta(minutes=1))) == ["2023-01-10#2"]
    assert asked(plan(Settings(), attempts=[outage], api_up_since=NOW - dt.timedelta(minutes=3))) == []
    own = attempt(10, minutes_ago=2, failed=days(10))
    assert asked(plan(Settings(), attempts=[own], api_up_since=NOW - dt.timedelta(minutes=1))) == []


def test_a_day_that_failed_by_itself_does_not_hold_up_the_others() -> None:
    broken = attempt(*range(1, 11), minutes_ago=1, failed=days(4), run_id="broken")
    found = plan(attempts=[broken])
    assert asked(found) == ["2023-01-01...2023-01-03#2", "2023-01-05...2023-01-10#2"]
    # What it has fetched of the others need not be fetched again.
    assert [request.pages_since for request in found.requests] == ["broken", "broken"]
    assert set(found.pausing) == set(days(4))
    later = plan(attempts=[broken], now=NOW + dt.timedelta(minutes=5))
    assert asked(later) == ["2023-01-01...2023-01-03#2", "2023-01-04#2", "2023-01-05...2023-01-10#2"]
    assert [request.pages_since for request in later.requests] == ["broken", None, "broken"]


def test_a_day_at_which_runs_stop_again_and_again_gets_a_run_of_its_own() -> None:
    stops = [attempt(*range(1, 11), minutes_ago=900 - number, stopped_at="2023-01-04") for number in range(2)]
    assert asked(plan(attempts=stops[:1])) == ["2023-01-01...2023-01-10#2"]
    assert asked(plan(attempts=stops)) == ["2023-01-01...2023-01-03#3", "2023-01-04#3", "2023-01-05...2023-01-10#3"]


def test_a_run_that_somebody_cancelled_is_not_asked_for_again() -> None:
    cancelled = attempt(9, 10, minutes_ago=900, cancelled=True, run_id="the-run")
    found = plan(attempts=[cancelled])
    assert asked(found) == ["2023-01-01...2023-01-08#1"]
    assert found.cancelled == {"2023-01-09": "the-run", "2023-01-10": "the-run"}
    # Somebody ran them by hand, and that failed.
    again = plan(attempts=[cancelled, attempt(9, 10, minutes_ago=800)])
    assert asked(again) == ["2023-01-01...2023-01-10#3"]


def test_a_day_that_was_stored_and_is_gone_gets_a_run_key_that_was_never_used() -> None:
    (request,) = plan(Settings(), stored_before={"2023-01-10": 77}).requests
    assert request.run_key == "2023-01-10#1 after event 77"


def test_a_run_key_was_never_used_also_where_somebody_has_deleted_runs() -> None:
    first, second = attempt(10, minutes_ago=900, run_id="first"), attempt(10, minutes_ago=800, run_id="second")
    keys = [plan(Settings(), attempts=chosen).requests[0].run_key for chosen in ([first], [first, second], [second])]
    assert keys == ["2023-01-10#2 after first", "2023-01-10#3 after second", "2023-01-10#2 after second"]


@pytest.mark.parametrize("before", [{"cancelled": True}, {"failed": days(10)}])
def test_what_was_the_matter_before_a_day_was_stored_is_over(before: dict[str, Any]) -> None:
    """It was run by hand then, and the database was restored from a backup since."""
    history = [attempt(10, minutes_ago=900 - number, **before) for number in range(8)]
    stored = NOW - dt.timedelta(minutes=800)
    lost = {"attempts": history, "stored_before": {"2023-01-10": 7}, "stored_at": {"2023-01-10": stored}}
    assert asked(plan(Settings(), **lost)) == ["2023-01-10#9"]
    assert asked(plan(Settings(), attempts=history)) == []


LAUNCH = planner.Launch()
BIG = planner.Launch(run_config='{"ops": {}}', tags=(("user_processing/backfill", "abc"),))
AGO = [NOW - dt.timedelta(minutes=minutes) for minutes in range(200)]


@pytest.mark.parametrize(
    ("attempts", "facts", "expected"),
    [
        ([attempt(3, 4, launch=LAUNCH)], {}, ["2023-01-03...2023-01-04#2"]),
        ([attempt(3, 4, launch=LAUNCH, stopped_at="2023-01-03")], {}, ["2023-01-03...2023-01-04#2"]),
        # A command line.
        ([attempt(3, 4)], {}, []),
        ([attempt(3, 4, launch=LAUNCH), attempt(3, minutes_ago=50)], {}, ["2023-01-03...2023-01-04#3"]),
        # Stored before the run was created, 61 minutes ago; since; while it was in progress.
        ([attempt(3, 4, launch=LAUNCH)], {"stored_at": {"2023-01-03": AGO[62]}}, ["2023-01-03...2023-01-04#2"]),
        ([attempt(3, 4, launch=LAUNCH)], {"stored_at": {"2023-01-03": AGO[10]}}, ["2023-01-04#2"]),
        ([attempt(3, 4, launch=LAUNCH)], {"stored_at": {"2023-01-03": AGO[60]}}, ["2023-01-04#2"]),
        # Cancelled afterwards, and asked for once more after that.
        ([attempt(3, launch=LAUNCH), attempt(3, minutes_ago=50, launch=LAUNCH, cancelled=True)], {}, []),
        (
            [
                attempt(3, minutes_ago=90, launch=LAUNCH, cancelled=True),
                attempt(3, minutes_ago=60, launch=LAUNCH),
            ],
            {},
            ["2023-01-03#3"],
        ),
        # A command line that fails after a launch was cancelled is a command line's matter.
        ([attempt(3, minutes_ago=90, launch=LAUNCH, cancelled=True), attempt(3)], {}, []),
        ([attempt(3, 4, launch=LAUNCH)], {"busy": {"2023-01-03": "run a"}}, ["2023-01-04#2"]),
        # By itself: after a pause, by itself, and not for ever.
        ([attempt(3, 4, failed=days(3), minutes_ago=4, launch=LAUNCH)], {}, ["2023-01-04#2"]),
        ([attempt(3, 4, failed=days(3), minutes_ago=6, launch=LAUNCH)], {}, ["2023-01-03#2", "2023-01-04#2"]),
        ([attempt(3, failed=days(3), minutes_ago=9_000 - n, launch=LAUNCH) for n in range(8)], {}, []),
    ],
)
def test_a_day_that_a_run_was_launched_for_in_vain_is_wanted_without_catch_up(
    attempts: list[Attempt], facts: dict[str, Any], expected: list[str]
) -> None:
    """All days are stored in the cases that say when, the newest one always; so nothing else is asked for."""
    stored = [*days(10), *facts.get("stored_at", {})]
    assert asked(plan(Settings(), stored=stored, attempts=attempts, **facts)) == expected


def test_days_that_were_launched_differently_are_not_put_into_one_run() -> None:
    tried = [attempt(3, 4, launch=LAUNCH), attempt(1, 2, 5, 6, minutes_ago=59, launch=BIG)]
    found = plan(stored=days(9, 10), attempts=tried)
    assert [(str(request.days), request.launch) for request in found.requests] == [
        ("2023-01-01 to 2023-01-02", BIG),
        ("2023-01-03 to 2023-01-04", LAUNCH),
        ("2023-01-05 to 2023-01-06", BIG),
        ("2023-01-07 to 2023-01-08", LAUNCH),
    ]
    # The last run that was launched counts, and what a command line does changes nothing.
    tried = [attempt(3, launch=BIG), attempt(3, minutes_ago=50, launch=LAUNCH), attempt(3, minutes_ago=40)]
    assert [request.launch for request in plan(Settings(), stored=days(10), attempts=tried).requests] == [LAUNCH]


@pytest.mark.parametrize("days_per_run", [None, 1, 3])
def test_every_missing_day_is_in_exactly_one_span(days_per_run: int | None) -> None:
    chosen = days(1, 2, 3, 5, 6, 9, 10)
    cut = [list(span) for span in spans(chosen, days_per_run, alone=days(2))]
    assert [day for span in cut for day in span] == chosen
    assert all(len(span) <= (days_per_run or 10) for span in cut)
    assert days(2) in cut

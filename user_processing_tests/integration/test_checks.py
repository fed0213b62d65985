"""The checks: each passes on what the pipeline stores, and fails when what it checks is broken."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from user_processing import checks
from user_processing.definitions import defs
from user_processing_tests.support.pipeline import Pipeline
from user_processing_tests.support.recorded_api import RecordedApi, Row
from user_processing_tests.support.tables import create

Query = Callable[..., list[Row]]
DAY = "2023-01-02"


def failed(evaluations: dict[str, dg.AssetCheckEvaluation]) -> dict[str, str]:
    return {name: str(found.description) for name, found in evaluations.items() if not found.passed}


@pytest.fixture
def pipeline(pipeline: Pipeline) -> Pipeline:
    """It is the fourth of January 2023, 05:00: the second is due, the third not yet."""
    pipeline.reconciliation = checks.reconciliation_by(lambda: dt.datetime(2023, 1, 4, 5, tzinfo=dt.UTC))
    return pipeline


def test_what_the_pipeline_stores_passes_every_check(pipeline: Pipeline) -> None:
    result = pipeline.run("2023-01-01", "2023-01-02", users_per_day=300)
    assert result.success
    assert failed(pipeline.checked(result)) == {}
    assert pipeline.checked(result).keys() == checks.CHECKS.keys()
    assert failed(pipeline.check()) == {}


@pytest.mark.parametrize(
    ("statement", "check", "severity"),
    [
        ("INSERT INTO users SELECT * FROM users LIMIT 1", "rows_match_ledger", "ERROR"),
        ("DELETE FROM users WHERE ctid = (SELECT min(ctid) FROM users)", "rows_match_ledger", "ERROR"),
        ("UPDATE user_loads SET csv_sha256 = 'another'", "files_match_ledger", "ERROR"),
        (
            "DELETE FROM users WHERE ctid = (SELECT min(ctid) FROM users); UPDATE user_loads SET rows = 2",
            "files_match_ledger",
            "ERROR",
        ),
        ("INSERT INTO rejected_users VALUES ('2023-01-02', 1, 1, 'a reason')", "nothing_rejected", "WARN"),
        ("UPDATE users SET email = 'nobody'", "emails_well_formed", "WARN"),
        ("UPDATE users SET username = 'two words'", "usernames_well_formed", "WARN"),
        ("UPDATE users SET username = ''", "usernames_well_formed", "WARN"),
    ],
)
def test_what_is_broken_in_the_database_is_found(
    pipeline: Pipeline, query: Query, statement: str, check: str, severity: str
) -> None:
    assert pipeline.run(DAY, users_per_day=3).success
    query(statement)
    evaluations = pipeline.check()
    assert list(failed(evaluations)) == [check]
    assert DAY in failed(evaluations)[check]
    assert evaluations[check].severity.value == severity


def test_a_csv_that_was_changed_is_found_and_one_that_is_gone_is_not_missed(pipeline: Pipeline) -> None:
    assert pipeline.run(DAY).success
    csv = pipeline.folder / DAY / "users.csv"
    csv.write_bytes(csv.read_bytes() + b"one,more,x,y,z,a@b.c\n")
    assert list(failed(pipeline.check())) == ["files_match_ledger"]
    csv.unlink()
    assert failed(pipeline.check()) == {}


def test_the_lines_of_a_csv_are_counted_as_records(pipeline: Pipeline, recorded_api: RecordedApi) -> None:
    """Quotes, line breaks, and both across the pieces that the file is read in."""

    def awkward(query: dict[str, str], page: dict[str, Any]) -> object:
        del query
        for number, user in enumerate(page["results"]):
            user["name"] = {"first": '"\n' * (number % 7), "last": "\r\n" * (number % 3) + "x" * 10_000}
        return page

    pipeline.ask(recorded_api)
    recorded_api.tamper = awkward
    evaluations = pipeline.checked(pipeline.run(DAY, users_per_day=300))
    assert failed(evaluations) == {}
    assert evaluations["files_match_ledger"].metadata["lines"].value == 300


def test_a_day_that_is_missing_between_others_is_found(pipeline: Pipeline) -> None:
    assert pipeline.run("2023-01-01").success
    assert pipeline.run("2023-01-03").success
    found = failed(pipeline.check())
    said = "1 day is missing: 2023-01-02. Run what is missing: make run DAY=2023-01-02"
    assert found["days_without_gaps"] == said


def test_an_old_backfill_does_not_make_the_newest_day_fresh(pipeline: Pipeline) -> None:
    result = pipeline.run("2023-01-01")
    assert failed(pipeline.checked(result)).keys() == {"newest_day_stored"}
    assert failed(pipeline.check())["newest_day_stored"] == (
        "The newest day is not stored, though it was due 6 hours ago: 2023-01-02. The last tick of the sensor "
        "api_availability says why. To run the day now: make run DAY=2023-01-02"
    )
    assert pipeline.run("2023-01-02").success
    assert failed(pipeline.check()) == {}


def test_a_first_day_that_comes_before_its_deadline_is_the_newest_one(pipeline: Pipeline) -> None:
    """At 05:00 the third has ended, and has an hour left to arrive; the day before it is nobody's loss."""
    assert failed(pipeline.checked(pipeline.run("2023-01-03"))) == {}


@pytest.mark.parametrize(("time", "failing"), [(dt.time(5, 59), []), (dt.time(6), ["2023-01-01"])])
def test_no_day_is_due_before_the_first_has_ended(
    pipeline: Pipeline, database: str, time: dt.time, failing: list[str]
) -> None:
    pipeline.reconciliation = checks.reconciliation_by(lambda: dt.datetime.combine(dt.date(2023, 1, 2), time, dt.UTC))
    create(database)
    evaluation = pipeline.check("newest_day_stored")["newest_day_stored"]
    assert checks.days_found(evaluation) == (None, failing)
    assert evaluation.metadata["stored"].value == 0


def test_a_run_checks_its_own_days(pipeline: Pipeline, query: Query) -> None:
    assert pipeline.run("2023-01-01", "2023-01-02").success
    query("UPDATE users SET email = 'nobody' WHERE partition_date = '2023-01-01'")
    assert failed(pipeline.checked(pipeline.run("2023-01-02"))) == {}
    assert failed(pipeline.checked(pipeline.run("2023-01-02", "2023-01-02"))) == {}
    assert list(failed(pipeline.check())) == ["emails_well_formed"]


def test_records_set_aside_are_a_warning_with_their_number(pipeline: Pipeline, recorded_api: RecordedApi) -> None:
    def no_e_mail_in_two(query: dict[str, str], page: dict[str, Any]) -> object:
        del query
        return {**page, "results": [{}, {}, *page["results"][2:]]}

    pipeline.ask(recorded_api)
    recorded_api.tamper = no_e_mail_in_two
    evaluations = pipeline.checked(pipeline.run(DAY, users_per_day=250))
    assert list(failed(evaluations)) == ["nothing_rejected"]
    assert evaluations["nothing_rejected"].metadata["records"].value == 2


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (["2023-01-02"], "1 day is missing: 2023-01-02. Run what is missing: make run DAY=2023-01-02"),
        (
            ["2023-01-02", "2023-01-03", "2023-01-05"],
            (
                "3 days are missing: 2023-01-02 to 2023-01-03, 2023-01-05. Run what is missing: "
                "make run FROM=2023-01-02 TO=2023-01-03 and make run DAY=2023-01-05"
            ),
        ),
        # So many commands that one with a few days more is better.
        (
            ["2023-01-02", "2023-01-04", "2023-01-06", "2023-01-08"],
            (
                "4 days are missing: 2023-01-02, 2023-01-04, 2023-01-06, 2023-01-08. Run what is missing: "
                "make run FROM=2023-01-02 TO=2023-01-08"
            ),
        ),
    ],
)
def test_a_check_that_fails_says_which_days_and_what_to_type(days: list[str], expected: str) -> None:
    assert checks.describe("days_without_gaps", days) == expected


@pytest.mark.parametrize("name", checks.CHECKS)
def test_one_check_is_executed_by_itself(pipeline: Pipeline, query: Query, name: str) -> None:
    """As the button in the UI does it."""
    assert pipeline.run("2023-01-01", "2023-01-02").success
    query("DELETE FROM users WHERE partition_date = '2023-01-01'")
    evaluations = pipeline.check(name)
    assert list(evaluations) == [name]
    assert evaluations[name].passed == (name != "rows_match_ledger")


def test_dagster_offers_to_execute_one_check_without_the_others_or_the_asset() -> None:
    graph = defs.resolve_asset_graph()
    for name in checks.CHECKS:
        key = dg.AssetCheckKey(dg.AssetKey("stored_users"), name)
        assert graph.get_execution_set_asset_and_check_keys(key) == {key}

"""The checks: each passes on what the pipeline stores, and fails when what it checks is broken."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from user_processing import checks
from user_processing_tests.conftest import Pipeline, RecordedApi, Row

Query = Callable[..., list[Row]]
DAY = "2023-01-02"


def failed(evaluations: dict[str, dg.AssetCheckEvaluation]) -> dict[str, str]:
    return {name: str(found.description) for name, found in evaluations.items() if not found.passed}


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the fourth of January 2023, 05:00: the second is due, the third not yet."""

    class Frozen(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> "Frozen":
            return cls(2023, 1, 4, 5, tzinfo=tz)

    monkeypatch.setattr("user_processing.checks.dt.datetime", Frozen)


def test_what_the_pipeline_stores_passes_every_check(pipeline: Pipeline) -> None:
    result = pipeline.run("2023-01-01", "2023-01-02", users_per_day=300)
    assert result.success
    assert failed(pipeline.checked(result)) == {}
    assert len(pipeline.checked(result)) == 7
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
    assert found["days_without_gaps"].endswith("Not so for 2023-01-02.")


def test_an_old_backfill_does_not_make_the_newest_day_fresh(pipeline: Pipeline) -> None:
    result = pipeline.run("2023-01-01")
    assert failed(pipeline.checked(result)).keys() == {"newest_day_stored"}
    assert failed(pipeline.check())["newest_day_stored"].endswith("Not so for 2023-01-02.")
    assert pipeline.run("2023-01-02").success
    assert failed(pipeline.check()) == {}


def test_no_day_is_due_before_the_first_has_ended() -> None:
    assert checks._newest_due_day(dt.datetime(2023, 1, 2, 5, 59, tzinfo=dt.UTC)) is None  # noqa: SLF001
    assert checks._newest_due_day(dt.datetime(2023, 1, 2, 6, 0, tzinfo=dt.UTC)) == dt.date(2023, 1, 1)  # noqa: SLF001


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

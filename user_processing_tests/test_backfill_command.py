"""The backfill command in this process, on a real instance without a daemon: what is queued stays queued."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psycopg2
import pytest

from user_processing import backfill, facts, tables
from user_processing_tests.checkout import ROOT
from user_processing_tests.conftest import Row

Query = Callable[..., list[Row]]
Command = Callable[..., str]


@pytest.fixture
def command(
    instance: dg.DagsterInstance,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Runs the command; returns what it printed."""
    del instance
    shutil.copy(ROOT / "workspace.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("USERS_POSTGRES_URL", database)
    with psycopg2.connect(database) as connection:
        tables.create_tables(connection)
    connection.close()

    def run(*arguments: str) -> str:
        backfill.main(arguments)
        return capsys.readouterr().out

    return run


def queued(instance: dg.DagsterInstance, name: str) -> list[tuple[str, str]]:
    """Status and first day of the runs of a backfill, oldest first."""
    records = instance.get_run_records(dg.RunsFilter(tags={facts.BACKFILL: name}), ascending=True)
    return [(record.dagster_run.status.value, facts.days_of(record.dagster_run)[0]) for record in records]


def test_a_backfill_is_queued_cancelled_and_resumed(
    command: Command, instance: dg.DagsterInstance, query: Query
) -> None:
    days = ("--from", "2023-01-01", "--to", "2023-01-06")
    said = command("create", *days, "--days-per-run", "2", "--max-active-runs", "2", "--backwards")
    assert "6 days in 3 runs, at most 2 of them active" in said
    assert "No daemon is at work on this instance" in said
    (name,) = re.findall(r"This is backfill (\w+)", said)
    assert queued(instance, name) == [("QUEUED", "2023-01-05"), ("QUEUED", "2023-01-03"), ("QUEUED", "2023-01-01")]
    lanes = {run.tags[facts.LANE] for run in instance.get_runs()}
    assert lanes == {f"{name}-0", f"{name}-1"}
    assert f"{name}  " in command("list")
    assert "at work: 2023-01-01…2023-01-06" in command("create", *days)

    assert "3 runs are cancelled: 2023-01-01…2023-01-06." in command("cancel", name)
    assert {status for status, _ in queued(instance, name)} == {"CANCELED"}
    assert "none was left" in command("cancel", name)

    # Somebody has stored one of the days meanwhile.
    query(
        "INSERT INTO user_loads (partition_date, users_asked, rows, rejected, csv_sha256, run_id) "
        "VALUES ('2023-01-03', 1, 1, 0, '', '')"
    )
    said = command("resume", name)
    assert re.findall(r"^  (\S+)", said, re.MULTILINE) == ["2023-01-01...2023-01-02", "2023-01-04...2023-01-06"]
    assert [day for status, day in queued(instance, name) if status == "QUEUED"] == ["2023-01-01", "2023-01-04"]


def test_days_are_left_out_and_the_command_says_how_to_run_them(
    command: Command, instance: dg.DagsterInstance, query: Query
) -> None:
    query(
        "INSERT INTO user_loads (partition_date, users_asked, rows, rejected, csv_sha256, run_id) "
        "VALUES ('2023-01-01', 1, 1, 0, '', '')"
    )
    failed = dg.DagsterRun(
        "user_processing", status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": "2023-01-02"}
    )
    instance.add_run(failed)
    instance.report_run_failed(failed)
    days = ("create", "--from", "2023-01-01", "--to", "2023-01-03", "--dry-run")
    said = command(*days)
    assert "Left out, as they are stored: 2023-01-01. To run them: REPROCESS=completed." in said
    assert "Left out, as they are tried and not stored: 2023-01-02. To run them: REPROCESS=failed." in said
    assert "  2023-01-03\n" in said
    assert "2 days in 1 runs" in command(*days, "--reprocess", "failed")
    assert "3 days in 1 runs" in command(*days, "--reprocess", "completed")
    assert len(instance.get_runs()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "--from", "2023-01-05", "--to", "2023-01-02"), "Give the earlier day first"),
        (("create", "--from", "2023-1-5", "--to", "2023-01-02"), "is not a day"),
        (("create", "--from", "2022-12-31", "--to", "2023-01-02"), "not within the days that there are"),
        (("create", "--from", "2023-01-01", "--to", "2199-01-02"), "not within the days that there are"),
        (("cancel", "nothing"), "There is no backfill nothing."),
        (("resume", "nothing"), "There is no backfill nothing."),
    ],
)
def test_what_cannot_be_done_is_said(command: Command, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    assert said in str(caught.value.code)


def test_a_number_below_one_is_refused(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command("resume", "it", "--max-active-runs", "0")
    assert "0 is not 1 or more" in capsys.readouterr().err


def test_there_is_no_backfill_yet(command: Command) -> None:
    assert "There is no backfill yet" in command("list")

"""The backfill command in this process, on a real instance without a daemon: what is queued stays queued."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest

from user_processing import settings
from user_processing.catchup import backfill, facts
from user_processing.cli import main
from user_processing.days.runs import BACKFILL, BACKWARDS, DAYS_PER_RUN, LANE, MAX_ACTIVE_RUNS
from user_processing.store import tables
from user_processing_tests.support.checkout import TOMORROW, free_port, wait_for
from user_processing_tests.support.recorded_api import Row
from user_processing_tests.support.tables import say_stored

Query = Callable[..., list[Row]]
Command = Callable[..., str]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A workspace with a code server that runs: each command would start one of its own, which takes seconds."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "user_processing.internals.code_server", "--port", str(port)],
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(lambda: "Started Dagster code server" in log.read_text())
        yield (f"load_from:\n  - grpc_server: {{host: localhost, port: {port}, location_name: user_processing}}\n")
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def command(  # noqa: PLR0913, PLR0917
    workspace: str,
    instance: dg.DagsterInstance,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Command]:
    """Runs the command; returns what it printed."""
    del instance
    (tmp_path / "workspace.yaml").write_text(workspace)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("USERS_POSTGRES_URL", database)
    with psycopg2.connect(database) as connection:
        tables.create_tables(connection)
    connection.close()

    monkeypatch.setattr(settings, "_CHECKOUT", tmp_path)
    monkeypatch.setenv("USERS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("MAKELEVEL", raising=False)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    level = logging.getLogger().level

    def run(*arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["backfill", *arguments])
        printed = capsys.readouterr()
        assert ended.value.code == code, printed.err
        return printed.out + printed.err

    yield run
    logging.getLogger().setLevel(level)


def queued(instance: dg.DagsterInstance, name: str) -> list[tuple[str, str]]:
    """Status and first day of the runs of a backfill, oldest first."""
    records = instance.get_run_records(dg.RunsFilter(tags={BACKFILL: name}), ascending=True)
    return [(record.dagster_run.status.value, facts.days_of(record.dagster_run)[0]) for record in records]


def test_a_backfill_is_queued_cancelled_and_resumed(
    command: Command, instance: dg.DagsterInstance, database: str
) -> None:
    days = ("--from", "2023-01-01", "--to", "2023-01-06")
    said = command("create", *days, "--days-per-run", "2", "--max-active-runs", "2", "--backwards")
    assert "6 days in 3 runs, at most 2 of them active" in said
    assert "No daemon is alive on this instance" in said
    (name,) = re.findall(r"This is backfill (\w+)", said)
    assert queued(instance, name) == [("QUEUED", "2023-01-05"), ("QUEUED", "2023-01-03"), ("QUEUED", "2023-01-01")]
    lanes = {run.tags[LANE] for run in instance.get_runs()}
    assert lanes == {f"{name}-0", f"{name}-1"}
    assert f"{name}  " in command("list") == command()
    assert "in progress: 2023-01-01 to 2023-01-06" in command("create", *days)

    assert "3 runs are cancelled: 2023-01-01 to 2023-01-06." in command("cancel", name)
    assert {status for status, _ in queued(instance, name)} == {"CANCELED"}
    assert "none was left" in command("cancel", name)

    # Somebody has stored one of the days meanwhile.
    say_stored(database, ["2023-01-03"])
    dry = command("resume", name, "--days-per-run", "3", "--forwards", "--dry-run")
    assert re.findall(r"^  (\S+)", dry, re.MULTILINE) == ["2023-01-01...2023-01-02", "2023-01-04...2023-01-06"]
    # It goes on as it was asked for: runs of two days, backwards, two of them active.
    said = command("resume", name)
    assert "5 days in 3 runs, at most 2 of them active" in said
    first = ["2023-01-06", "2023-01-04", "2023-01-01"]
    assert [line.split("...")[0] for line in re.findall(r"^  (\S+)", said, re.MULTILINE)] == first
    assert [day for status, day in queued(instance, name) if status == "QUEUED"] == first
    newest = instance.get_runs(limit=1)[0].tags
    assert (newest[DAYS_PER_RUN], newest[MAX_ACTIVE_RUNS], newest[BACKWARDS]) == ("2", "2", "true")


def test_what_had_ended_before_it_could_be_cancelled_is_not_counted_as_cancelled(
    command: Command, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = command("create", "--from", "2023-01-01", "--to", "2023-01-03", "--days-per-run", "1")
    (name,) = re.findall(r"This is backfill (\w+)", said)
    look = backfill._active  # noqa: SLF001 - between this look and the end of a run lies what is tested
    seen: list[dg.DagsterRun] = []

    def one_succeeds(*arguments: Any) -> list[dg.DagsterRun]:  # noqa: ANN401
        """After it was seen, and before it is stopped."""
        found = look(*arguments)
        if not seen:
            seen.extend(found)
            ended = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, "user_processing")
            instance.report_dagster_event(ended, found[0].run_id)
        return found

    monkeypatch.setattr(backfill, "_active", one_succeeds)
    said = command("cancel", name)
    assert "2 runs are cancelled: " in said
    assert "1 run had ended before: success." in said
    assert "1 success, 2 canceled" in command("list")


def test_more_than_a_hundred_days_are_not_queued_without_somebody_s_word(
    command: Command, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = ("create", "--from", "2023-01-01", "--to", "2023-04-11")
    assert "101 days in 1 run:" in command(*days, "--dry-run")
    said = command(*days, code=1)
    assert "101 days are more than 100. Nobody is here to be asked: add --yes. Nothing is queued." in said
    monkeypatch.setenv("MAKELEVEL", "1")
    assert "add YES=1." in command(*days, code=1)
    assert instance.get_runs() == []
    command(*days, "--yes")
    assert len(instance.get_runs()) == 1


def test_days_are_left_out_and_the_command_says_how_to_run_them(
    command: Command, instance: dg.DagsterInstance, database: str
) -> None:
    say_stored(database, ["2023-01-01"])
    failed = dg.DagsterRun(
        "user_processing", status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": "2023-01-02"}
    )
    instance.add_run(failed)
    instance.report_run_failed(failed)
    days = ("create", "--from", "2023-01-01", "--to", "2023-01-03", "--dry-run")
    said = command(*days)
    assert "Left out, as they are stored: 2023-01-01. To run them: --reprocess completed." in said
    assert "Left out, as they are tried and not stored: 2023-01-02. To run them: --reprocess failed." in said
    assert "  2023-01-03\n" in said
    assert "2 days in 1 run:" in command(*days, "--reprocess", "failed")
    assert "3 days in 1 run:" in command(*days, "--reprocess", "completed")
    assert len(instance.get_runs()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "--from", "2023-01-05", "--to", "2023-01-02"), "Give the earlier day first"),
        (("create", "--from", "2023-1-5", "--to", "2023-01-02"), "is not a day"),
        (("create", "--from", "2022-12-31", "--to", "2023-01-02"), "not within the days that there are"),
        (("create", "--from", "2023-01-01", "--to", TOMORROW), "not within the days that there are"),
        (("create", "--from", "2023-01-05"), "The last day (--to) is missing."),
        (("cancel", "nothing"), "There is no backfill nothing."),
        (("resume", "nothing"), "There is no backfill nothing."),
    ],
)
def test_what_cannot_be_done_is_said(command: Command, arguments: tuple[str, ...], said: str) -> None:
    assert said in command(*arguments, code=1)


def test_a_number_below_one_is_refused(command: Command) -> None:
    assert "--max-active-runs" in command("resume", "it", "--max-active-runs", "0", code=2)


def test_there_is_no_backfill_yet(command: Command) -> None:
    assert "There is no backfill yet" in command("list")

"""`python -m user_processing`: what is shown of the users, and what never is."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import user_processing.__main__ as program
from user_processing.embedded import postgres as embedded
from user_processing_tests.conftest import Pipeline, RecordedApi, Row

Query = Callable[..., list[Row]]


@pytest.fixture(autouse=True)
def configured(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The users' database is the test's, and there is no `.env`."""
    monkeypatch.setenv("USERS_POSTGRES_URL", database)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """psql leaves this process deaf to Ctrl-C."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def run(monkeypatch: pytest.MonkeyPatch, command: str) -> object:
    """The exit code, or the message of the error, of one command."""
    monkeypatch.setattr(sys, "argv", ["user_processing", command])
    with pytest.raises(SystemExit) as ended:
        program.main()
    return ended.value.code


def test_before_the_first_run_it_says_how_to_make_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "show") is None
    assert "There is no table users yet" in capsys.readouterr().out


def test_rows_are_shown_per_day_and_country_without_anything_secret(
    pipeline: Pipeline,
    recorded_api: RecordedApi,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipeline.ask(recorded_api)
    assert pipeline.run("2023-01-01", "2023-01-12", users_per_day=150).success
    query(
        "INSERT INTO users (firstname, lastname, country, username, password, email) VALUES ('', '', 'X', '', '', '')"
    )
    capsys.readouterr()
    assert run(monkeypatch, "show") is None
    said = capsys.readouterr().out
    assert said.startswith("1,801 users of 13 days are in ")
    lines = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.startswith("20")}
    assert list(lines) == [f"2023-01-{day:02}" for day in range(4, 13)]
    assert "… and 3 days before." in said
    for counts in lines.values():
        total, *by_country = map(int, counts)
        assert (total, sum(by_country)) == (150, 150)
    secrets = {user["login"]["password"] for user in recorded_api.users} | {
        user["email"] for user in recorded_api.users
    }
    assert not [secret for secret in secrets if len(secret) > 7 and secret in said]


def test_an_empty_table_is_not_an_error(
    pipeline: Pipeline, query: Query, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline.run("2023-01-01").success
    query("TRUNCATE users")
    assert run(monkeypatch, "show") is None
    assert "0 users of 0 days" in capsys.readouterr().out


def test_a_database_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_POSTGRES_URL", "postgresql://u:canary@127.0.0.1:1/users")
    said = str(run(monkeypatch, "show"))
    assert said.startswith("Postgres cannot be reached")
    assert "canary" not in said


@pytest.mark.usefixtures("interruptible")
def test_psql_gets_the_password_where_others_cannot_read_it(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told.json"
    psql = tmp_path / "psql"
    psql.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"open({str(told)!r}, 'w').write(json.dumps([sys.argv[1:], os.environ['PGPASSWORD']]))\nsys.exit(3)\n"
    )
    psql.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("USERS_POSTGRES_URL", f"{database}&password=canary")
    assert run(monkeypatch, "psql") == 3
    arguments, password = json.loads(told.read_text())
    assert password == "canary"
    assert "canary" not in str(arguments)


def test_stop_stops_the_embedded_server(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = []
    monkeypatch.setattr(embedded, "stop", lambda: stopped.append(True))
    assert run(monkeypatch, "stop") is None
    assert stopped == [True]

"""The command `user-processing`, in this process, on a real instance: what it says, and how it exits."""

import datetime as dt
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from user_processing import settings
from user_processing.checks import CHECKS
from user_processing.cli import main, running
from user_processing.days.runs import PAGES_SINCE
from user_processing.embedded import postgres as embedded
from user_processing.store import tables
from user_processing_tests.support.checkout import ROOT, wait_for
from user_processing_tests.support.recorded_api import RecordedApi, Row

Query = Callable[..., list[Row]]
NOBODY = "INSERT INTO users (firstname, lastname, country, username, password, email) VALUES ('', '', 'X', '', '', '')"


class Command:
    """Runs `user-processing`; what it printed is in `out` and `err`."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> object:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        self.out, self.err = self._capture.readouterr()
        return ended.value.code


@pytest.fixture(autouse=True)
def configured(instance: dg.DagsterInstance, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instance and database are the test's, and there is no `.env`."""
    del instance
    shutil.copy(ROOT / "workspace.yaml", tmp_path)
    monkeypatch.setattr(settings, "_CHECKOUT", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("USERS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("USERS_FILES_URL", str(tmp_path / "files"))
    monkeypatch.setenv("USERS_POSTGRES_URL", database)
    monkeypatch.delenv("MAKELEVEL", raising=False)


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    # They are put back when the test is over.
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    level = logging.getLogger().level
    yield Command(capfd)
    logging.getLogger().setLevel(level)


@pytest.fixture
def api(recorded_api: RecordedApi, monkeypatch: pytest.MonkeyPatch) -> RecordedApi:
    monkeypatch.setenv("USER_API_URL", recorded_api.url)
    return recorded_api


@pytest.fixture
def interruptible() -> Iterator[None]:
    """psql leaves this process deaf to Ctrl-C."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["backfill", "create", "--help"], ["dev", "-h"]])
def test_help_has_examples_and_does_not_wait_for_dagster(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom user_processing.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print(*[name for name in sys.modules if name == 'dagster'])"
    )
    finished = subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True)
    assert re.search(r"^ +user-processing ", finished.stdout, re.MULTILINE)
    assert "dagster" not in finished.stdout.split()


def test_a_run_of_days_ends_with_them_and_with_what_the_checks_found(
    command: Command, api: RecordedApi, instance: dg.DagsterInstance
) -> None:
    del api
    assert command("run", "--from", "2023-01-01", "--to", "2023-01-12") == 0
    assert "12 users of 12 days, stored in " in command.out
    assert re.findall(r"^(2023-01-\d\d) +1 +0 *$", command.out, re.MULTILINE) == [
        f"2023-01-{day:02}" for day in range(3, 13)
    ]
    assert re.search(r"^all 12 days +12 +0 *$", command.out, re.MULTILINE)
    assert "… and 2 days before." in command.out
    # An old day is not the newest: that is said, and does not fail the run.
    assert f"{len(CHECKS) - 1} of {len(CHECKS)} checks passed." in command.out
    assert "Note: newest_day_stored: " in command.out
    (run,) = instance.get_runs()
    assert run.run_id in command.out
    assert (run.status, run.job_name) == (dg.DagsterRunStatus.SUCCESS, "user_processing")
    assert (run.tags["dagster/asset_partition_range_start"], run.tags["dagster/asset_partition_range_end"]) == (
        "2023-01-01",
        "2023-01-12",
    )
    assert len(instance.get_materialized_partitions(dg.AssetKey("stored_users"))) == 12
    assert "DEBUG" not in command.out + command.err


def test_progress_is_told_in_lines_where_no_terminal_is(command: Command, api: RecordedApi) -> None:
    del api
    assert command("run", "--day", "2023-01-01") == 0
    for asset in ("raw_user", "processed_user_csv", "stored_users"):
        assert re.search(rf"^{asset}: 1 of 1 day, 1 user, [\d,]+ a second$", command.out, re.MULTILINE)
    assert "1 user of 1 day, stored in " in command.out
    assert "\x1b" not in command.out


def test_without_a_day_the_newest_that_is_due_is_run(command: Command, api: RecordedApi, query: Query) -> None:
    del api
    assert command("run") == 0
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    assert query("SELECT partition_date FROM users") == [(yesterday,)]
    assert f"{len(CHECKS)} of {len(CHECKS)} checks passed." in command.out


def test_before_the_first_day_none_is_due() -> None:
    with pytest.raises(ValueError, match=r"^No day is due yet: the first is 2023-01-01\.$"):
        running.chosen_days(None, dt.datetime(2022, 12, 31, tzinfo=dt.UTC))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "2023-01-01"], "The last day (--to) is missing. A range has both; nothing was done."),
        (["--to", "2023-01-01"], "The first day (--from) is missing. A range has both; nothing was done."),
        (["--day", "2023-01-01", "--to", "2023-01-02"], "Give either one day (--day), or the first and the last"),
        (["--day", "tomorrow"], "'tomorrow' is not a day. Write it as YYYY-MM-DD."),
        (["--from", "2023-01-05", "--to", "2023-01-02"], "Give the earlier day first"),
    ],
)
def test_days_that_cannot_be_are_refused_in_a_line(
    command: Command, instance: dg.DagsterInstance, arguments: list[str], said: str
) -> None:
    assert command("run", *arguments) == 1
    assert said in command.err
    assert command.err.count("\n") == 1
    assert instance.get_runs() == []


def test_a_failure_with_a_cause_ends_with_it_and_shows_no_trace(
    command: Command, api: RecordedApi, instance: dg.DagsterInstance
) -> None:
    api.tamper = lambda query, page: {} if query["seed"] == "2023-01-02" else page
    assert command("run", "--from", "2023-01-01", "--to", "2023-01-03") == 1
    (run,) = instance.get_runs()
    said = command.err.splitlines()
    assert said[-1].startswith("raw_user: 1 of 3 days are not done: 2023-01-02. ")
    assert "not a page of users" in said[-1]
    assert f"/runs/{run.run_id}" in said[-2]
    assert "0 of 3 days are stored by it" in said[-3]
    assert "Traceback" not in command.out + command.err
    assert "dagster._core" not in command.out + command.err


def test_a_bug_shows_its_trace(command: Command, api: RecordedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    del api

    def broken(*_: object) -> None:
        message = "nobody has foreseen this"
        raise LookupError(message)

    monkeypatch.setattr(tables, "create_tables", broken)
    assert command("run", "--day", "2023-01-01") == 1
    assert "LookupError: nobody has foreseen this" in command.err
    assert "Stack Trace" in command.err


def test_a_check_that_fails_for_a_day_of_the_run_fails_the_command(
    command: Command, api: RecordedApi, query: Query
) -> None:
    del api
    assert command("run", "--day", "2023-01-01") == 0
    query(
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN DELETE FROM users WHERE partition_date = NEW.partition_date; RETURN NEW; END$$"
    )
    query("CREATE TRIGGER lose AFTER INSERT OR UPDATE ON user_loads FOR EACH ROW EXECUTE FUNCTION lose()")
    assert command("run", "--day", "2023-01-01") == 1
    assert command.err.splitlines()[-1].startswith("Check failed: rows_match_ledger: ")


class Gate:
    """Lets an API answer the first days, and keeps who asks for later ones waiting."""

    def __init__(self, api: RecordedApi, days: int) -> None:
        self.waiting = threading.Event()
        self._go = threading.Event()
        self._days = days
        api.tamper = self._tamper

    def _tamper(self, query: dict[str, str], page: dict[str, Any]) -> object:
        if int(query["seed"][-2:]) > self._days:
            self.waiting.set()
            self._go.wait()
        return page

    def open(self) -> None:
        self._go.set()


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_in_one_line_and_the_same_command_goes_on_with_its_pages(  # noqa: PLR0913, PLR0917
    command: Command, api: RecordedApi, instance: dg.DagsterInstance, tmp_path: Path, how: signal.Signals, code: int
) -> None:
    gate = Gate(api, days=2)
    days = ["--from", "2023-01-01", "--to", "2023-01-04"]
    # A process of its own, since it is sent a signal.
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _CLI, str(tmp_path), "run", *days],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert gate.waiting.wait(120)
        wait_for(lambda: len(list(Path("files").glob("*/pages.json"))) == 2)
        process.send_signal(how)
        threading.Timer(0.5, gate.open).start()
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, err) == (
        code,
        (
            "Interrupted: 0 of 4 days are stored. The same command goes on from there; "
            "it takes the pages that are fetched already, of 2 days.\n"
        ),
    )
    assert "Traceback" not in out
    (interrupted,) = instance.get_runs()
    assert interrupted.status == dg.DagsterRunStatus.FAILURE
    asked = {query["seed"] for query in api.asked}
    api.asked.clear()

    assert command("run", *days) == 0
    assert f"Goes on from run {interrupted.run_id}" in command.out
    again = {query["seed"] for query in api.asked}
    assert not again & {"2023-01-01", "2023-01-02"}
    assert again <= asked
    assert instance.get_runs(limit=1)[0].tags[PAGES_SINCE] == interrupted.run_id

    # Now all is stored: who runs the days again wants them anew.
    api.asked.clear()
    assert command("run", *days) == 0
    assert len(api.asked) == 4


_CLI = """
import sys
from pathlib import Path
from user_processing import settings
settings._CHECKOUT = Path(sys.argv[1])
from user_processing.cli import main
main(sys.argv[2:])
"""


def test_pages_of_a_day_that_failed_by_itself_are_fetched_anew(
    command: Command, api: RecordedApi, instance: dg.DagsterInstance
) -> None:
    fine = api.tamper
    api.tamper = lambda _, page: page | {"results": [{}]}
    assert command("run", "--day", "2023-01-01") == 1
    api.tamper = fine
    assert command("run", "--day", "2023-01-01") == 0
    assert PAGES_SINCE not in instance.get_runs(limit=1)[0].tags


def test_all_pages_are_fetched_if_that_is_asked_for(
    command: Command, api: RecordedApi, instance: dg.DagsterInstance
) -> None:
    instance.add_run(
        dg.DagsterRun("user_processing", status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": "2023-01-01"})
    )
    assert command("run", "--day", "2023-01-01", "--fresh") == 0
    assert PAGES_SINCE not in instance.get_runs(limit=1)[0].tags
    assert len(api.asked) == 1


def test_a_terminal_without_unicode_gets_ascii() -> None:
    program = "from user_processing.cli import output\noutput.prepare()\noutput.say('\\u2026 \\u2192 \\xe9')\n"
    program += "output.table(['a'], [['\\u2026']])"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    finished = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
    assert finished.stdout.split() == [b"...", b"->", b"?", b"a", b"..."]


def test_a_reader_that_is_gone_does_not_fail_a_command() -> None:
    program = (
        "import sys\nfrom user_processing.cli import output\noutput.prepare()\nsys.stdin.read()\n"
        "for _ in range(10000):\n    output.say('x' * 100)\noutput.table(['a'], [['b']])\nsys.exit(7)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(b"")
    assert (process.returncode, err) == (7, b"")


def test_a_misspelt_setting_is_warned_of(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_PER_DAYS", "5")
    assert command("show") == 0
    assert "Warning: USERS_PER_DAYS is not a setting, and has no effect. Did you mean USERS_PER_DAY?" in command.err


def test_before_the_first_run_it_says_how_to_make_the_table(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("show") == 0
    assert "There is no table users yet: `user-processing run` makes it in " in command.out
    monkeypatch.setenv("MAKELEVEL", "1")
    assert command("show") == 0
    assert "`make run` makes it in " in command.out


def test_rows_are_shown_per_day_and_country_without_anything_secret(
    command: Command, api: RecordedApi, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERS_PER_DAY", "1500")
    assert command("run", "--from", "2023-01-01", "--to", "2023-01-12") == 0
    query(NOBODY)
    assert command("show") == 0
    assert command.out.startswith("18,001 users of 13 days, in ")
    lines = {line.split()[0]: line.split()[1:] for line in command.out.splitlines() if line.startswith("20")}
    assert list(lines) == [f"2023-01-{day:02}" for day in range(4, 13)]
    assert "… and 3 days before." in command.out
    for counts in lines.values():
        assert counts[0] == "1,500"
        total, *by_country = (int(count.replace(",", "")) for count in counts)
        assert (total, sum(by_country)) == (1500, 1500)
    secrets = {user["login"]["password"] for user in api.users} | {user["email"] for user in api.users}
    assert not [secret for secret in secrets if len(secret) > 7 and secret in command.out]


def test_an_empty_table_is_not_an_error(command: Command, api: RecordedApi, query: Query) -> None:
    del api
    assert command("run", "--day", "2023-01-01") == 0
    query("TRUNCATE users")
    assert command("show") == 0
    assert "0 users of 0 days" in command.out


def test_status_says_what_is_stored_missing_failing_and_alive(
    command: Command, api: RecordedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("run", "--day", "2023-01-02") == 0
    api.tamper = lambda _, __: {}
    assert command("run", "--day", "2023-01-05") == 1
    api.tamper = lambda _, page: page
    assert command("status") == 0
    assert re.search(r"^days +1 of 1,\d{3} days stored, 1 user$", command.out, re.MULTILINE)
    assert "missing: 2023-01-01, 2023-01-03 to 20" in command.out
    assert "0 in progress, 0 queued" in command.out
    assert "failed and not stored since: 2023-01-05" in command.out
    assert "no daemon is alive" in command.out
    assert f"{api.url} answers" in command.out
    monkeypatch.setenv("USER_API_URL", "http://127.0.0.1:1/")
    assert command("status") == 1
    assert "http://127.0.0.1:1/ does not answer: " in command.out
    assert re.search(r"^days +1 of", command.out, re.MULTILINE)


def test_a_database_that_cannot_be_reached_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_POSTGRES_URL", "postgresql://u:canary@127.0.0.1:1/users")
    assert command("show") == 1
    assert command.err.startswith("Postgres cannot be reached")
    assert "canary" not in command.err
    assert "Traceback" not in command.err


def test_dagster_s_database_that_cannot_be_reached_is_told_without_a_trace(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql://u:canary@127.0.0.1:1/dagster")
    assert command("run", "--day", "2023-01-01") == 1
    assert "DAGSTER_POSTGRES_URL" in command.err
    assert "canary" not in command.err
    assert "Traceback" not in command.err


@pytest.mark.usefixtures("interruptible")
def test_psql_gets_the_password_where_others_cannot_read_it(
    command: Command, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert command("psql") == 3
    arguments, password = json.loads(told.read_text())
    assert password == "canary"
    assert "canary" not in str(arguments)


def test_a_port_that_is_taken_is_told_with_one_that_is_free(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert command("dev", "--port", str(port)) == 1
        (other,) = re.findall(r"Use another: user-processing dev --port (\d+)$", command.err.strip())
        assert command.err.startswith(f"Port {port} of 127.0.0.1 is taken. ")
        assert int(other) > port
        monkeypatch.setenv("MAKELEVEL", "1")
        assert command("dev", "--port", str(port)) == 1
        assert "Use another: make dev UI_PORT=" in command.err


@pytest.fixture
def embedded_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder with an embedded Postgres of its own, which a process uses until it is told to end."""
    monkeypatch.delenv("USERS_POSTGRES_URL")
    folder = tmp_path / "data"
    program = (
        "import sys; from pathlib import Path; from user_processing.embedded import postgres; "
        "postgres.dsn('users', Path(sys.argv[1])); print('ready', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder / "postgres")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    (folder / "user.pid").write_text(str(process.pid))
    yield folder
    process.communicate(b"")
    embedded.stop(folder / "postgres")


def test_a_reset_is_refused_while_something_uses_the_data_and_asks_before(
    command: Command, embedded_data: Path
) -> None:
    assert command("reset", "--yes") == 1
    assert "is in use. End what uses it first" in command.err
    assert command("stop", "--idle") == 1
    assert embedded_data.exists()
    os.kill(int((embedded_data / "user.pid").read_text()), signal.SIGTERM)
    assert command("reset") == 1
    assert "Nobody is here to be asked: add --yes. Nothing was deleted." in command.err
    assert (embedded_data / "postgres" / "data").exists()
    assert command("reset", "--yes") == 0
    assert not embedded_data.exists()
    assert command("reset", "--yes") == 0
    assert "Nothing is there to delete" in command.out


def test_stop_stops_the_embedded_server(command: Command, embedded_data: Path) -> None:
    assert command("stop") == 0
    assert not (embedded_data / "postgres" / "data" / "postmaster.pid").exists()

"""Nothing secret is told: what people keep to themselves is in `users`, in files of mode 0600, and nowhere else.

Canaries go through a success, retries, the quarantine, an error of COPY, a refused contract, and crashes of the run and
of the database within COPY, while the debug messages of every library go to Dagster's log. Then all that was written or
can be asked for is searched.
"""

import base64
import contextlib
import json
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest

from user_processing.embedded import postgres as embedded
from user_processing.embedded import programs
from user_processing_tests.support.checkout import Checkout, checkout_in, wait_for
from user_processing_tests.support.recorded_api import RecordedApi

pytestmark = pytest.mark.xdist_group("leaks")

CANARIES = ["canary-password", "canary-e-mail@example.com", "canary-dsn", "canary-key", "canary-user"]
EVENTS = (
    '{ logsForRun(runId: "%s") { ... on EventConnection { events { __typename ... on MessageEvent { message } } } } }'
)
RUNS = "{ runsOrError { ... on Runs { results { runId status runConfigYaml tags { key value } } } } }"
DEFINITIONS = (
    "{ repositoriesOrError { ... on RepositoryConnection { nodes { allTopLevelResourceDetails "
    "{ name configuredValues { key value type } } } } } }"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    with checkout_in(tmp_path / "checkout") as checkout:
        yield checkout


def misbehave(query: dict[str, str], page: dict[str, Any]) -> object:
    """Every user has the canaries; what else the API does depends on the day."""
    page["results"] = [
        {**user, "email": "canary-e-mail@example.com", "login": {**user["login"], "password": "canary-password"}}
        for user in page["results"]
    ]
    if query["seed"] == "2023-01-02":  # quarantine
        page["results"][0]["email"] += "\0"
        page["results"][1]["login"]["username"] = 7
    if query["seed"] == "2023-01-03":  # the answer to another question
        page["info"]["seed"] = "another"
    if query["seed"] == "2023-01-04":  # too many that cannot be stored
        page["results"] = [{**user, "email": "canary-e-mail@example.com\0"} for user in page["results"]]
    return page


def found(content: bytes) -> list[str]:
    forms = {canary: {canary, quote(canary), base64.b64encode(canary.encode()).decode()} for canary in CANARIES}
    return [canary for canary, texts in forms.items() if any(text.encode() in content for text in texts)]


# COPY waits, in the middle of its rows, for as long as somebody else holds the lock.
WAITING = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN new; END';
CREATE TRIGGER waiting BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION wait()
"""
WAITS = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'COPY users%'"

DEBUG_LOGS = """
python_logs:
  managed_python_loggers: [root]
  python_log_level: DEBUG
"""


def dump(dsn: str, *options: str) -> bytes:
    """All that a database holds, as SQL."""
    done = subprocess.run([programs.binary("pg_dump"), *options, dsn], check=True, capture_output=True)
    return done.stdout


def crashes(checkout: Checkout, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Let the connection of a run, and then a run itself, die in the middle of COPY; returns what they printed."""
    said = []
    checkout.query(WAITING)
    with contextlib.closing(psycopg2.connect(environment["USERS_POSTGRES_URL"])) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(1)")
        for day in ("2023-01-08", "2023-01-09"):
            crash = folder / f"{day}.log"
            with crash.open("wb") as log:
                run = subprocess.Popen(
                    ["bash", "-c", f"exec dagster asset materialize -m user_processing --select '*' --partition {day}"],
                    cwd=checkout.folder,
                    env={**checkout.environment, **environment, "USERS_PER_DAY": "5000"},
                    stdout=log,
                    stderr=log,
                )
            wait_for(lambda: checkout.query(WAITS))
            if day == "2023-01-08":
                checkout.query(f"SELECT pg_terminate_backend(pid) FROM ({WAITS}) AS waits")
            else:
                run.kill()
            assert run.wait() != 0
            said.append(crash.read_text())
    checkout.query("DROP TRIGGER waiting ON users")
    return said


def test_secrets_are_in_the_users_table_and_in_files_of_their_owner_only(
    checkout: Checkout, recorded_api: RecordedApi, tmp_path: Path
) -> None:
    recorded_api.tamper = misbehave
    settings = checkout.folder / "dagster.yaml"
    settings.write_text(settings.read_text() + DEBUG_LOGS)
    folder = checkout.folder / ".local" / "postgres"
    users, dagster = embedded.dsn("users", folder), embedded.dsn("dagster", folder)
    with_secret = recorded_api.url.replace("://", "://canary-user:canary-key@") + "?key=canary-key"
    environment = {
        "USER_API_URL": with_secret,
        "USERS_POSTGRES_URL": f"{users}&password=canary-dsn",
        "USERS_PER_DAY": "300",
    }
    said = []

    def materialize(days: str, *, fails: bool = False, **more: str) -> None:
        config = json.dumps({"resources": {"user_api": {"config": {"attempts": 2}}}})
        command = f"dagster asset materialize -m user_processing --select '*' {days} --config-json '{config}'"
        finished = checkout.try_to(command, **(environment | more))
        assert (finished.returncode != 0) == fails, finished.stdout
        said.append(finished.stdout)

    materialize("--partition-range 2023-01-01...2023-01-02")
    materialize("--partition 2023-01-03", fails=True)
    materialize("--partition 2023-01-04", fails=True)
    # An error of COPY: psycopg2 quotes the row.
    checkout.query("ALTER TABLE users ADD CONSTRAINT no_canary CHECK (email !~ 'canary') NOT VALID")
    materialize("--partition 2023-01-05", fails=True)
    assert "constraint no_canary" in said[-1]
    checkout.query("ALTER TABLE users DROP CONSTRAINT no_canary")
    said += crashes(checkout, tmp_path, environment)
    assert "57P01 admin_shutdown" in said[-2] or "server closed the connection" in said[-2]
    # A connection string that libpq cannot read, and a server that is not there.
    materialize(
        "--partition 2023-01-06", fails=True, USERS_POSTGRES_URL="postgresql+psycopg2://canary-user:canary-dsn@db/users"
    )
    materialize(
        "--partition 2023-01-06", fails=True, USERS_POSTGRES_URL="postgresql://canary-user:canary-dsn@127.0.0.1:1/users"
    )
    # The API is gone, after its retries.
    recorded_api.close()
    materialize("--partition 2023-01-07", fails=True)

    with checkout.serving("dagster dev --port {port}", tmp_path / "dev.log", **environment) as dev:
        runs = dev.graphql(RUNS)
        told = [json.dumps(runs), json.dumps(dev.graphql(DEFINITIONS))]
        told += [json.dumps(dev.graphql(EVENTS % run["runId"])) for run in runs["runsOrError"]["results"]]
    # All of the above but the one whose connection string is refused when the definitions are loaded.
    assert len(told) >= 10
    assert "rate_window_seconds" in told[1]
    # The debug messages did go through.
    assert "GET /api/1.4/ HTTP/1.1" in "".join(told)

    # The canaries did go through.
    assert {"canary-password", "canary-e-mail@example.com"} == set(found(dump(users, "--table=users")))
    assert found("".join(said).encode()) == []
    assert found("".join(told).encode()) == []
    assert found((tmp_path / "dev.log").read_bytes()) == []
    assert found(dump(dagster)) == []
    assert found(dump(users, "--exclude-table=users")) == []
    for path in checkout.folder.rglob("*"):
        if not path.is_file() or path.is_relative_to(folder) or path.is_relative_to(checkout.folder / ".venv"):
            continue
        if found(path.read_bytes()):
            assert path.is_relative_to(checkout.folder / ".local" / "storage" / "days"), path
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((checkout.folder / ".local").stat().st_mode) == 0o700

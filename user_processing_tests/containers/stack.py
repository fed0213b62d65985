"""The containers of a compose project, and what an operator can do with them. It needs the standard library only."""

import contextlib
import datetime as dt
import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations.md"
USERS_PER_DAY = 100

_RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


class Stack:
    """The containers of a compose project, and what an operator can do with them."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder
        self.secrets = folder / "secrets"
        # Two tests on one engine keep apart; only the name of the image is common to them.
        self.project = f"user_processing_test_{os.getpid()}"
        kept = ("PATH", "HOME", "TMPDIR", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "XDG_RUNTIME_DIR")
        self.environment = {name: os.environ[name] for name in kept if name in os.environ} | {
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_PROFILES": "stand-in",
            # Not the .env of whoever tests: it may name their database.
            "COMPOSE_ENV_FILES": os.devnull,
            "COMPOSE_FILE": str(ROOT / "docker-compose.yml"),
            "SECRETS_FOLDER": str(self.secrets),
            "UI_PORT": str(port),
            "USER_API_URL": "http://api:8000/api/1.4/",
            "USERS_PER_DAY": str(USERS_PER_DAY),
        }

    def run(self, *command: str, text: str = "", **environment: str) -> str:
        """Run a command in the checkout; it has to succeed. Returns what it printed."""
        finished = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment | environment,
            check=False,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if finished.returncode:
            message = f"{' '.join(command)} exited with {finished.returncode}:\n{finished.stdout[-4000:]}"
            raise AssertionError(message)
        return finished.stdout

    def follow(self, section: str, block: int = 0, **environment: str) -> str:
        """Run commands of docs/operations.md as they stand there: a block of this section."""
        text = OPERATIONS.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        commands = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[block]
        script = f"set -euo pipefail; cd '{self.folder}'\n{commands}"
        return self.run("bash", "-c", script, **environment)

    def compose(self, *arguments: str, **environment: str) -> str:
        return self.run("docker", "compose", *arguments, **environment)

    def up(self, *options: str, **environment: str) -> None:
        self.compose("up", "--detach", "--wait", *options, **environment)

    def inspect(self) -> dict[str, Any]:
        """What `docker inspect` says of each container, by its service."""
        ids = self.compose("ps", "--all", "--quiet").split()
        found = json.loads(self.run("docker", "inspect", *ids))
        return {container["Config"]["Labels"]["com.docker.compose.service"]: container for container in found}

    def sql(self, statement: str, database: str = "users") -> str:
        psql = ("psql", "--username=postgres", "--no-align", "--tuples-only", "--no-psqlrc", f"--dbname={database}")
        return self.compose("exec", "-T", "postgres", *psql, f"--command={statement}").strip()

    def opens(self, password: str) -> bool:
        """Whether the password opens the database over the network; within its container nobody needs one."""
        psql = ("psql", "--username=postgres", "--host=postgres", "--command=SELECT 'it opens'")
        shell = ("sh", "-c", '"$@" 2>&1 || true', "-", *psql)
        return "it opens" in self.compose("exec", "-T", "--env", f"PGPASSWORD={password}", "postgres", *shell)

    def stored_days(self, first: str, last: str, database: str = "users") -> int:
        """How many of these days are stored with all of their users."""
        if self.sql("SELECT to_regclass('user_loads')", database) == "":
            return 0
        return int(
            self.sql(
                "SELECT count(*) FROM (SELECT partition_date FROM users JOIN user_loads USING (partition_date) "
                f"WHERE partition_date BETWEEN '{first}' AND '{last}' "
                f"GROUP BY partition_date HAVING count(*) = {USERS_PER_DAY}) AS days",
                database,
            )
        )

    def launch(self, **tags: str) -> str:
        """Queue a run by the command of the docs; returns its id."""
        job = ("dagster", "job", "launch", "--workspace", "workspace.yaml", "--job", "user_processing")
        run = str(uuid4())
        self.compose("exec", "-T", "daemon", *job, "--run-id", run, "--tags", json.dumps(tags))
        return run

    def graphql(self, query: str, **variables: object) -> Any:  # noqa: ANN401
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def status(self, run: str) -> str:
        return str(self.graphql(_RUN, id=run)["runOrError"]["status"])

    @contextlib.contextmanager
    def held(self, day: str = "") -> Iterator[None]:
        """Hold the ledger, or its row of a day: a run waits amid the transaction of its day until the block ends."""
        lock = "LOCK TABLE user_loads IN SHARE MODE"
        if day:
            # Not committed: whoever adds the same row has to wait for what becomes of it.
            lock = (
                "INSERT INTO user_loads (partition_date, users_requested, rows, rejected, csv_sha256, run_id) "
                f"VALUES ('{day}', 0, 0, 0, '', '')"
            )
        hold = (
            "docker",
            "compose",
            "exec",
            "-T",
            "postgres",
            "psql",
            "--username=postgres",
            "--dbname=users",
            "--quiet",
        )
        with subprocess.Popen(
            hold, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as psql:
            assert psql.stdin
            assert psql.stdout
            psql.stdin.write(f"BEGIN; {lock}; \\echo held\n")
            psql.stdin.flush()
            assert psql.stdout.readline() == "held\n"
            try:
                yield
            finally:
                psql.stdin.close()

    def waits(self) -> bool:
        """Whether a run waits for the ledger, or for a row of it."""
        waiting = "datname = 'users' AND wait_event_type = 'Lock' AND wait_event <> 'advisory'"
        return self.sql(f"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE {waiting})") == "t"

    def backfill(self, name: str) -> dict[str, int]:
        """How many runs of a backfill, their retries included, have which status."""
        found = self.sql(
            "SELECT status, count(*) FROM runs JOIN run_tags USING (run_id) "
            f"WHERE key = 'user_processing/backfill' AND value = '{name}' GROUP BY status",
            "dagster",
        )
        return {line.partition("|")[0]: int(line.partition("|")[2]) for line in found.splitlines()}

    def logs(self, *services: str) -> str:
        return self.compose("logs", "--no-color", *services)

    def failed_launches(self, since: dt.datetime) -> list[str]:
        """What the daemon has said since then of each time that it could not launch a run."""
        options = ("--no-color", "--no-log-prefix", f"--since={since:%Y-%m-%dT%H:%M:%SZ}")
        said = self.compose("logs", *options, "daemon")
        return re.findall(r"Caught an error dequeuing run.*?(?=\n\S*\d{4}-\d\d-\d\d \d\d:|\Z)", said, re.DOTALL)


def wait_for(condition: Callable[[], object], *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true in {seconds:.0f} s"
        time.sleep(0.5)


def timed(action: Callable[[], object]) -> float:
    """The seconds that it takes."""
    start = time.monotonic()
    action()
    return time.monotonic() - start

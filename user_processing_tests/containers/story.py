"""The life of the containers, from the build to their end. Each step builds on what the one before it left.

A step's docstring says what it shows; it returns what else there is to say.
"""

import contextlib
import datetime as dt
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from user_processing_tests.containers.stack import ROOT, USERS_PER_DAY, Stack, timed, wait_for

SERVICES = ["api", "code", "daemon", "postgres", "webserver"]

_ACTIVE = {"QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"}
_BACKFILL = ("exec", "-T", "daemon", "user-processing", "backfill")
_KILLED = 137
_KILL = """
import os, pathlib
server = b"user_processing.internals.code_server"
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if process.name != "1" and server in (process / "cmdline").read_bytes().split(bytes(1)):
        os.kill(int(process.name), 9)
"""


def build(stack: Stack) -> str:
    """The build and `up` end with five healthy containers."""
    stack.follow("Install")
    assert sorted(stack.inspect()) == SERVICES
    assert {container["State"]["Health"]["Status"] for container in stack.inspect().values()} == {"healthy"}
    images = {name: container["Image"] for name, container in stack.inspect().items()}
    assert len({images[name] for name in SERVICES if name != "postgres"}) == 1
    return "one image for four services"


def up_again(stack: Stack) -> str:
    """`up --build` again, and `up` after it, recreate nothing."""
    before = {name: (container["Id"], container["State"]["StartedAt"]) for name, container in stack.inspect().items()}
    seconds = timed(lambda: stack.compose("up", "--detach", "--build"))
    stack.compose("up", "--detach")
    after = {name: (container["Id"], container["State"]["StartedAt"]) for name, container in stack.inspect().items()}
    assert after == before
    return f"{seconds:.1f} s"


def no_password(stack: Stack) -> str:
    """`docker inspect` shows the password of no container, and the image does not hold it."""
    password = (stack.secrets / "postgres_password").read_text().strip()
    assert password in (stack.secrets / "pgpass").read_text()
    told = [json.dumps(stack.inspect()), stack.compose("config")]
    told += [stack.run("docker", *what, "user_processing:local") for what in (["inspect"], ["history", "--no-trunc"])]
    told.append(stack.logs())
    assert all(len(text) > len(password) for text in told)
    assert not [text for text in told if password in text]
    found = stack.run(
        "docker", "run", "--rm", "--user=0:0", "--entrypoint=grep", "--volume", f"{stack.secrets}:/secrets:ro",
        "user_processing:local", "-rlFf", "/secrets/postgres_password", "/secrets", "/app", "/etc", "/home", "/root",
    )  # fmt: skip
    assert sorted(found.split()) == ["/secrets/pgpass", "/secrets/postgres_password"]
    return ""


def bounded(stack: Stack) -> str:
    """Each container has a memory limit, logs that are rotated, and a root file system that nobody can write to."""
    for name, container in stack.inspect().items():
        host = container["HostConfig"]
        assert host["Memory"], f"{name} has no memory limit"
        assert host["LogConfig"]["Config"]["max-size"], f"the logs of {name} are not rotated"
        assert host["ReadonlyRootfs"], f"the root file system of {name} can be written to"
    assert "Read-only file system" not in stack.logs()
    return ""


def run_days(stack: Stack) -> str:
    """The commands of the docs store a day, queue the rest of its month, and tell how all is."""
    start, said = time.monotonic(), stack.follow("Run days")
    assert "30 days in 1 run:" in said
    assert "the daemon is alive" in said
    assert "http://api:8000/api/1.4/ answers" in said
    wait_for(lambda: stack.stored_days("2023-01-01", "2023-01-31") == 31)
    return f"{time.monotonic() - start:.0f} s"


def a_month(stack: Stack) -> str:
    """Thirty days in one run are stored."""
    seconds = timed(lambda: _succeed(stack, _range("2023-02-01", "2023-03-02")))
    assert stack.stored_days("2023-02-01", "2023-03-02") == 30
    return f"{seconds:.0f} s"


def restart(stack: Stack) -> str:
    """After a restart all are healthy, nothing is lost, and days are stored."""
    stack.compose("restart")
    stack.up()
    assert stack.stored_days("2023-01-01", "2023-03-02") == 61
    _succeed(stack, {"dagster/partition": "2023-05-01"})
    assert stack.stored_days("2023-05-01", "2023-05-01") == 1
    return ""


def another_postgres(stack: Stack) -> str:
    """Both URLs may name another server, whose password is in `pgpass`; the compose file's own is not needed then."""
    other = f"{stack.project}_other"
    (stack.secrets / "other").write_text("of: another\\server")
    with (stack.secrets / "pgpass").open("a") as pgpass:
        pgpass.write(f"{other}:5432:*:postgres:of\\: another\\\\server\n")
    before = (stack.secrets / "pgpass").read_text()
    stack.run("deploy/secrets.sh")
    assert (stack.secrets / "pgpass").read_text() == before
    psql = ("docker", "exec", other, "psql", "--username=postgres", "-Atc")
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(stack.up)
        cleanup.callback(stack.run, "docker", "rm", "--force", "--volumes", other)
        stack.run(
            *("docker", "run", "--detach", f"--name={other}", f"--network={stack.project}_default"),
            f"--volume={stack.secrets / 'other'}:/run/secrets/other:ro",
            *("--env=POSTGRES_PASSWORD_FILE=/run/secrets/other", "--env=POSTGRES_DB=both", "postgres:17.10"),
        )
        wait_for(lambda: "accepting" in stack.run("docker", "exec", other, "sh", "-c", "pg_isready -h 127.0.0.1; true"))
        wait_for(lambda: "both" in stack.run(*psql, "SELECT datname FROM pg_database"))
        url = f"postgresql://postgres@{other}/both"
        cleanup.callback(stack.compose, "stop")
        stack.follow("Another Postgres", USERS_POSTGRES_URL=url, DAGSTER_POSTGRES_URL=url)
        assert "postgres" not in stack.inspect()
        _succeed(stack, {"dagster/partition": "2023-05-02"})
        count = "SELECT count(*) FROM users WHERE partition_date = '2023-05-02'"
        assert stack.run(*psql[:-1], "-Atd", "both", "-c", count).strip() == str(USERS_PER_DAY)
    assert stack.stored_days("2023-05-01", "2023-05-02") == 1
    return ""


def stop(stack: Stack) -> str:
    """Each container ends by itself, in a part of its grace period."""
    seconds = {}
    for name in ("webserver", "daemon", "code", "api", "postgres"):
        seconds[name] = timed(lambda name=name: stack.compose("stop", name))  # type: ignore[misc]
    for name, container in stack.inspect().items():
        assert container["State"]["ExitCode"] != _KILLED, f"{name} was killed after {seconds[name]:.0f} s"
        assert seconds[name] < _grace(container) / 2, f"{name} took {seconds[name]:.0f} s"
    stack.up()
    return ", ".join(f"{name} {took:.1f} s" for name, took in seconds.items())


def stop_while_a_run_stores(stack: Stack) -> str:
    """The code server that is told to stop lets its run finish."""
    run = stack.launch(**{"dagster/partition": "2023-05-03"})
    with stack.held():
        wait_for(stack.waits)
        stopping = subprocess.Popen(
            ("docker", "compose", "stop", "code"), cwd=ROOT, env=stack.environment, stderr=subprocess.DEVNULL
        )
        # As long as Docker waits by default, and longer than `dagster code-server start` does.
        with contextlib.suppress(subprocess.TimeoutExpired):
            stopping.wait(40)
        assert stopping.poll() is None
    seconds = timed(stopping.wait)
    assert stack.inspect()["code"]["State"]["ExitCode"] != _KILLED
    assert stack.status(run) == "SUCCESS"
    assert stack.stored_days("2023-05-03", "2023-05-03") == 1
    stack.up()
    return f"{seconds:.1f} s after the run went on"


def stop_with_sigint_ignored(stack: Stack) -> str:
    """Also a code server that was started with SIGINT ignored ends when it is told to."""
    name = f"{stack.project}_ignoring"
    server = "dagster api grpc --host=127.0.0.1 --port=4000 --module-name=user_processing"
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(stack.run, "docker", "rm", "--force", name)
        stack.run(
            *("docker", "run", "--detach", "--init", f"--name={name}", "--entrypoint=sh"),
            *("--env=USERS_EMBEDDED=yes", "--env=DAGSTER_HOME=/tmp", "user_processing:local"),
            *("-c", f"trap '' INT; exec /app/entrypoint.sh {server}"),
        )
        healthy = "dagster api grpc-health-check --port=4000 && echo healthy; true"
        wait_for(lambda: "healthy" in stack.run("docker", "exec", name, "sh", "-c", healthy))
        seconds = timed(lambda: stack.run("docker", "stop", "--time=60", name))
        assert seconds < 30, f"it took {seconds:.0f} s"
    return f"{seconds:.1f} s"


def change_password(stack: Stack) -> str:
    """The password of a Postgres that runs is changed by the commands of the docs."""
    before = (stack.secrets / "postgres_password").read_text().strip()
    assert stack.opens(before)
    (stack.folder / "my-password").write_text("it's: my\\own\n")
    stack.follow("Passwords", 1)
    assert stack.opens("it's: my\\own")
    assert not stack.opens(before)
    _succeed(stack, {"dagster/partition": "2023-05-04"})
    return ""


def back_up_and_restore(stack: Stack) -> str:
    """Backed up amid a run and restored by the commands of the docs: days are whole, those that are gone come back."""
    first, middle, last = "2023-04-01", "2023-04-16", "2023-04-30"
    with stack.held(middle):
        run = stack.launch(**_range(first, last))
        wait_for(stack.waits)
        stack.follow("Back up")
    wait_for(lambda: stack.status(run) == "SUCCESS")
    assert stack.stored_days(first, last) == 30
    stack.sql("CREATE TABLE of_no_backup ()")

    stack.follow("Restore")
    assert stack.sql("SELECT to_regclass('of_no_backup')") == ""
    kept = stack.stored_days(first, last)
    assert kept == 15
    days = f"partition_date BETWEEN '{first}' AND '{last}'"
    assert stack.sql(f"SELECT count(*) FROM users WHERE {days}") == str(kept * USERS_PER_DAY)
    said = stack.compose(*_BACKFILL, "create", "--from", first, "--to", last)
    assert f"{30 - kept} days in 1 run:" in said
    wait_for(lambda: stack.stored_days(first, last) == 30)

    # Dagster's own, from the same moment: its run is gone, and what it had to do is done again.
    stack.follow("Restore", 1)
    assert stack.status(run) in {"STARTED", "FAILURE"}
    wait_for(lambda: stack.status(run) == "FAILURE")
    again = "SELECT count(*) FROM run_tags JOIN runs USING (run_id) WHERE value = '{}' AND status = 'SUCCESS'"
    wait_for(lambda: int(stack.sql(again.format(run), "dagster")))
    assert stack.stored_days(first, last) == 30
    return ""


def down_and_up(stack: Stack) -> str:
    """`down` and `up` keep what is stored, and Dagster's runs."""
    count = "SELECT count(*) FROM runs WHERE status = 'SUCCESS'"
    before = int(stack.sql(count, "dagster"))
    seconds = timed(lambda: stack.compose("down"))
    assert not stack.compose("ps", "--all", "--quiet").strip()
    seconds_up = timed(stack.up)
    assert stack.stored_days("2023-01-01", "2023-05-04") == 94
    assert int(stack.sql(count, "dagster")) >= before > 0
    return f"down {seconds:.0f} s, up {seconds_up:.0f} s"


def queued_backfill(stack: Stack) -> str:
    """Forty queued runs are all stored although the code server is killed, stopped and replaced amid them."""
    for first, fault in (("2024-01-01", _kill), ("2024-03-01", _stop), ("2024-05-01", _replace)):
        start = time.monotonic()
        runs = _amid_a_backfill(stack, dt.date.fromisoformat(first), fault)
        _print(f"   {time.monotonic() - start:6.1f} s  {fault.__doc__} ({runs})")
        # Only a kill cuts off what is in progress.
        assert ("FAILURE" in runs) == (fault is _kill)
    return ""


def _amid_a_backfill(stack: Stack, first: dt.date, fault: Callable[[Stack], None]) -> dict[str, int]:
    """How many runs have which status in the end, when forty days are stored."""
    last = first + dt.timedelta(days=39)
    days = ("--from", str(first), "--to", str(last), "--days-per-run", "1", "--max-active-runs", "8")
    (name,) = re.findall(r"This is backfill (\w+)", stack.compose(*_BACKFILL, "create", *days))
    wait_for(lambda: stack.backfill(name).get("SUCCESS", 0) >= 5, seconds=300)
    fault(stack)
    # A run that died is tried again some time after it failed.
    ends = str(first), str(last)
    wait_for(lambda: stack.stored_days(*ends) == 40 and not _ACTIVE & stack.backfill(name).keys(), seconds=900)
    return stack.backfill(name)


def _kill(stack: Stack) -> None:
    """The server dies while runs store days, and Docker starts it again."""
    before = stack.inspect()["code"]["RestartCount"]
    with stack.held():
        wait_for(stack.waits)
        # The program ends with the container.
        with contextlib.suppress(AssertionError):
            stack.compose("exec", "-T", "code", "python", "-c", _KILL)
        wait_for(lambda: stack.inspect()["code"]["RestartCount"] > before)


def _stop(stack: Stack) -> None:
    """An operator stops the server, and starts it again when the queue has missed it."""
    stopped = dt.datetime.now(dt.UTC)
    stack.compose("stop", "code")
    # The queue tries one run every 15 seconds. Without the setting of dagster.yaml, each try would fail one.
    unloaded = "DagsterCodeLocationLoadError"
    wait_for(lambda: sum(unloaded in said for said in stack.failed_launches(stopped)) >= 2)
    stack.compose("start", "code")


def _replace(stack: Stack) -> None:
    """All containers but Postgres are made anew from another image, by the commands of the docs."""
    labels = {"services": {"code": {"build": {"labels": {"upgraded": str(time.time())}}}}}
    (stack.folder / "upgraded.yml").write_text(json.dumps(labels))
    files = f"{stack.environment['COMPOSE_FILE']}:{stack.folder / 'upgraded.yml'}"
    before = {name: container["Id"] for name, container in stack.inspect().items()}
    stack.follow("Update", 1, COMPOSE_FILE=files)
    after = {name: container["Id"] for name, container in stack.inspect().items()}
    assert [name for name in SERVICES if after[name] == before[name]] == ["postgres"]


def _succeed(stack: Stack, tags: dict[str, str]) -> str:
    run = stack.launch(**tags)
    wait_for(lambda: stack.status(run) in {"SUCCESS", "FAILURE", "CANCELED"})
    assert stack.status(run) == "SUCCESS"
    return run


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _range(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def _grace(container: dict[str, Any]) -> float:
    """The seconds that a container has to end."""
    return float(container["Config"].get("StopTimeout") or 10)


STORY: list[Callable[[Stack], str]] = [
    *(build, up_again, no_password, bounded, run_days, a_month, restart, another_postgres),
    *(stop, stop_while_a_run_stores, stop_with_sigint_ignored, change_password, back_up_and_restore, down_and_up),
]

"""`user-processing status`: how things are, from the same facts that the sensor decides from."""

import datetime as dt
from collections.abc import Callable

import dagster as dg

from user_processing import settings
from user_processing.catchup import facts
from user_processing.cli.failures import cause
from user_processing.cli.output import command, count, say
from user_processing.days.cadence import CADENCE
from user_processing.days.runs import format_days
from user_processing.internals.ticks import daemons_are_alive
from user_processing.paths import data_dir
from user_processing.source.user_api import ApiUnavailableError, UserApi
from user_processing.store import tables
from user_processing.store.postgres import Postgres

_SPANS_SHOWN = 3


def status() -> int:
    """Print how things are; returns 1 if a service that is needed is away."""
    # Each part is said for itself: one service that is away does not hide how the others are.
    return max([_part("days", _days), _part("runs", _runs), _part("API", _api), _part("data", _data)])


def _part(name: str, tell: Callable[[], list[str]]) -> int:
    code = 0
    try:
        lines = tell()
    except Exception as error:
        known = cause(error)
        if known is None:
            raise
        code, lines = 1, known.splitlines()
    for number, line in enumerate(lines):
        say(f"{name if number == 0 else '':<7}{line}")
    return code


def _days() -> list[str]:
    due = CADENCE.due(dt.datetime.now(dt.UTC))
    with Postgres().transaction() as connection:
        ledger = tables.ledger(connection)
    missing = [day for day in due if day not in ledger]
    users = count(sum(entry.rows for entry in ledger.values()), "user")
    lines = [f"{len(due) - len(missing):,} of {count(len(due), 'day')} stored, {users}"]
    if missing:
        which = format_days(missing).split(", ")
        more = f" … and {len(missing):,} days in all" if len(which) > _SPANS_SHOWN else ""
        lines.append(f"missing: {', '.join(which[-_SPANS_SHOWN:])}{more}")
    return lines


def _runs() -> list[str]:
    now = dt.datetime.now(dt.UTC)
    with dg.DagsterInstance.get() as instance:
        active = facts.active(instance)
        with Postgres().transaction() as connection:
            ledger = tables.ledger(connection)
        attempts, _ = facts.attempts(instance, now)
        failing = {
            day
            for attempt in attempts
            for day in attempt.failed or attempt.days
            if not attempt.cancelled and (day not in ledger or ledger[day].loaded_at < attempt.created)
        }
        alive = daemons_are_alive(instance)
    queued = sum(run.status == dg.DagsterRunStatus.QUEUED for run in active)
    lines = [f"{len(active) - queued:,} in progress, {queued:,} queued"]
    if failing:
        lines.append(f"failed and not stored since: {format_days(sorted(failing))}")
    dev = command("dev")
    lines.append(
        "the daemon is alive" if alive else f"no daemon is alive: nothing queued or scheduled runs until `{dev}`"
    )
    return lines


def _api() -> list[str]:
    api = UserApi()
    due = CADENCE.due(dt.datetime.now(dt.UTC))
    with dg.build_resources({"user_api": api}) as opened:
        problem = opened.user_api.probe(seed=due[-1] if due else CADENCE.first_day).problem
    if problem:
        raise ApiUnavailableError(f"{api.address} does not answer: {problem}")
    return [f"{api.address} answers"]


def _data() -> list[str]:
    chosen = settings.load()
    runs = "the database of DAGSTER_POSTGRES_URL" if chosen.service("DAGSTER_POSTGRES_URL") else "the embedded Postgres"
    return [
        f"users in {Postgres().address}",
        f"runs in {runs}",
        f"files in {chosen.users_files_url or data_dir()}",
    ]

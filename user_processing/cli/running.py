"""`user-processing run`: the job `user_processing` in this process, and what came of it."""

import datetime as dt
import time
from collections.abc import Sequence

import dagster as dg

from user_processing import settings
from user_processing.catchup import unfinished
from user_processing.checks import CHECKS
from user_processing.cli.output import command, complain, count, say, table
from user_processing.cli.progress import Display
from user_processing.days.cadence import CADENCE, NoSuchDaysError
from user_processing.days.runs import PAGES_SINCE, RunDays
from user_processing.days.work import watched
from user_processing.definitions import defs
from user_processing.internals.execution import execute, last_signal
from user_processing.store import tables
from user_processing.store.postgres import Postgres

_SHOWN = 10  # days


def run(span: tuple[str, str] | None, *, fresh: bool) -> int:
    """Run the days from the first to the last, or the newest due day; returns the exit code."""
    started = time.monotonic()
    days = chosen_days(span, dt.datetime.now(dt.UTC))
    job = defs.resolve_job_def("user_processing")
    with dg.DagsterInstance.get() as instance:
        earlier = None if fresh else unfinished.pages_since(days, instance)
        if earlier:
            say(f"Goes on from run {earlier}, which did not finish: the pages that it has fetched are taken.")
        tags = {**days.tags(), **({PAGES_SINCE: earlier} if earlier else {})}
        began = dt.datetime.now(dt.UTC)
        with last_signal() as signals, Display() as display, watched(display.show):
            result = execute(job, instance, tags, display)
    fetched = display.last["raw_user"].days_done if "raw_user" in display.last else 0
    if signals and not result.success:
        complain(_interruption(days, began, fetched))
        # As shells have it: 130 for Ctrl-C, 143 for SIGTERM.
        return 128 + signals[-1]
    if result.success:
        _summarise(days, result.run_id, time.monotonic() - started)
        return _tell_checks(result.get_asset_check_evaluations())
    _tell_failure(result, _stored_since(days, began), len(list(days)))
    return 1


def chosen_days(span: tuple[str, str] | None, now: dt.datetime) -> RunDays:
    """The days from the first to the last, or the newest that is due.

    Raises:
        NoSuchDaysError: they are none, or none is due.
    """
    if span:
        CADENCE.between(*span, now)
        return RunDays(*span)
    due = CADENCE.due(now)
    if not due:
        raise NoSuchDaysError(f"No day is due yet: the first is {CADENCE.first_day}.")
    return RunDays(due[-1], due[-1])


def _stored_since(days: RunDays, began: dt.datetime) -> int:
    """How many of the days are stored since then."""
    with Postgres().transaction() as connection:
        return len(tables.stored_since(connection, began).intersection(days))


def _summarise(days: RunDays, run_id: str, seconds: float) -> None:
    with Postgres().transaction() as connection:
        counts = tables.count(connection, days)
    stored = [(day, counts.get(day, tables.Counts())) for day in days]
    rows, rejected = sum(it.rows for _, it in stored), sum(it.rejected for _, it in stored)
    say("", f"{count(rows, 'user')} of {count(len(stored), 'day')}, stored in {Postgres().address}", "")
    shown = [(day, it.rows, it.rejected) for day, it in stored[-_SHOWN:]]
    total = [(f"all {len(stored):,} days", rows, rejected)] if len(stored) > 1 else []
    table(["day", "users", "rejected"], [*shown, *total])
    if len(stored) > _SHOWN:
        say(f"… and {count(len(stored) - _SHOWN, 'day')} before.")
    say("", f"It took {seconds:,.1f} s. Run {run_id}: {_page(run_id)}")


def _tell_checks(evaluations: Sequence[dg.AssetCheckEvaluation]) -> int:
    """Say what the checks came to; returns 1 if one has failed that must not."""
    failed = [it for it in evaluations if not it.passed]
    # What the others say may be of days that were not run.
    strict = [it for it in failed if not CHECKS[it.check_name].of_all_days]
    errors = [it for it in strict if it.severity == dg.AssetCheckSeverity.ERROR]
    say(f"{len(evaluations) - len(failed)} of {count(len(evaluations), 'check')} passed.")
    for it in failed:
        if it not in errors:
            say(f"Note: {it.check_name}: {it.description}")
    if errors:
        complain(*(f"Check failed: {it.check_name}: {it.description}" for it in errors))
        return 1
    say("", f"Next: {command('show')}, {command('dev')} for the UI, {command('--help', 'help')}")
    return 0


def _tell_failure(result: dg.ExecuteInProcessResult, stored: int, days: int) -> None:
    """Say what failed: a cause that is known without its trace, as the last thing."""
    complain(
        "",
        f"The run failed; {stored:,} of {count(days, 'day')} {'is' if days == 1 else 'are'} stored by it.",
        f"Its full log is that of run {result.run_id}, in the UI ({command('dev')}): {_page(result.run_id)}",
    )
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            told = data.user_failure_data.description if data.user_failure_data else None
            complain(f"{event.step_key}: {told or (data.error.to_string() if data.error else event.message)}")


def _interruption(days: RunDays, began: dt.datetime, fetched: int) -> str:
    number = len(list(days))
    are = "is" if number == 1 else "are"
    stored = f"{_stored_since(days, began):,} of {count(number, 'day')} {are} stored"
    return (
        f"Interrupted: {stored}. The same command goes on from there; it takes the pages that are fetched already, "
        f"of {count(fetched, 'day')}."
    )


def _page(run_id: str) -> str:
    return f"{settings.load().users_ui_url.rstrip('/')}/runs/{run_id}"

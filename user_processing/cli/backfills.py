"""`user-processing backfill`: what is asked, and what is said of it. What a backfill is lives in `catchup.backfill`."""

import datetime as dt
import secrets
from collections.abc import Sequence
from typing import NamedTuple

import dagster as dg

from user_processing.catchup import backfill
from user_processing.cli.output import command, count, option, say, table
from user_processing.cli.session import confirm
from user_processing.days.cadence import CADENCE
from user_processing.days.runs import RunDays, format_days
from user_processing.definitions import defs
from user_processing.internals.ticks import daemons_are_alive

_ASKED_ABOUT = 100
"""Days of a backfill from which on somebody has to say yes."""


class Options(NamedTuple):
    """What is asked of the runs of a backfill; None: as it was queued before, or else as the settings say."""

    days_per_run: int | None
    max_active_runs: int | None
    backwards: bool | None
    dry_run: bool
    yes: bool


def create(first: str, last: str, reprocess: str, options: Options) -> None:
    """Queue the runs of a new backfill, or print them."""
    now = dt.datetime.now(dt.UTC)
    days = CADENCE.between(first, last, now)
    with dg.DagsterInstance.get() as instance:
        choice = backfill.choose(days, reprocess, instance, defs.get_repository_def(), now)
        for which, found, value in (
            ("stored", choice.stored, "completed"),
            ("tried and not stored", choice.failed, "failed"),
            ("in progress", choice.busy, None),
        ):
            left_out = [day for day in found if day not in choice.chosen]
            if left_out:
                again = f" To run them: {option(f'--reprocess {value}', f'REPROCESS={value}')}." if value else ""
                say(f"Left out, as they are {which}: {format_days(left_out)}.{again}")
        _queue(secrets.token_hex(4), choice.chosen, instance, options)


def resume(name: str, options: Options) -> None:
    """Queue the days of a backfill again that were not stored since it began."""
    with dg.DagsterInstance.get() as instance:
        _queue(name, backfill.remaining(name, instance, defs.get_repository_def()), instance, options)


def cancel(name: str) -> None:
    """Cancel what is left of a backfill, and say what has become of its runs."""
    with dg.DagsterInstance.get() as instance:
        ended = backfill.cancel(name, instance)
    cancelled = ended.by_status.get(dg.DagsterRunStatus.CANCELED, 0)
    if not ended.by_status:
        say("0 runs are cancelled; none was left.")
    else:
        are = "is" if cancelled == 1 else "are"
        say(f"{count(cancelled, 'run')} {are} cancelled" + (f": {format_days(ended.days)}." if ended.days else "."))
    for status, runs in ended.by_status.items():
        if status != dg.DagsterRunStatus.CANCELED:
            say(f"{count(runs, 'run')} had ended before: {status.value.lower()}.")
    say(f"To go on: {command(f'backfill resume {name}', f'backfill RESUME={name}')}")


def show() -> None:
    """List the backfills, newest last, with what has become of their runs."""
    with dg.DagsterInstance.get() as instance:
        found = list(backfill.backfills(instance))
    if not found:
        days = "--from 2023-01-01 --to 2023-01-31", "FROM=2023-01-01 TO=2023-01-31"
        say(f"There is no backfill yet: {command(f'backfill create {days[0]}', f'backfill {days[1]}')}")
        return
    table(
        ["backfill", "created (UTC)", "days", "which", "runs"],
        [
            (
                it.name,
                f"{it.created:%Y-%m-%d %H:%M:%S}",
                len(it.days),
                format_days(it.days),
                ", ".join(sorted(f"{runs:,} {status.value.lower()}" for status, runs in it.by_status.items())),
            )
            for it in found
        ],
    )


def _queue(name: str, days: Sequence[str], instance: dg.DagsterInstance, options: Options) -> None:
    rules = backfill.rules_of(
        name,
        instance,
        days_per_run=options.days_per_run,
        max_active_runs=options.max_active_runs,
        backwards=options.backwards,
    )
    runs = backfill.cut(days, rules)
    if not runs:
        say("No day is left to run.")
        return
    most = rules.max_active_runs
    active = f", at most {most:,} of them active" if len(runs) > most else ""
    say(f"{count(len(days), 'day')} in {count(len(runs), 'run')}{active}:", *map(_line, runs))
    if options.dry_run:
        say("Nothing is queued: this was a dry run.")
        return
    if len(days) > _ASKED_ABOUT and not options.yes:
        what = f"{len(days):,} days are more than {_ASKED_ABOUT}."
        confirm(what, "Queue them?", otherwise="Nothing is queued.")
    cancelling = command(f"backfill cancel {name}", f"backfill CANCEL={name}")
    say(f"This is backfill {name}. To cancel it: {cancelling}")
    total = len(runs)
    backfill.queue(runs, name, rules, instance, lambda queued: say(f"{queued:,} of {count(total, 'run')} queued."))
    if not daemons_are_alive(instance):
        say(f"No daemon is alive on this instance, so nothing is launched until `{command('dev')}` runs.")


def _line(run: RunDays) -> str:
    number = len(list(run))
    return f"  {run.key}" + (f"  {number:,} days" if number > 1 else "")

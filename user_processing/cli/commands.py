"""What can be typed, and its help.

What a command does is in the other modules of this package. They are imported when it runs: Dagster takes a second or
two to import, for which nobody waits who asks for help.
"""

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, NoReturn

import typer

from user_processing.cli.output import option, prepare
from user_processing.cli.session import CommandError, begin, errors_in_a_line


class Reprocess(StrEnum):
    """Which of the days that were tried before a backfill runs again."""

    none = "none"
    failed = "failed"
    completed = "completed"


def _examples(*lines: str) -> str:
    r"""The end of a help text; `\b` keeps its lines as they are."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


app = typer.Typer(
    name="user-processing",
    help="Takes each day's users from the API to Postgres.\n\nA day is written YYYY-MM-DD. Settings are environment "
    "variables, or lines of the file .env; README.md lists them.",
    epilog=_examples(
        "user-processing run",
        "user-processing run --from 2023-01-01 --to 2023-01-31",
        "user-processing status",
        "user-processing dev",
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
backfill = typer.Typer(
    help="Queue many days; list, cancel, resume that.\n\n"
    "The daemon runs what is queued: that of `user-processing dev`, or a deployed one. "
    "Without a command, the backfills are listed.",
    epilog=_examples("user-processing backfill create --from 2023-01-01 --to 2023-12-31 --days-per-run 7 --dry-run"),
    rich_markup_mode=None,
)
app.add_typer(backfill, name="backfill")

Day = Annotated[str | None, typer.Option(metavar="DAY", help="The one day to run; without any: the newest due day.")]
First = Annotated[str | None, typer.Option("--from", metavar="DAY", help="The first day of a range.")]
Last = Annotated[str | None, typer.Option("--to", metavar="DAY", help="The last day of the range, itself included.")]
DaysPerRun = Annotated[
    int | None, typer.Option(min=1, metavar="NUMBER", help="Days in one run. Without it: USERS_DAYS_PER_RUN.")
]
MaxActive = Annotated[
    int | None,
    typer.Option(min=1, metavar="NUMBER", help="Runs that are active at a time. Without it: USERS_MAX_ACTIVE_RUNS."),
]
Backwards = Annotated[bool | None, typer.Option("--backwards/--forwards", help="Whether the newest days run first.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print days and runs, and queue nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command(
    epilog=_examples(
        "user-processing run --day 2023-01-01",
        "user-processing run --from 2023-01-01 --to 2023-01-31",
    )
)
def run(
    *,
    day: Day = None,
    first: First = None,
    last: Last = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Fetch every page, also those that an interrupted run has fetched.")
    ] = False,
) -> None:
    """Run a day, or a range of days, here and now.

    The days are one run. At its end stands what is stored, and what the checks found.

    An interrupted run is gone on with by the same command. Exits with 1 if the run or a check of its days fails.
    """
    if day and (first or last):
        raise CommandError("Give either one day (--day), or the first and the last of a range (--from and --to).")
    span = (day, day) if day else _range(first, last) if first or last else None
    begin()
    from user_processing.cli import running as command

    raise typer.Exit(command.run(span, fresh=fresh))


@backfill.callback(invoke_without_command=True)
def _list_by_default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        begin()
        from user_processing.cli import backfills as command

        command.show()


@backfill.command(epilog=_examples("user-processing backfill create --from 2023-01-01 --to 2023-12-31 --backwards"))
def create(  # noqa: PLR0913 - each is an option
    *,
    first: First = None,
    last: Last = None,
    days_per_run: DaysPerRun = None,
    max_active_runs: MaxActive = None,
    backwards: Backwards = None,
    reprocess: Annotated[
        Reprocess,
        typer.Option(help="Also days that were tried and not stored (failed), or that are stored too (completed)."),
    ] = Reprocess.none,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Queue the days of a range that are not stored and not in progress."""
    begin()
    from user_processing.cli import backfills as command

    options = command.Options(days_per_run, max_active_runs, backwards, dry_run, yes)
    command.create(*_range(first, last), reprocess.value, options)


@backfill.command(epilog=_examples("user-processing backfill resume 3f2a9c1e --max-active-runs 2"))
def resume(  # noqa: PLR0913 - each is an option
    name: Annotated[str, typer.Argument(help="As `backfill list` shows it.")],
    *,
    days_per_run: DaysPerRun = None,
    max_active_runs: MaxActive = None,
    backwards: Backwards = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Queue the days again that a backfill has not stored; what is not given stays as it was."""
    begin()
    from user_processing.cli import backfills as command

    command.resume(name, command.Options(days_per_run, max_active_runs, backwards, dry_run, yes))


@backfill.command(epilog=_examples("user-processing backfill cancel 3f2a9c1e"))
def cancel(name: Annotated[str, typer.Argument(help="As `backfill list` shows it.")]) -> None:
    """Cancel the runs of a backfill that are queued, and stop those that are in progress."""
    begin()
    from user_processing.cli import backfills as command

    command.cancel(name)


@backfill.command("list")
def list_backfills() -> None:
    """List the backfills, newest last, with what has become of their runs."""
    begin()
    from user_processing.cli import backfills as command

    command.show()


@app.command()
def status() -> None:
    """Say what is stored, runs, waits and is missing.

    Days, runs, the API, the daemon, and where the data is.

    Exits with 1 if a service that is needed cannot be reached.
    """
    begin()
    from user_processing.cli import state as command

    raise typer.Exit(command.status())


@app.command()
def show() -> None:
    """Show what is in the table: rows per day and country."""
    begin()
    from user_processing.cli import stored as command

    command.show()


@app.command()
def psql() -> None:
    """Open psql on the users' database."""
    typed_in = begin()
    from user_processing.cli import services as command

    raise typer.Exit(command.psql(typed_in))


@app.command(epilog=_examples("user-processing api --port 8000"))
def api(
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="NUMBER", help="Port to listen on; 0 for any that is free.")
    ] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    rate_limit: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Users per client address in five minutes; 0 for no limit.")
    ] = 0,
) -> None:
    """Run the stand-in for the API, until Ctrl-C."""
    from user_processing.cli import stand_in as command

    command.serve(host, port, rate_limit)


@app.command(epilog=_examples("user-processing dev --port 3001"))
def dev(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="NUMBER", help="Port of the UI on 127.0.0.1.")] = 3000,
) -> None:
    """Open the UI, and run what is scheduled and queued.

    The schedule, the sensor and the daemon run until Ctrl-C.
    """
    begin()
    from user_processing.cli import services as command

    command.dev(port)


@app.command()
def stop(
    *, idle: Annotated[bool, typer.Option("--idle", help="Only if nothing uses it; exits with 1 otherwise.")] = False
) -> None:
    """Stop the embedded Postgres, whoever uses it.

    The next command starts it again.
    """
    begin()
    from user_processing.cli import services as command

    command.stop(idle=idle)


@app.command()
def reset(*, yes: Yes = False) -> None:
    """Delete all data that is kept on this machine.

    That is the data folder: the embedded Postgres with all users and all runs, the files of the days, the logs.

    Asks before. Refuses while a command or a server uses the data. Databases and files elsewhere stay.
    """
    begin()
    from user_processing.cli import services as command

    command.reset(yes=yes)


@app.command(hidden=True)
def docs() -> None:
    """Write .env.example and the tables of settings and columns in README.md anew, in the checkout."""
    begin()
    from user_processing.cli import documents as command

    command.write()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command, and exit: 0 done, 1 failed, 2 cannot be understood, 130 interrupted."""
    prepare()
    with errors_in_a_line():
        app(arguments, prog_name="user-processing")
    sys.exit(0)


def _range(first: str | None, last: str | None) -> tuple[str, str]:
    """The first and the last day.

    Raises:
        CommandError: one of them lacks.
    """
    if first and last:
        return first, last
    which, missing = ("first", option("--from", "FROM=")) if last else ("last", option("--to", "TO="))
    raise CommandError(f"The {which} day ({missing}) is missing. A range has both; nothing was done.")

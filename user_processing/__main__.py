"""`python -m user_processing`: what the Makefile needs beside Dagster's own commands.

Shows what is stored, opens psql on it, stops the embedded Postgres, refuses days that cannot be. Nothing that Dagster
does itself.
"""

import argparse
import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import dagster as dg
from dotenv import load_dotenv
from psycopg2.extensions import make_dsn, parse_dsn

from user_processing import variables
from user_processing.cadence import CADENCE, NoSuchDaysError
from user_processing.embedded import postgres as embedded
from user_processing.resources.postgres import Postgres

_DAYS_SHOWN = 10
_COUNTRIES_SHOWN = 8


def show() -> None:
    """Print rows per day and country, and what to type next. No column that names or could open anything is read."""
    import pandas as pd  # noqa: PLC0415 - half a second that the other commands need not wait for

    postgres = Postgres()
    with postgres.transaction() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('users') IS NOT NULL")
        if cursor.fetchone() != (True,):
            _print(f"There is no table users yet: `make run` makes it in {postgres.address}")
            return
        cursor.execute("SELECT partition_date, country, count(*) FROM users GROUP BY partition_date, country")
        counts = pd.DataFrame(cursor.fetchall(), columns=["day", "country", "users"])
    counts["day"] = counts["day"].map(lambda day: day or "no day")
    _print(f"{counts['users'].sum():,} users of {counts['day'].nunique():,} days are in {postgres.address}")
    if counts.empty:
        return
    table = counts.pivot_table(index="day", columns="country", values="users", aggfunc="sum", fill_value=0, sort=True)
    biggest = table.sum().sort_values(ascending=False, kind="stable").index
    shown = table[list(biggest[:_COUNTRIES_SHOWN])].copy()
    if len(biggest) > _COUNTRIES_SHOWN:
        shown["others"] = table[list(biggest[_COUNTRIES_SHOWN:])].sum(axis=1)
    shown.insert(0, "users", table.sum(axis=1))
    shown.columns.name = None
    shown.index.name = None
    hidden = max(len(shown) - _DAYS_SHOWN, 0)
    _print("", shown.tail(_DAYS_SHOWN).to_string(), *([f"… and {hidden:,} days before."] if hidden else []))
    _print(
        "",
        "Next:",
        "  make dev     the UI on http://127.0.0.1:3000: materialize a day, launch a backfill",
        "  make run FROM=2023-01-01 TO=2023-01-31",
        "  make psql    the database",
        "  make help    everything else",
    )


def psql() -> int:
    """Run psql on the users' database; returns its exit code."""
    url = variables.service("USERS_POSTGRES_URL")
    program = "psql" if url else str(embedded.binary("psql"))
    dsn = parse_dsn(url or embedded.dsn("users"))
    # Everybody can read a command line.
    password = {"PGPASSWORD": dsn.pop("password")} if "password" in dsn else {}
    # Ctrl-C is for psql; this process stays, since the embedded server runs for as long as it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return subprocess.call([program, make_dsn(**dsn)], env={**os.environ, **password})


def stop() -> None:
    """Stop the embedded Postgres, whoever uses it."""
    embedded.stop()


def check_days(first: str, last: str) -> None:
    """Refuse days that are none, not over yet, or the wrong way round."""
    CADENCE.between(first, last, dt.datetime.now(dt.UTC))


def newest_day() -> None:
    """Print the newest day that is due."""
    due = CADENCE.due(dt.datetime.now(dt.UTC))
    if not due:
        message = f"No day is due yet: the first is {CADENCE.first_day}."
        raise NoSuchDaysError(message)
    _print(due[-1])


def main() -> None:
    """Read the command line."""
    commands: dict[str, Callable[..., int | None]] = {
        "show": show,
        "psql": psql,
        "stop": stop,
        "check-days": check_days,
        "newest-day": newest_day,
    }
    parser = argparse.ArgumentParser(prog="python -m user_processing", description=__doc__)
    parser.add_argument("command", choices=commands)
    parser.add_argument("days", nargs="*", help="for check-days: the first and the last day, YYYY-MM-DD")
    options = parser.parse_args()
    if len(options.days) != (2 if options.command == "check-days" else 0):
        parser.error("check-days takes two days, the other commands take none")
    load_dotenv(".env")
    try:
        sys.exit(commands[options.command](*options.days))
    except NoSuchDaysError as error:
        sys.exit(str(error))
    except (dg.Failure, embedded.EmbeddedPostgresError) as error:
        sys.exit(str(error.description if isinstance(error, dg.Failure) else error))


def _print(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()

"""`user-processing show`: what is in the table. No column that names or could open anything is read."""

from collections import defaultdict

from user_processing.cli.output import command, count, say, table
from user_processing.store import tables
from user_processing.store.postgres import Postgres

_DAYS_SHOWN = 10
_COUNTRIES_SHOWN = 8


def show() -> None:
    """Print rows per day and country, and what to type next."""
    postgres = Postgres()
    with postgres.transaction() as connection, connection.cursor() as cursor:
        if not tables.is_there(connection, "users"):
            say(f"There is no table users yet: `{command('run')}` makes it in {postgres.address}")
            return
        cursor.execute("SELECT partition_date, country, count(*) FROM users GROUP BY partition_date, country")
        counts = cursor.fetchall()
    days: dict[str, dict[str, int]] = defaultdict(dict)
    countries: dict[str, int] = defaultdict(int)
    for day, country, users in counts:
        # Rows that were in the table before this pipeline took it over belong to none; they come last.
        days[day.isoformat() if day else "no day"][country] = users
        countries[country] += users
    say(f"{count(sum(countries.values()), 'user')} of {count(len(days), 'day')}, in {postgres.address}")
    if not days:
        return
    biggest = sorted(countries, key=lambda country: (-countries[country], country))
    shown, others = biggest[:_COUNTRIES_SHOWN], biggest[_COUNTRIES_SHOWN:]
    rows = [
        (
            day,
            sum(users.values()),
            *(users.get(country, 0) for country in shown),
            *([sum(users.get(country, 0) for country in others)] if others else []),
        )
        for day, users in sorted(days.items())
    ]
    say("")
    table(["day", "users", *shown, *(["others"] if others else [])], rows[-_DAYS_SHOWN:])
    if len(rows) > _DAYS_SHOWN:
        say(f"… and {count(len(rows) - _DAYS_SHOWN, 'day')} before.")
    ranges = command("run --from 2023-01-01 --to 2023-01-31", "run FROM=2023-01-01 TO=2023-01-31")
    say(
        "",
        "Next:",
        f"  {command('dev')}     the UI on http://127.0.0.1:3000: materialize a day, launch a backfill",
        f"  {ranges}",
        f"  {command('psql')}    the database",
        f"  {command('--help', 'help')}    everything else",
    )

"""The tables, and every statement on them: `users`, the ledger `user_loads`, the quarantine `rejected_users`.

Functions of an open transaction; who opens and commits it is not known here. How the tables came to be what they are is
in `migrations`.
"""

import contextlib
import datetime as dt
import hashlib
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import BinaryIO

import msgspec
import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class in lower case
from psycopg2.extras import execute_values

from user_processing.columns import COLUMNS, NAMES, Column
from user_processing.store import migrations
from user_processing.store.manifests import CsvManifest

# The namespace of this pipeline's advisory locks, with the day's ordinal as second key; 0 is the tables themselves.
_LOCKS = 0x75736572
_COPY_CHUNK = 1024 * 1024  # bytes


def _copy_users(columns: Sequence[Column]) -> str:
    names = ", ".join(column.name for column in columns)
    # An empty field is an empty string, not NULL, in every column of text.
    texts = ", ".join(column.name for column in columns if column.type == "text")
    return f"COPY users ({names}) FROM STDIN WITH (FORMAT csv, ENCODING 'UTF8', FORCE_NOT_NULL ({texts}))"


_COPY_USERS = _copy_users(COLUMNS)


class LoadError(ValueError):
    """What was about to be stored for a day is not what was announced; the transaction has to be given up."""


class LedgerEntry(msgspec.Struct, frozen=True):
    """What the ledger says of one day."""

    rows: int
    rejected: int
    csv_sha256: str
    loaded_at: dt.datetime


def create_tables(connection: Connection) -> str:
    """Bring the tables to the newest version; take over a `users` table that an Airflow pipeline filled.

    Does nothing, and needs no right to create anything, where they have it. Processes that come at once wait for each
    other: without the lock, CREATE TABLE IF NOT EXISTS failed in 271 of 320 tries of eight threads.

    Returns:
        The full name of `users`: database.schema.table.

    Raises:
        migrations.TableError: they cannot be used, or not be brought there.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [_LOCKS])
    migrations.upgrade(connection, (*NAMES, "partition_date"))
    return full_name(connection)


def full_name(connection: Connection) -> str:
    """The full name of `users`, which has to be there: database.schema.table."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_database(), relnamespace::regnamespace FROM pg_class WHERE oid = 'users'::regclass"
        )
        return f"{'.'.join(cursor.fetchone() or ())}.users"


def is_there(connection: Connection, table: str) -> bool:
    """Whether there is a table of this name."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [table])
        return cursor.fetchone() == (True,)


def replace_day(connection: Connection, day: str, csv: BinaryIO, manifest: CsvManifest, *, run_id: str) -> None:
    """Put the users of `csv` in the place of whatever is stored for the day, and write the ledger.

    All of it belongs to the caller's transaction. Runs of one day wait for each other: without the lock two of them
    doubled the day in 18 of 20 trials.

    Args:
        connection: an open transaction.
        day: whose users they are, YYYY-MM-DD.
        csv: lines of the columns, without header.
        manifest: what is announced of `csv`.
        run_id: the Dagster run, for the ledger.

    Raises:
        LoadError: rows or digest are not those announced.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_LOCKS, dt.date.fromisoformat(day).toordinal()])
        cursor.execute("DELETE FROM users WHERE partition_date = %s", [day])
        cursor.execute("SELECT set_config('user_processing.partition_date', %s, true)", [day])
        digesting = _Digesting(csv)
        try:
            with suppressed_copy_excepthook():
                # Its types ask for a method readline too, which COPY does not call.
                cursor.copy_expert(_COPY_USERS, digesting, size=_COPY_CHUNK)  # type: ignore[arg-type]
        except psycopg2.DataError:
            # It breaks off within a line, say: then it is not what was announced, whatever Postgres calls that.
            while digesting.read(_COPY_CHUNK):
                pass
            if digesting.sha256.hexdigest() == manifest.csv_sha256:
                raise
            raise LoadError("COPY cannot read the CSV, and its digest is not the one announced") from None
        if (cursor.rowcount, digesting.sha256.hexdigest()) != (manifest.rows, manifest.csv_sha256):
            raise LoadError(
                f"the CSV holds {cursor.rowcount:,} rows with sha256 {digesting.sha256.hexdigest()[:12]}…, "
                f"announced are {manifest.rows:,} with {manifest.csv_sha256[:12]}…"
            )
        cursor.execute("DELETE FROM rejected_users WHERE partition_date = %s", [day])
        execute_values(
            cursor,
            "INSERT INTO rejected_users (partition_date, page, position, reason) VALUES %s",
            [(day, rejection.page, rejection.position, rejection.reason) for rejection in manifest.rejected],
        )
        cursor.execute(
            "INSERT INTO user_loads (partition_date, users_requested, rows, rejected, csv_sha256, run_id) "
            "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (partition_date) DO UPDATE SET "
            "users_requested = excluded.users_requested, rows = excluded.rows, rejected = excluded.rejected, "
            "csv_sha256 = excluded.csv_sha256, run_id = excluded.run_id, loaded_at = excluded.loaded_at",
            [day, manifest.users_requested, manifest.rows, len(manifest.rejected), manifest.csv_sha256, run_id],
        )


class Counts(msgspec.Struct, frozen=True):
    """What is stored of a day."""

    rows: int = 0
    rejected: int = 0
    bad_emails: int = 0
    bad_usernames: int = 0


_COUNT = r"""
SELECT partition_date, coalesce(stored.rows, 0), coalesce(rejected.rows, 0), coalesce(bad_emails, 0),
       coalesce(bad_usernames, 0)
FROM (
    SELECT partition_date, count(*) AS rows,
           count(*) FILTER (WHERE email !~ '^[^@\s]+@[^@\s]+\.[^@\s]+$') AS bad_emails,
           count(*) FILTER (WHERE username !~ '^\S+$') AS bad_usernames
    FROM users
    WHERE partition_date IS NOT NULL AND (%(days)s::date[] IS NULL OR partition_date = ANY (%(days)s::date[]))
    GROUP BY partition_date
) AS stored
FULL JOIN (
    SELECT partition_date, count(*) AS rows
    FROM rejected_users
    WHERE %(days)s::date[] IS NULL OR partition_date = ANY (%(days)s::date[])
    GROUP BY partition_date
) AS rejected USING (partition_date)"""


def count(connection: Connection, days: Iterable[str] | None) -> dict[str, Counts]:
    """Count what is stored of these days, or of all of them; a day of which nothing is stored is left out."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, {"days": None if days is None else list(days)})
        return {day.isoformat(): Counts(*numbers) for day, *numbers in cursor.fetchall()}


def ledger(connection: Connection) -> dict[str, LedgerEntry]:
    """What the ledger says of every day; nothing while there is no ledger.

    Only columns are read that every version of it has: the sensor has to see the days before the run that it asks for
    brings the tables to this code's version.
    """
    if not is_there(connection, "user_loads"):
        return {}
    with connection.cursor() as cursor:
        cursor.execute("SELECT partition_date, rows, rejected, csv_sha256, loaded_at FROM user_loads")
        return {day.isoformat(): LedgerEntry(*entry) for day, *entry in cursor.fetchall()}


def stored_since(connection: Connection, moment: dt.datetime) -> set[str]:
    """The days that were stored at this moment or later."""
    return {day for day, entry in ledger(connection).items() if entry.loaded_at >= moment}


@contextlib.contextmanager
def suppressed_copy_excepthook() -> Iterator[None]:
    """Keep psycopg2 from printing, in this thread, why the server ended the connection in the middle of COPY.

    Two errors come then; psycopg2 raises the second and gives the first to `sys.excepthook`. It quotes a row.
    """
    hook, thread, copying = sys.excepthook, threading.get_ident(), True

    def others_only(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not copying or threading.get_ident() != thread:
            hook(kind, error, trace)

    sys.excepthook = others_only
    try:
        yield
    finally:
        copying = False
        # Another thread may have put its own on top; that one asks this one then.
        if sys.excepthook is others_only:
            sys.excepthook = hook


class _Digesting:
    """A reader that takes the digest of what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self.sha256.update(chunk)
        return chunk

"""The tables, and every statement on them: `users`, the ledger `user_loads`, the quarantine `rejected_users`.

Functions of an open transaction; who opens and commits it is not known here. A day is named by a `date`.
"""

import contextlib
import datetime as dt
import hashlib
import sys
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import BinaryIO

import msgspec
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class in lower case
from psycopg2.extras import execute_values

from user_processing.users import COLUMNS, Rejection

# The namespace of this pipeline's advisory locks, with the day's ordinal as second key; 0 is the tables themselves.
_LOCKS = 0x75736572
_COPY_CHUNK = 1024 * 1024  # bytes

# A row's day comes from a setting of the transaction, so that COPY can take the six columns of the CSV as they are.
# A connection that has no such setting, the old pipeline's for one, gives NULL: the row belongs to no day.
_DAY_DEFAULT = "NULLIF(current_setting('user_processing.partition_date', true), '')::date"

_CREATE_USERS = f"""
CREATE TABLE users (
    firstname TEXT NOT NULL,
    lastname TEXT NOT NULL,
    country TEXT NOT NULL,
    username TEXT NOT NULL,
    password TEXT NOT NULL,
    email TEXT NOT NULL,
    partition_date DATE DEFAULT {_DAY_DEFAULT}
)"""

# ADD COLUMN with a default would give the rows that are there a day; the default comes after them.
_TAKE_OVER_USERS = f"""
ALTER TABLE users ADD COLUMN partition_date DATE;
ALTER TABLE users ALTER COLUMN partition_date SET DEFAULT {_DAY_DEFAULT}"""

# BRIN: a day's rows lie together. 500,000 rows load in 1.1 s with it, in 1.4 s with a btree.
_INDEX_USERS = (
    "CREATE INDEX IF NOT EXISTS users_partition_date ON users USING brin (partition_date) WITH (autosummarize = on)"
)

_CREATE_LOADS = """
CREATE TABLE user_loads (
    partition_date DATE PRIMARY KEY,
    users_asked BIGINT NOT NULL,
    rows BIGINT NOT NULL,
    rejected BIGINT NOT NULL,
    csv_sha256 TEXT NOT NULL,
    run_id TEXT NOT NULL,
    loaded_at TIMESTAMPTZ NOT NULL DEFAULT now()
)"""

_CREATE_REJECTED = """
CREATE TABLE rejected_users (
    partition_date DATE NOT NULL,
    page INTEGER NOT NULL,
    position INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (partition_date, page, position)
)"""

_COPY_USERS = (
    f"COPY users ({', '.join(COLUMNS)}) FROM STDIN "
    # An empty field is an empty string, not NULL, in every column.
    f"WITH (FORMAT csv, ENCODING 'UTF8', FORCE_NOT_NULL ({', '.join(COLUMNS)}))"
)


class TableError(ValueError):
    """A table in the database is not one that this pipeline can use."""


class LoadError(ValueError):
    """What was about to be stored for a day is not what was announced; the transaction has to be given up."""


class Load(msgspec.Struct, frozen=True):
    """One day as it is announced by its files: what the ledger will say of it."""

    users_asked: int
    rows: int
    csv_sha256: str
    rejected: Sequence[Rejection] = ()


def create_tables(connection: Connection) -> str:
    """Make sure that the three tables are there; take over a `users` table that an Airflow pipeline filled.

    Does nothing, and needs no right to create anything, where they are. Processes that come at once wait for each
    other: without the lock, CREATE TABLE IF NOT EXISTS failed in 271 of 320 tries of eight threads.

    Returns:
        The full name of `users`: database.schema.table.

    Raises:
        TableError: there is a table of this name with other columns.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [_LOCKS])
        columns = _columns(connection, "users")
        if not columns:
            cursor.execute(_CREATE_USERS)
        elif columns == list(COLUMNS):
            cursor.execute(_TAKE_OVER_USERS)
        elif columns[: len(COLUMNS) + 1] != [*COLUMNS, "partition_date"]:
            message = (
                f"The table users has the columns {', '.join(columns)}; expected {', '.join(COLUMNS)} "
                "(and partition_date, which is added where it is missing). Rename the table, or let the connection "
                "string name another database or schema (options=-csearch_path=…). Nothing was changed."
            )
            raise TableError(message)
        if columns != [*COLUMNS, "partition_date"]:
            cursor.execute(_INDEX_USERS)
        if not _columns(connection, "user_loads"):
            cursor.execute(_CREATE_LOADS)
        if not _columns(connection, "rejected_users"):
            cursor.execute(_CREATE_REJECTED)
    return full_name(connection)


def full_name(connection: Connection) -> str:
    """The full name of `users`, which has to be there: database.schema.table."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_database(), relnamespace::regnamespace FROM pg_class WHERE oid = 'users'::regclass"
        )
        return f"{'.'.join(cursor.fetchone() or ())}.users"


def _columns(connection: Connection, table: str) -> list[str]:
    """The columns of a table on the search path, in order; none if there is no such table."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped "
            "ORDER BY attnum",
            [table],
        )
        return [name for (name,) in cursor.fetchall()]


def replace_day(connection: Connection, day: dt.date, csv: BinaryIO, load: Load, *, run_id: str) -> None:
    """Put the users of `csv` in the place of whatever is stored for the day, and write the ledger.

    All of it belongs to the caller's transaction. Runs of one day wait for each other: without the lock two of them
    doubled the day in 18 of 20 trials.

    Args:
        connection: an open transaction.
        day: whose users they are.
        csv: lines of the six columns, without header.
        load: what is announced of `csv`.
        run_id: the Dagster run, for the ledger.

    Raises:
        LoadError: rows or digest are not those announced.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_LOCKS, day.toordinal()])
        cursor.execute("DELETE FROM users WHERE partition_date = %s", [day])
        cursor.execute("SELECT set_config('user_processing.partition_date', %s, true)", [day.isoformat()])
        digesting = _Digesting(csv)
        with _no_last_words():
            cursor.copy_expert(_COPY_USERS, digesting, size=_COPY_CHUNK)
        if (cursor.rowcount, digesting.sha256.hexdigest()) != (load.rows, load.csv_sha256):
            message = (
                f"the CSV holds {cursor.rowcount:,} rows with sha256 {digesting.sha256.hexdigest()[:12]}…, "
                f"announced are {load.rows:,} with {load.csv_sha256[:12]}…"
            )
            raise LoadError(message)
        cursor.execute("DELETE FROM rejected_users WHERE partition_date = %s", [day])
        execute_values(
            cursor,
            "INSERT INTO rejected_users (partition_date, page, position, reason) VALUES %s",
            [(day, rejection.page, rejection.position, rejection.reason) for rejection in load.rejected],
        )
        cursor.execute(
            "INSERT INTO user_loads (partition_date, users_asked, rows, rejected, csv_sha256, run_id) "
            "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (partition_date) DO UPDATE SET "
            "users_asked = excluded.users_asked, rows = excluded.rows, rejected = excluded.rejected, "
            "csv_sha256 = excluded.csv_sha256, run_id = excluded.run_id, loaded_at = excluded.loaded_at",
            [day, load.users_asked, load.rows, len(load.rejected), load.csv_sha256, run_id],
        )


class Counts(msgspec.Struct, frozen=True):
    """What is stored of a day."""

    rows: int
    rejected: int
    bad_emails: int
    bad_usernames: int


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


def count(connection: Connection, days: Sequence[dt.date] | None) -> dict[dt.date, Counts]:
    """Count what is stored of these days, or of all of them; a day of which nothing is stored is left out."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, {"days": None if days is None else list(days)})
        return {day: Counts(*numbers) for day, *numbers in cursor.fetchall()}


def ledger(connection: Connection) -> dict[dt.date, Load]:
    """What the ledger says of every day, without the rejections themselves; nothing while there is no ledger."""
    if not _columns(connection, "user_loads"):
        return {}
    with connection.cursor() as cursor:
        cursor.execute("SELECT partition_date, users_asked, rows, csv_sha256 FROM user_loads")
        return {day: Load(users_asked, rows, digest) for day, users_asked, rows, digest in cursor.fetchall()}


def loaded_at(connection: Connection) -> dict[dt.date, dt.datetime]:
    """When each day of the ledger was stored; nothing while there is no ledger."""
    if not _columns(connection, "user_loads"):
        return {}
    with connection.cursor() as cursor:
        cursor.execute("SELECT partition_date, loaded_at FROM user_loads")
        return dict(cursor.fetchall())


@contextlib.contextmanager
def _no_last_words() -> Iterator[None]:
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

    def readline(self, size: int = -1) -> bytes:
        """Asked for by psycopg2's types, not by COPY."""
        line = self._file.readline(size)
        self.sha256.update(line)
        return line

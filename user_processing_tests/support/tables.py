"""Rows in the three tables, as the pipeline writes them, and the days that the ledger says are stored."""

import datetime as dt
import hashlib
import io
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import psycopg2
from psycopg2.extras import execute_values

from user_processing.columns import COLUMNS
from user_processing.store import migrations, tables
from user_processing.store.manifests import CsvManifest
from user_processing_tests.support.recorded_api import RECORDED

DAY = "2023-01-01"

FORMER = {name: (RECORDED / f"tables-{name}.sql").read_text() for name in ("airflow", "0.1.0")}
"""Tables that an earlier pipeline made, with rows in them, as pg_dump wrote them."""

VERSIONS = Path(migrations.__file__).parent / "versions"
NEWEST = max(path.name[1:5] for path in VERSIONS.glob("m*.py"))


def create(database: str) -> str:
    with closing(psycopg2.connect(database)) as connection, connection:
        return tables.create_tables(connection)


def lines(*firstnames: str) -> bytes:
    """A line of CSV for each name, which has all columns."""
    values = ["1" if column.type == "integer" else column.name for column in COLUMNS[1:]]
    return b"".join(",".join([name, *values, "\n"]).encode().replace(b",\n", b"\n") for name in firstnames)


def store(database: str, csv: bytes, day: str = DAY, *, rows: int | None = None, digest: str | None = None) -> None:
    announced = csv.count(b"\n") if rows is None else rows
    manifest = CsvManifest(announced, announced, digest or hashlib.sha256(csv).hexdigest())
    with closing(psycopg2.connect(database)) as connection, connection:
        tables.replace_day(connection, day, io.BytesIO(csv), manifest, run_id="a run")


def say_stored(database: str, days: Iterable[str], *, at: dt.datetime | None = None) -> None:
    """Let the ledger say that these days are stored with one user each, without storing one."""
    with closing(psycopg2.connect(database)) as connection, connection, connection.cursor() as cursor:
        execute_values(
            cursor,
            "INSERT INTO user_loads (partition_date, users_requested, rows, rejected, csv_sha256, run_id, loaded_at) "
            "VALUES %s ON CONFLICT (partition_date) DO UPDATE SET loaded_at = excluded.loaded_at",
            [(day, at) for day in days],
            template="(%s, 1, 1, 0, '', '', coalesce(%s, now()))",
        )

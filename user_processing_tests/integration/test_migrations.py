"""The versions of the tables: from nothing, from every earlier state, many at once, and what is refused."""

import datetime as dt
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import sqlalchemy
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext

from user_processing.columns import COLUMNS
from user_processing.store import migrations, tables
from user_processing_tests.support.checkout import ROOT
from user_processing_tests.support.recorded_api import Row
from user_processing_tests.support.tables import DAY, FORMER, NEWEST, create, lines, store

Query = Callable[..., list[Row]]
TYPES: dict[str, Any] = {"text": sqlalchemy.Text(), "integer": sqlalchemy.Integer()}

# All that a table is, whatever order its columns came in; `users` is shown by name in any case.
SHAPE = """
SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid IN ('users'::regclass, 'user_loads'::regclass, 'rejected_users'::regclass, %s::regclass)
  AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT tablename, indexname, indexdef, NULL, NULL FROM pg_indexes WHERE schemaname = 'public'
ORDER BY 1, 2"""


def refused(database: str) -> str:
    with pytest.raises(migrations.TableError) as caught:
        create(database)
    return str(caught.value)


def everything(query: Query) -> list[Row]:
    """Every row and column that was there before any migration, and the rows' own places."""
    return [
        *query("SELECT firstname, lastname, country, username, password, email, ctid::text FROM users ORDER BY ctid"),
        *query("SELECT partition_date, rows, rejected, csv_sha256, run_id, loaded_at FROM user_loads ORDER BY 1"),
        *query("SELECT partition_date, page, position, reason FROM rejected_users ORDER BY 1, 2, 3"),
    ]


def test_the_seed_s_six_columns_come_first_and_none_may_be_null(database: str, query: Query) -> None:
    assert create(database).endswith(".public.users")
    columns = query(
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_name = 'users' ORDER BY ordinal_position"
    )
    assert columns[:7] == [
        *((column, "text", "NO") for column in ("firstname", "lastname", "country", "username", "password", "email")),
        ("partition_date", "date", "YES"),
    ]


def test_the_migrations_lead_to_the_columns_of_the_list(database: str) -> None:
    with closing(psycopg2.connect(database)) as connection, connection:
        migrations.upgrade(connection, [column.name for column in COLUMNS if not column.nullable])
    listed = sqlalchemy.MetaData()
    sqlalchemy.Table(
        "users",
        listed,
        *(sqlalchemy.Column(c.name, TYPES[c.type], nullable=c.nullable) for c in COLUMNS),
        sqlalchemy.Column("partition_date", sqlalchemy.Date),
        sqlalchemy.Index("users_partition_date", "partition_date", postgresql_using="brin"),
    )
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://", creator=lambda: psycopg2.connect(database), poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as bind:
        context = MigrationContext.configure(
            bind,
            opts={"include_name": lambda name, kind, _: kind != "table" or name == "users"},
        )
        operations = produce_migrations(context, listed).upgrade_ops
    assert operations
    assert operations.is_empty(), (
        f"The list in columns.py and the tables differ. Add a migration to store/migrations/versions that does:\n"
        f"{render_python_code(operations)}"
    )


def test_the_table_of_the_old_pipeline_is_taken_over_with_its_rows(database: str, query: Query) -> None:
    query(FORMER["airflow"])
    before = query("SELECT firstname, lastname, country, username, password, email, ctid::text FROM users")
    create(database)
    create(database)
    assert everything(query) == before
    store(database, lines("new"))
    assert query("SELECT firstname, partition_date FROM users ORDER BY ctid") == [
        *[("a", None), ("", None), ("a", None)],
        ("new", dt.date.fromisoformat(DAY)),
    ]


def test_tables_of_0_1_0_are_migrated_without_losing_or_changing_a_row(database: str, query: Query) -> None:
    query(FORMER["0.1.0"])
    before = everything(query)
    asked = query("SELECT partition_date, users_asked FROM user_loads ORDER BY 1")
    days = query("SELECT partition_date FROM users ORDER BY ctid")
    create(database)
    assert everything(query) == before
    assert len(before) == 8 + 3 + 1
    assert query("SELECT partition_date, users_requested FROM user_loads ORDER BY 1") == asked
    assert query("SELECT partition_date FROM users ORDER BY ctid") == days


@pytest.mark.parametrize("former", FORMER)
def test_every_way_leads_to_the_same_tables(database: str, query: Query, former: str) -> None:
    create(database)
    new = query(SHAPE, [migrations.VERSION_TABLE])
    query("DROP TABLE users, user_loads, rejected_users, user_api_requests, user_processing_version")
    query(FORMER[former])
    create(database)
    assert query(SHAPE, [migrations.VERSION_TABLE]) == new
    assert query("SELECT version_num FROM user_processing_version") == [(NEWEST,)]


@pytest.mark.parametrize("former", [None, *FORMER])
def test_many_processes_create_or_migrate_the_tables_at_once(database: str, query: Query, former: str | None) -> None:
    if former:
        query(FORMER[former])
    rows = query("SELECT count(*) FROM users")[0][0] if former else 0
    start = threading.Barrier(8)

    def one(_: int) -> str:
        start.wait()
        return create(database)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(8)))) == 1
    assert query("SELECT count(*) FROM users") == [(rows,)]
    assert query("SELECT version_num FROM user_processing_version") == [(NEWEST,)]


def test_a_migration_belongs_to_the_transaction_of_its_caller(database: str, query: Query) -> None:
    """What came before it in the transaction stays, and all of it goes when the transaction is given up."""
    query(FORMER["0.1.0"])
    with closing(psycopg2.connect(database)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE mine (id INTEGER)")
            tables.create_tables(connection)
            cursor.execute("SELECT to_regclass('mine') IS NOT NULL, count(users_requested) FROM user_loads")
            assert cursor.fetchall() == [(True, 3)]
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
            assert cursor.fetchall() == [(1,)], "others would come in before the commit"
        assert not connection.closed
        connection.rollback()
    assert query("SELECT to_regclass('mine'), to_regclass('user_processing_version')") == [(None, None)]
    assert query("SELECT count(users_asked) FROM user_loads") == [(3,)]


def test_columns_are_known_by_name_and_others_are_let_be(database: str, query: Query) -> None:
    query(
        "CREATE TABLE users (id INTEGER GENERATED ALWAYS AS IDENTITY, email TEXT NOT NULL, password TEXT NOT NULL, "
        "note TEXT, username TEXT NOT NULL, country TEXT NOT NULL, source TEXT NOT NULL DEFAULT 'us', "
        "lastname TEXT NOT NULL, firstname TEXT NOT NULL)"
    )
    query(
        "INSERT INTO users (email, password, username, country, lastname, firstname) VALUES ('f','e','d','c','b','a')"
    )
    create(database)
    store(database, lines("new"))
    assert query("SELECT id, firstname, lastname, email, source, partition_date FROM users ORDER BY id") == [
        (1, "a", "b", "f", "us", None),
        (2, "new", "lastname", "email", "us", dt.date.fromisoformat(DAY)),
    ]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TABLE users (id INTEGER, firstname TEXT)", "missing: lastname, country, username, password, email."),
        (f"{FORMER['airflow']}; ALTER TABLE users DROP COLUMN email", "missing: email."),
        (
            f"{FORMER['airflow']}; DELETE FROM users; ALTER TABLE users ADD id SERIAL, ADD mine INTEGER NOT NULL",
            "without a default, though not ours and never empty: mine.",
        ),
    ],
)
def test_a_table_that_cannot_hold_users_is_refused_and_left_alone(
    database: str, query: Query, statement: str, said: str
) -> None:
    query(statement)
    columns = query("SELECT attname FROM pg_attribute WHERE attrelid = 'users'::regclass ORDER BY attnum")
    text = refused(database)
    assert said in text
    assert text.endswith("Nothing was changed.")
    assert query("SELECT attname FROM pg_attribute WHERE attrelid = 'users'::regclass ORDER BY attnum") == columns
    assert query("SELECT to_regclass('user_loads'), to_regclass('user_processing_version')") == [(None, None)]


def test_a_column_that_somebody_dropped_later_is_missed(database: str, query: Query) -> None:
    create(database)
    query("ALTER TABLE users DROP COLUMN country")
    assert "missing: country." in refused(database)


@pytest.mark.parametrize(
    "dropped", [*migrations.TABLES, "users, user_loads, rejected_users", ", ".join(migrations.TABLES)]
)
def test_a_table_that_somebody_dropped_is_made_again(database: str, query: Query, dropped: str) -> None:
    create(database)
    store(database, lines("kept"))
    new, before = query(SHAPE, [migrations.VERSION_TABLE]), everything(query)
    query(f"DROP TABLE {dropped}")
    create(database)
    assert query(SHAPE, [migrations.VERSION_TABLE]) == new
    assert query("SELECT version_num FROM user_processing_version") == [(NEWEST,)]
    left = everything(query)
    assert set(left) <= set(before)
    assert len(left) == len(before) - ("users" in dropped.split(", ")) - ("user_loads" in dropped)
    store(database, lines("new"))
    assert query("SELECT firstname FROM users") == [("new",)]


def test_a_newer_table_is_refused(database: str, query: Query) -> None:
    create(database)
    query("UPDATE user_processing_version SET version_num = '9999'")
    assert refused(database).startswith(
        f"The tables are of version 9999, which is newer than this code: it knows {NEWEST} and older. Install "
    )
    assert query("SELECT version_num FROM user_processing_version") == [("9999",)]


def test_the_way_back_to_0_1_0_is_as_documented(database: str, query: Query) -> None:
    query(FORMER["0.1.0"])
    shape, rows = query(SHAPE, ["users"]), everything(query)
    create(database)
    (statements,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "upgrading.md").read_text(), re.DOTALL)
    query(statements)
    # But for columns that later versions added, which may stay.
    assert set(shape) <= set(query(SHAPE, ["users"]))
    assert everything(query) == rows


def test_the_ledger_can_be_read_before_it_is_migrated(database: str, query: Query) -> None:
    """The sensor reads it before it asks for the run that migrates."""
    query(FORMER["0.1.0"])
    with closing(psycopg2.connect(database)) as connection:
        before = tables.ledger(connection)
        counts = tables.count(connection, None)
    create(database)
    with closing(psycopg2.connect(database)) as connection:
        assert tables.ledger(connection) == before
        assert tables.count(connection, None) == counts
    assert [(entry.rows, entry.rejected) for _, entry in sorted(before.items())] == [(3, 0), (3, 0), (1, 1)]

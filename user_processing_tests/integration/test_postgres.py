"""The database resource: libpq's own connection strings, one transaction a block, errors without values."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import psycopg2
import pytest

from user_processing.embedded import postgres as embedded
from user_processing.internals.storage import _with_driver
from user_processing.settings import SettingsError
from user_processing.store.postgres import DatabaseRefusedError, DatabaseUnavailableError, Postgres
from user_processing_tests.support.recorded_api import Row

Query = Callable[..., list[Row]]


@pytest.fixture
def postgres(database: str) -> Iterator[Postgres]:
    with dg.build_resources({"postgres": Postgres(url=database)}) as resources:
        yield resources.postgres


def test_a_block_that_ends_is_committed_and_one_that_raises_is_not(postgres: Postgres, query: Query) -> None:
    with postgres.transaction() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept (number INTEGER)")
    with pytest.raises(ZeroDivisionError), postgres.transaction() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO kept VALUES (1)")
        raise ZeroDivisionError
    assert query("SELECT count(*) FROM kept") == [(0,)]


def test_a_connection_that_broke_is_replaced(postgres: Postgres, query: Query) -> None:
    with postgres.transaction() as connection:
        pid = connection.info.backend_pid
    query("SELECT pg_terminate_backend(%s)", [pid])
    # What is told is why it broke, not that rolling back failed as well.
    with (
        pytest.raises(DatabaseUnavailableError, match=r"57P01 admin_shutdown|server closed the connection"),
        postgres.transaction() as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT 1")
    with postgres.transaction() as connection:
        assert connection.info.backend_pid != pid


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("INSERT INTO strict VALUES ('canary', NULL)", ["not_null_violation", "table strict", "column b"]),
        ("INSERT INTO strict VALUES ('canary', 'x'), ('canary', 'x')", ["unique_violation", "constraint strict_pkey"]),
        ("SELECT 'canary'::integer", ["invalid_text_representation"]),
        ("SELECT canary FROM", ["syntax_error"]),
    ],
)
def test_an_error_names_the_place_and_no_value(
    postgres: Postgres, query: Query, statement: str, said: list[str]
) -> None:
    query("CREATE TABLE strict (a TEXT PRIMARY KEY, b TEXT NOT NULL)")
    with (
        pytest.raises(DatabaseRefusedError) as caught,
        postgres.transaction() as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    assert all(part in str(caught.value.description) for part in said)
    assert "canary" not in str(caught.value.description)
    assert caught.value.allow_retries is False
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_error_of_copy_names_line_and_column(postgres: Postgres, query: Query, tmp_path: Path) -> None:
    query("CREATE TABLE numbers (a TEXT, b INTEGER)")
    lines = tmp_path / "lines.csv"
    lines.write_text("fine,1\ncanary,canary\n")
    with (
        lines.open("rb") as file,
        pytest.raises(DatabaseRefusedError) as caught,
        postgres.transaction() as connection,
        connection.cursor() as cursor,
    ):
        cursor.copy_expert("COPY numbers FROM STDIN (FORMAT csv)", file)
    assert "COPY numbers, line 2, column b" in str(caught.value.description)
    assert "canary" not in str(caught.value.description)


def test_an_error_that_quotes_no_value_is_told_whole(postgres: Postgres) -> None:
    with (
        pytest.raises(DatabaseRefusedError, match='relation "nowhere" does not exist'),
        postgres.transaction() as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("TABLE nowhere")


@pytest.mark.parametrize(
    ("statements", "said", "error"),
    [
        (["SET statement_timeout = 1", "SELECT pg_sleep(9)"], "57014 query_canceled; canceling statement due to", True),
        (
            ["SET search_path = nowhere", "CREATE TABLE users ()"],
            "3F000 invalid_schema_name; no schema has",
            False,
        ),
        (["CREATE TABLE nowhere.users ()"], '3F000 invalid_schema_name; schema "nowhere" does not exist', False),
        (["SELECT nowhere(1)"], "42883 undefined_function; function nowhere(integer) does not exist", False),
        (
            ["SET TRANSACTION READ ONLY", "CREATE TABLE users ()"],
            "25006 read_only_sql_transaction; cannot",
            False,
        ),
        (["DO $$ BEGIN RAISE SQLSTATE 'ABCDE' USING MESSAGE = 'canary'; END $$"], "SQLSTATE ABCDE", False),
    ],
)
def test_what_the_server_says_is_kept_where_it_can_hold_no_value(
    postgres: Postgres, statements: list[str], said: str, *, error: bool
) -> None:
    kind = DatabaseUnavailableError if error else DatabaseRefusedError
    with pytest.raises(kind) as caught, postgres.transaction() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    assert str(caught.value.description).startswith(f"Postgres refused: SQLSTATE {said.removeprefix('SQLSTATE ')}")
    assert "canary" not in str(caught.value.description)


def test_a_connection_that_is_cut_off_is_told_as_such(postgres: Postgres) -> None:
    """psycopg2 says "invalid socket", "SSL SYSCALL error: EOF detected" and the like."""
    with (
        pytest.raises(DatabaseUnavailableError, match="the server closed the connection before the"),
        postgres.transaction() as connection,
        connection.cursor() as cursor,
    ):
        with socket.socket(fileno=os.dup(connection.fileno())) as cut:
            cut.shutdown(socket.SHUT_RDWR)
        cursor.execute("SELECT 1")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_name_is_refused(server: Path, encoding: str) -> None:
    name = f"test_{encoding.lower()}"
    with closing(psycopg2.connect(embedded.dsn("postgres", server))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE_PROVIDER libc")
            with pytest.raises(DatabaseRefusedError) as caught, Postgres(url=embedded.dsn(name, server)).transaction():
                pass
            told = str(caught.value.description)
            assert f"has the encoding {encoding}; UTF8 is needed" in told
            # What it says to do is what helps.
            create = re.search(r"CREATE DATABASE .*?(?=,)", told)
            assert create
            cursor.execute(create.group())
    with Postgres(url=embedded.dsn(f"{name}_utf8", server)).transaction():
        pass


@pytest.mark.parametrize(
    ("url", "said", "error"),
    [
        (
            "host=/nowhere user=u password=canary dbname=users",
            "Postgres cannot be reached at /nowhere:5432",
            DatabaseUnavailableError,
        ),
        ("postgresql://u:canary@127.0.0.1:1/users", "refused", DatabaseUnavailableError),
        ("postgresql+psycopg2://u:canary@db/users", "field url of the resource postgres cannot be used", SettingsError),
        ("postgresql://u:half@canary@127.0.0.1:1/users", "percent-encoded, an @ as %40", SettingsError),
        ("postgresql://u:half/canary@127.0.0.1:1/users", "percent-encoded, an @ as %40", SettingsError),
    ],
)
def test_a_database_that_cannot_be_reached_is_told_without_the_password(
    url: str, said: str, error: type[dg.Failure]
) -> None:
    with pytest.raises(error) as caught, Postgres(url=url).transaction():
        pass
    assert said in str(caught.value.description)
    assert "canary" not in str(caught.value.description)


def test_the_connection_string_goes_to_libpq_untouched(server: Path, database: str) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    for url in (
        f"host={server} user=postgres dbname={name} options=-csearch_path=elsewhere",
        f"postgresql://postgres@/{name}?host={server}&options=-csearch_path%3Delsewhere&sslmode=disable",
    ):
        with Postgres(url=url).transaction() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW search_path")
            assert cursor.fetchall() == [("elsewhere",)]


def test_a_password_in_a_file_is_found_by_libpq(
    database: str, query: Query, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether libpq reads the file is what is shown here; the embedded server asks nobody for a password."""
    passwords = tmp_path / "pgpass"
    passwords.write_text("*:*:*:*:from-the-file\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    with Postgres(url=database).transaction() as connection:
        assert connection.info.password == "from-the-file"
    assert query("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://u:canary@db.example:6543/users?sslmode=require", "db.example:6543/users"),
        ("host=/run/postgresql@15 dbname=users", "/run/postgresql@15:5432/users"),
        ("host=::1 dbname=users", "[::1]:5432/users"),
        (None, f"the embedded Postgres in {embedded.default_folder()}. Set USERS_POSTGRES_URL to use another."),
    ],
)
def test_the_address_is_for_people_to_read(url: str | None, address: str) -> None:
    assert Postgres(url=url).address == address


@pytest.mark.parametrize(
    ("url", "with_driver"),
    [
        (
            "postgresql://u:p%40ss@db/dagster?sslmode=require",
            "postgresql+psycopg2://u:p%40ss@db/dagster?sslmode=require",
        ),
        ("postgres://u@db/dagster", "postgresql+psycopg2://u@db/dagster"),
        ("postgresql+psycopg2://u@db/dagster", "postgresql+psycopg2://u@db/dagster"),
    ],
)
def test_dagster_s_storage_is_reached_through_the_driver_that_is_installed(url: str, with_driver: str) -> None:
    assert _with_driver(url) == with_driver

"""The statements, on a real Postgres: taking over, replacing, and many at once."""

import datetime as dt
import hashlib
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from user_processing import tables, users
from user_processing_tests.conftest import Row

Query = Callable[..., list[Row]]
DAY = dt.date(2023, 1, 1)
SEED_TABLE = """CREATE TABLE users (
    firstname TEXT NOT NULL, lastname TEXT NOT NULL, country TEXT NOT NULL,
    username TEXT NOT NULL, password TEXT NOT NULL, email TEXT NOT NULL)"""


def create(database: str) -> str:
    with closing(psycopg2.connect(database)) as connection, connection:
        return tables.create_tables(connection)


def store(database: str, csv: bytes, day: dt.date = DAY, *, rows: int | None = None, digest: str | None = None) -> None:
    announced = csv.count(b"\n") if rows is None else rows
    load = tables.Load(announced, announced, digest or hashlib.sha256(csv).hexdigest())
    with closing(psycopg2.connect(database)) as connection, connection:
        tables.replace_day(connection, day, io.BytesIO(csv), load, run_id="a run")


def test_the_seed_s_six_columns_come_first_and_none_may_be_null(database: str, query: Query) -> None:
    assert create(database).endswith(".public.users")
    columns = query(
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_name = 'users' ORDER BY ordinal_position"
    )
    assert columns == [
        *((column, "text", "NO") for column in ("firstname", "lastname", "country", "username", "password", "email")),
        ("partition_date", "date", "YES"),
    ]


def test_the_table_of_the_old_pipeline_is_taken_over_with_its_rows(database: str, query: Query) -> None:
    query(SEED_TABLE)
    query("INSERT INTO users VALUES ('a', 'b', 'c', 'd', 'e', 'f'), ('', '', '', '', '', '')")
    create(database)
    create(database)
    store(database, b"1,2,3,4,5,6\n")
    assert query("SELECT * FROM users WHERE partition_date IS NULL ORDER BY 1") == [
        ("", "", "", "", "", "", None),
        ("a", "b", "c", "d", "e", "f", None),
    ]
    assert query("SELECT * FROM users WHERE partition_date IS NOT NULL") == [("1", "2", "3", "4", "5", "6", DAY)]


def test_the_old_pipeline_can_go_on_inserting(database: str, query: Query) -> None:
    create(database)
    with closing(psycopg2.connect(database)) as connection:
        with connection:
            tables.replace_day(
                connection,
                DAY,
                io.BytesIO(b""),
                tables.Load(0, 0, hashlib.sha256(b"").hexdigest()),
                run_id="a run",
            )
        # The same session: the setting is there, and empty.
        with connection, connection.cursor() as cursor:
            cursor.copy_expert(
                "COPY users (firstname, lastname, country, username, password, email) FROM STDIN",
                io.BytesIO(b"a\tb\tc\td\te\tf\n"),
            )
    assert query("SELECT partition_date FROM users") == [(None,)]


def test_many_processes_create_the_tables_at_once(database: str, query: Query) -> None:
    start = threading.Barrier(8)

    def one(_: int) -> str:
        start.wait()
        return create(database)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(8)))) == 1
    assert query("SELECT count(*) FROM users") == [(0,)]


def test_runs_of_one_day_at_once_store_it_once(database: str, query: Query) -> None:
    create(database)
    lines = b"".join(b"%d,b,c,d,e,f\n" % number for number in range(2000))
    start = threading.Barrier(6)

    def one(_: int) -> None:
        start.wait()
        store(database, lines)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(6)))
    assert query("SELECT count(*), count(DISTINCT firstname) FROM users") == [(2000, 2000)]
    assert query("SELECT rows FROM user_loads") == [(2000,)]


@pytest.mark.parametrize("announced", [{"rows": 3}, {"digest": "0" * 64}])
def test_a_csv_that_is_not_the_one_announced_is_not_stored(
    database: str, query: Query, announced: dict[str, object]
) -> None:
    create(database)
    store(database, b"old,b,c,d,e,f\n")
    with pytest.raises(tables.LoadError, match="announced"):
        store(database, b"new,b,c,d,e,f\nnew,b,c,d,e,f\n", **announced)  # type: ignore[arg-type]
    assert query("SELECT firstname FROM users") == [("old",)]
    assert query("SELECT rows FROM user_loads") == [(1,)]


def test_other_days_are_left_alone(database: str, query: Query) -> None:
    create(database)
    store(database, b"a,b,c,d,e,f\n", dt.date(2023, 1, 1))
    store(database, b"g,h,i,j,k,l\n", dt.date(2023, 1, 2))
    store(database, b"m,n,o,p,q,r\n", dt.date(2023, 1, 1))
    assert query("SELECT firstname, partition_date::text FROM users ORDER BY 2") == [
        ("m", "2023-01-01"),
        ("g", "2023-01-02"),
    ]


FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40) | st.sampled_from(
    [
        "",
        r"\N",
        r"\.",
        "a\n\\.\nb",
        "\\.\n",
        '"',
        '""',
        "a,b",
        "\r",
        "a\rb",
        "\r\n",
        "\n",
        "\t",
        " x ",
        "\ufeff",
        "\xa0",
        "NA",
        "None",
        "null",
        "NULL",
        "007",
        "שלום",
        "👩\u200d👩\u200d👧",
        "\\",
        "'",
        "x" * 1000000,
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(*[FIELD] * 6), min_size=1, max_size=5))
def test_what_the_api_sent_is_what_select_returns(database: str, query: Query, values: list[Row]) -> None:
    create(database)
    records = [
        users.User(users.Name(row[0], row[1]), users.Location(row[2]), users.Login(row[3], row[4]), row[5])
        for row in values
    ]
    store(database, users._csv(records, "plain"), rows=len(values))  # noqa: SLF001 - the CSV and nothing around it
    assert sorted(query("SELECT firstname, lastname, country, username, password, email FROM users")) == sorted(values)

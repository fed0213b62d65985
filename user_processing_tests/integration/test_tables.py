"""The statements, on a real Postgres: replacing days, and many at once."""

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

from user_processing.columns import COLUMNS, NAMES
from user_processing.source import contract
from user_processing.store import tables
from user_processing.store.manifests import CsvManifest
from user_processing_tests.support.recorded_api import Row
from user_processing_tests.support.tables import DAY, create, lines, store

Query = Callable[..., list[Row]]


def test_the_old_pipeline_can_go_on_inserting(database: str, query: Query) -> None:
    create(database)
    with closing(psycopg2.connect(database)) as connection:
        with connection:
            nothing = CsvManifest(0, 0, hashlib.sha256(b"").hexdigest())
            tables.replace_day(connection, DAY, io.BytesIO(b""), nothing, run_id="a run")
        # The same session: the setting is there, and empty.
        with connection, connection.cursor() as cursor:
            cursor.copy_expert(
                "COPY users (firstname, lastname, country, username, password, email) FROM STDIN",
                io.BytesIO(b"a\tb\tc\td\te\tf\n"),
            )
    assert query("SELECT partition_date FROM users") == [(None,)]


def test_runs_of_one_day_at_once_store_it_once(database: str, query: Query) -> None:
    create(database)
    csv = lines(*map(str, range(2000)))
    start = threading.Barrier(6)

    def one(_: int) -> None:
        start.wait()
        store(database, csv)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(6)))
    assert query("SELECT count(*), count(DISTINCT firstname) FROM users") == [(2000, 2000)]
    assert query("SELECT rows FROM user_loads") == [(2000,)]


@pytest.mark.parametrize("announced", [{"rows": 3}, {"digest": "0" * 64}])
def test_a_csv_that_is_not_the_one_announced_is_not_stored(
    database: str, query: Query, announced: dict[str, object]
) -> None:
    create(database)
    store(database, lines("old"))
    with pytest.raises(tables.LoadError, match="announced"):
        store(database, lines("new", "new"), **announced)  # type: ignore[arg-type]
    assert query("SELECT firstname FROM users") == [("old",)]
    assert query("SELECT rows FROM user_loads") == [(1,)]


def test_a_csv_that_breaks_off_within_a_line_is_not_the_one_announced(database: str, query: Query) -> None:
    create(database)
    csv = lines("whole", "cut")
    with pytest.raises(tables.LoadError, match="announced"):
        store(database, csv[: csv.rindex(b",")], rows=2, digest=hashlib.sha256(csv).hexdigest())
    assert query("SELECT count(*) FROM users") == [(0,)]


def test_a_csv_that_is_the_one_announced_and_cannot_be_read_is_an_error_of_postgres(database: str) -> None:
    create(database)
    with pytest.raises(psycopg2.errors.BadCopyFileFormat):
        store(database, lines("whole") + b"half,a line\n")


def test_other_days_are_left_alone(database: str, query: Query) -> None:
    create(database)
    store(database, lines("a"), "2023-01-01")
    store(database, lines("g"), "2023-01-02")
    store(database, lines("m"), "2023-01-01")
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


VALUES = {"text": FIELD, "integer": st.integers(-(2**31), 2**31 - 1)}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(*(VALUES[column.type] for column in COLUMNS)), min_size=1, max_size=5))
def test_what_the_api_sent_is_what_select_returns(database: str, query: Query, values: list[Row]) -> None:
    create(database)
    store(database, contract.write_rows(values), rows=len(values))
    assert sorted(query(f"SELECT {', '.join(NAMES)} FROM users")) == sorted(values)

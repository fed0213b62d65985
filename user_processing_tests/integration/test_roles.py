"""The three roles of the database: the pipeline runs as the loader, which can do no more than it needs."""

import subprocess
from collections.abc import Callable
from contextlib import closing

import psycopg2
import pytest

from user_processing.embedded import programs
from user_processing.store.postgres import Postgres
from user_processing_tests.support.checkout import ROOT
from user_processing_tests.support.pipeline import Pipeline
from user_processing_tests.support.recorded_api import Row
from user_processing_tests.support.tables import FORMER, NEWEST, create

ROLES = ROOT / "deploy" / "roles.sql"

Query = Callable[..., list[Row]]


DROP_ALL = (
    "DROP VIEW users_without_passwords; "
    "DROP TABLE users, user_loads, rejected_users, user_api_requests, user_processing_version"
)


@pytest.fixture
def roles(database: str, query: Query) -> None:
    """The roles, in a database whose tables the owner has made."""
    create(database)
    for _ in range(2):
        apply_roles(database)
    query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


def apply_roles(database: str) -> None:
    subprocess.run(
        [programs.binary("psql"), "--quiet", "--set=ON_ERROR_STOP=1", f"--file={ROLES}", database],
        check=True,
    )


def as_role(database: str, role: str) -> str:
    return f"{database}&options=-crole%3D{role}"


@pytest.mark.usefixtures("roles")
def test_the_pipeline_and_its_checks_run_as_the_loader(pipeline: Pipeline, database: str, query: Query) -> None:
    pipeline.postgres = Postgres(url=as_role(database, "users_loader"))
    for users in (5, 3):
        result = pipeline.run("2023-01-01", "2023-01-02", users_per_day=users)
        assert result.success
        assert pipeline.checked(result)["rows_match_ledger"].passed
    assert query("SELECT count(*) FROM users") == [(6,)]


@pytest.mark.usefixtures("roles")
@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("users_loader", "UPDATE users SET email = ''"),
        ("users_loader", "TRUNCATE users"),
        ("users_loader", "DROP TABLE users"),
        ("users_loader", "ALTER TABLE users ADD COLUMN more TEXT"),
        ("users_loader", "DELETE FROM user_loads"),
        ("users_loader", "CREATE TABLE more (id INTEGER)"),
        ("users_loader", "UPDATE user_processing_version SET version_num = '0001'"),
        ("users_reader", "SELECT password FROM users"),
        ("users_reader", "SELECT * FROM users"),
        ("users_reader", "SELECT * FROM rejected_users"),
        ("users_reader", "DELETE FROM users_without_passwords"),
        ("users_reader", "INSERT INTO user_loads DEFAULT VALUES"),
    ],
)
def test_a_role_can_do_no_more_than_it_needs(database: str, role: str, statement: str) -> None:
    with closing(psycopg2.connect(as_role(database, role))) as connection:
        with connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(statement)


@pytest.mark.usefixtures("roles")
def test_the_reader_sees_users_without_passwords(pipeline: Pipeline, database: str, query: Query) -> None:
    assert pipeline.run("2023-01-01").success
    with closing(psycopg2.connect(as_role(database, "users_reader"))) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM users_without_passwords")
            assert [column.name for column in cursor.description or ()] == [
                *("firstname", "lastname", "country", "username", "email", "partition_date")
            ]
            assert cursor.fetchall() == query(
                "SELECT firstname, lastname, country, username, email, partition_date FROM users"
            )


@pytest.mark.usefixtures("roles")
def test_the_owner_migrates_and_the_loader_is_told_that_it_cannot(
    pipeline: Pipeline, database: str, query: Query
) -> None:
    query(DROP_ALL)
    query(FORMER["0.1.0"])
    for table in ("users", "user_loads", "rejected_users"):
        query(
            f"ALTER TABLE {table} OWNER TO users_owner; GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO users_loader"
        )
    pipeline.postgres = Postgres(url=as_role(database, "users_loader"))
    result = pipeline.run("2023-01-01")
    assert pipeline.error(result).startswith(
        f"The tables are of no version yet, this code needs version {NEWEST}, and the role may not change them: "
        "permission denied for schema public. Let their owner materialize users_table once."
    )
    create(as_role(database, "users_owner"))
    assert "permission denied for table user_processing_version" in pipeline.error(pipeline.run("2023-01-01"))
    apply_roles(database)
    assert pipeline.run("2023-01-01").success
    assert query("SELECT users_requested FROM user_loads ORDER BY partition_date") == [(1,), (3,), (2,)]


@pytest.mark.usefixtures("roles")
def test_the_owner_can_make_new_tables(database: str, query: Query) -> None:
    query(DROP_ALL)
    create(as_role(database, "users_owner"))
    assert query("SELECT count(*) FROM users") == [(0,)]


def test_a_loader_without_tables_is_told_what_it_lacks(pipeline: Pipeline, database: str, query: Query) -> None:
    query("DO $$ BEGIN CREATE ROLE somebody; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    pipeline.postgres = Postgres(url=as_role(database, "somebody"))
    result = pipeline.run("2023-01-01")
    assert not result.success
    assert "permission denied for schema public" in pipeline.error(result)

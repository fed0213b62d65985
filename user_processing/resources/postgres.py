"""The database of the users, reached through `with postgres.transaction() as connection:` only.

The connection string goes to libpq untouched, so all that libpq knows works: TLS modes, `PGPASSFILE`, `options=`.
What psycopg2 raises is replaced here, since its messages quote rows and connection strings.
"""

import contextlib
import re
from collections.abc import Generator, Iterator
from typing import Any

import dagster as dg
import psycopg2
import psycopg2.errorcodes
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class in lower case
from psycopg2.extensions import parse_dsn
from pydantic import Field, PrivateAttr

from user_processing import variables
from user_processing.embedded import postgres as embedded

# Classes of SQLSTATE after which the same statement may succeed: connection exception, transaction rollback,
# insufficient resources, object not in prerequisite state, operator intervention.
_PASSING = frozenset({"08", "40", "53", "55", "57"})

# Errors whose primary message names tables, columns, roles and files only.
_WITHOUT_VALUES = frozenset(
    {
        psycopg2.errorcodes.INSUFFICIENT_PRIVILEGE,
        psycopg2.errorcodes.UNDEFINED_TABLE,
        psycopg2.errorcodes.UNDEFINED_COLUMN,
        psycopg2.errorcodes.DISK_FULL,
        psycopg2.errorcodes.LOCK_NOT_AVAILABLE,
        psycopg2.errorcodes.ADMIN_SHUTDOWN,
        psycopg2.errorcodes.CANNOT_CONNECT_NOW,
        psycopg2.errorcodes.READ_ONLY_SQL_TRANSACTION,
    }
)


class DatabaseUnavailableError(dg.Failure):
    """Postgres could not be reached, or gave up the transaction; nothing was stored, and later it may work."""


class DatabaseRefusedError(dg.Failure):
    """Postgres refused a statement, and would refuse it again; nothing was stored."""


class Postgres(dg.ConfigurableResource[Any]):
    """The Postgres database that holds the users."""

    url: str | None = Field(
        default=None,
        description="libpq connection string: postgresql://user@host/database?… or key=value pairs. "
        "Without it: USERS_POSTGRES_URL, or else the embedded Postgres.",
    )
    _connection: Connection | None = PrivateAttr(default=None)

    @contextlib.contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["Postgres"]:
        """Close at the end what `transaction` opened."""
        del context
        try:
            yield self
        finally:
            if self._connection is not None:
                self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back when it raises.

        Raises:
            DatabaseUnavailableError: no connection, or it broke, or the server ended the transaction.
            DatabaseRefusedError: the server refused a statement.
        """
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg2.connect(self._url() or embedded.dsn("users"))
            with self._connection as connection:
                yield connection
        except psycopg2.Error as error:
            # On a connection that broke within the block, rolling back fails too; what broke it came before.
            if isinstance(error, psycopg2.InterfaceError) and isinstance(error.__context__, psycopg2.Error):
                error = error.__context__
            raise _told(error, self._url()) from None

    @property
    def address(self) -> str:
        """Where the database is, for people to read: host, port and name."""
        url = self._url()
        if url is None:
            return f"the embedded Postgres in {embedded.FOLDER}. Set USERS_POSTGRES_URL to use another."
        dsn = _parsed(url)
        return f"{dsn.get('host', 'localhost')}:{dsn.get('port', 5432)}/{dsn.get('dbname', '')}"

    def _url(self) -> str | None:
        return self.url or variables.service("USERS_POSTGRES_URL")


def _parsed(url: str) -> dict[str, str]:
    try:
        parsed: dict[str, str] = parse_dsn(url)
    except psycopg2.ProgrammingError:
        message = (
            "The connection string of the database is none that libpq can read. It takes "
            "postgresql://user:password@host:port/database?sslmode=… (special characters percent-encoded) "
            "or host=… dbname=… user=…"
        )
        raise DatabaseRefusedError(message, allow_retries=False) from None
    return parsed


def _told(error: psycopg2.Error, url: str | None) -> dg.Failure:
    """The error without the values that psycopg2's own message quotes."""
    code = error.pgcode
    if code is None:
        text = str(error).strip()
        dsn = _parsed(url) if url else {}
        if "@" in dsn.get("host", ""):
            text = "the host holds an @. An @ in the password has to be written %40"
        if password := dsn.get("password"):
            text = text.replace(password, "…")
        message = f"Postgres cannot be reached: {text}"
        return DatabaseUnavailableError(message)
    facts = [f"SQLSTATE {code} {psycopg2.errorcodes.lookup(code).lower()}"]
    diagnosis = error.diag
    for name, value in (
        ("table", diagnosis.table_name),
        ("column", diagnosis.column_name),
        ("constraint", diagnosis.constraint_name),
    ):
        if value:
            facts.append(f"{name} {value}")
    # The context of a COPY error goes on after the column with the value that stood there.
    if place := re.search(r"COPY \S+, line \d+(, column \w+)?", diagnosis.context or ""):
        facts.append(place.group())
    if code in _WITHOUT_VALUES and diagnosis.message_primary:
        facts.append(diagnosis.message_primary)
    message = f"Postgres refused: {'; '.join(facts)}"
    if code[:2] in _PASSING:
        return DatabaseUnavailableError(message)
    return DatabaseRefusedError(message, allow_retries=False)

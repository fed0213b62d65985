"""The database of the users, reached through `with postgres.transaction() as connection:` only.

The connection string goes to libpq untouched, so all that libpq knows works: TLS modes, `PGPASSFILE`, `options=`.
What psycopg2 raises is replaced here, since its messages quote rows and connection strings.
"""

import contextlib
import re
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import dagster as dg
import psycopg2
import psycopg2.errorcodes
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class in lower case
from psycopg2.extensions import parse_dsn
from pydantic import Field, PrivateAttr

from user_processing import settings
from user_processing.days.work import OutageError, PermanentError
from user_processing.embedded import postgres as embedded
from user_processing.urls import check_postgres_url

# Classes of SQLSTATE after which the same statement may succeed: connection exception, transaction rollback,
# insufficient resources, object not in prerequisite state, operator intervention.
_PASSING = frozenset({"08", "40", "53", "55", "57"})

# Classes whose primary messages name tables, roles, settings and files, and hold nothing of a row: the ones above, and
# transaction state, authorization, catalog and schema names, limits, the operating system.
_CLASSES_WITHOUT_VALUES = _PASSING | {"25", "28", "3D", "3F", "54", "58"}
# Others of which the same holds. The rest of their classes quotes statements and values.
_WITHOUT_VALUES = frozenset(
    {
        psycopg2.errorcodes.INSUFFICIENT_PRIVILEGE,
        psycopg2.errorcodes.UNDEFINED_TABLE,
        psycopg2.errorcodes.UNDEFINED_COLUMN,
        psycopg2.errorcodes.UNDEFINED_FUNCTION,
        psycopg2.errorcodes.UNDEFINED_OBJECT,
        psycopg2.errorcodes.DUPLICATE_TABLE,
        psycopg2.errorcodes.DUPLICATE_COLUMN,
        psycopg2.errorcodes.DUPLICATE_OBJECT,
        psycopg2.errorcodes.WRONG_OBJECT_TYPE,
        psycopg2.errorcodes.DATA_CORRUPTED,
        psycopg2.errorcodes.INDEX_CORRUPTED,
    }
)


_ENCODING = "UTF8"
# What libpq says of a connection, and what to do about it.
_ADVICE = {
    "could not translate host name": "Correct the host in USERS_POSTGRES_URL, or mend the look-up of names.",
    "Connection refused": "Start the server, or correct host and port in USERS_POSTGRES_URL.",
    "password authentication failed": "Correct user and password in USERS_POSTGRES_URL, special characters "
    "percent-encoded.",
    "no password supplied": "Give the password in USERS_POSTGRES_URL, or in the file that PGPASSFILE names.",
    "does not exist": "Make it, or correct USERS_POSTGRES_URL.",
    "server does not support SSL": "Turn TLS on in the server, or correct sslmode= in USERS_POSTGRES_URL.",
    "received invalid response": "Is it Postgres that listens there? Correct host and port in USERS_POSTGRES_URL.",
    "remaining connection slots": "Raise max_connections of the server, or run less at once.",
    "too many clients": "Raise max_connections of the server, or run less at once.",
}


class DatabaseUnavailableError(OutageError):
    """Postgres could not be reached, or gave up the transaction; nothing was stored, and later it may work."""


class DatabaseRefusedError(PermanentError):
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
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        try:
            with self._connection as connection:
                yield connection
        except psycopg2.Error as error:
            # On a connection that broke within the block, rolling back fails too; what broke it came before.
            if isinstance(error, psycopg2.InterfaceError) and isinstance(error.__context__, psycopg2.Error):
                error = error.__context__
            if error.pgcode is None and self._connection.closed:
                # psycopg2 has a dozen texts for it, such as "invalid socket".
                raise DatabaseUnavailableError(
                    f"Postgres at {self._place}: the server closed the connection before the transaction was over. "
                    "Its log says why. Run the day again."
                ) from None
            raise describe_error(error) from None

    def _connect(self) -> Connection:
        """Connect to a database that can hold every name.

        Raises:
            DatabaseUnavailableError: no connection can be made.
            DatabaseRefusedError: the encoding of the database is not UTF8.
        """
        url = self._url()
        try:
            connection = psycopg2.connect(url or embedded.dsn("users"))
        except psycopg2.Error as error:
            raise DatabaseUnavailableError(
                f"Postgres cannot be reached at {self._place}: {_without_password(error, url)}"
            ) from None
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != _ENCODING:
            name = connection.info.dbname
            connection.close()
            raise DatabaseRefusedError(
                f"The database {name} at {self._place} has the encoding {encoding}; {_ENCODING} is needed, since names "
                f"are in every script. Make another, CREATE DATABASE {name}_utf8 TEMPLATE template0 ENCODING "
                f"'{_ENCODING}' LOCALE 'C', and let USERS_POSTGRES_URL name it. Nothing was changed."
            )
        return connection

    @property
    def address(self) -> str:
        """Where the database is, for people to read: host, port and name."""
        url = self._url()
        if url is None:
            return f"the embedded Postgres in {embedded.default_folder()}. Set USERS_POSTGRES_URL to use another."
        dsn = parse_dsn(url)
        return f"{_host_and_port(dsn)}/{dsn.get('dbname', '')}"

    @property
    def _place(self) -> str:
        """Host and port, or the folder of the embedded server."""
        url = self._url()
        return _host_and_port(parse_dsn(url)) if url else str(embedded.default_folder())

    def _url(self) -> str | None:
        if self.url is None:
            return settings.load().service("USERS_POSTGRES_URL")
        return settings.checked_field(self.url, check_postgres_url, resource="postgres")


def _host_and_port(dsn: Mapping[str, str]) -> str:
    host = dsn.get("host", "localhost")
    return f"{f'[{host}]' if ':' in host else host}:{dsn.get('port', 5432)}"


def _without_password(error: psycopg2.Error, url: str | None) -> str:
    """What libpq says of a connection that it cannot make, and what to do where it does not say so."""
    text = " ".join(str(error).split())
    if password := parse_dsn(url or "").get("password"):
        text = text.replace(password, "…")
    for said, todo in _ADVICE.items():
        if said in text:
            return f"{text}. {todo}"
    return text


def describe_error(error: psycopg2.Error) -> dg.Failure:
    """What the server has said, without the values that psycopg2's own message quotes."""
    code = error.pgcode
    if code is None:
        # Of psycopg2 itself, not of the server; its text may hold a value.
        return DatabaseRefusedError(f"psycopg2 refused: {type(error).__name__}")
    name_of = {getattr(psycopg2.errorcodes, name): name.lower() for name in dir(psycopg2.errorcodes) if name.isupper()}
    facts = [f"SQLSTATE {code} {name_of.get(code, '')}".rstrip()]
    diagnosis = error.diag
    parts = ("table", "column", "constraint")
    facts += [f"{part} {name}" for part in parts if (name := getattr(diagnosis, f"{part}_name"))]
    # The context of a COPY error goes on after the column with the value that stood there.
    if place := re.search(r"COPY \S+, line \d+(, column \w+)?", diagnosis.context or ""):
        facts.append(place.group())
    if diagnosis.message_primary and (code in _WITHOUT_VALUES or code[:2] in _CLASSES_WITHOUT_VALUES):
        facts.append(diagnosis.message_primary)
    message = f"Postgres refused: {'; '.join(facts)}"
    if code[:2] in _PASSING:
        return DatabaseUnavailableError(message)
    return DatabaseRefusedError(message)

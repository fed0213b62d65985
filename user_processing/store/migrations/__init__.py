"""The versions of the tables, by Alembic: each file in `versions` takes them one version further.

They run in the transaction of whoever calls `upgrade`. Which version the tables have is kept beside them.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class in lower case
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.engine.interfaces import DBAPIConnection

VERSION_TABLE = "user_processing_version"
TABLES = ("users", "user_loads", "rejected_users", "user_api_requests")
_UPGRADING = "docs/upgrading.md says more. Nothing was changed."


class TableError(ValueError):
    """A table in the database is not one that this pipeline can use."""


class BorrowedDialect(PGDialect_psycopg2):
    """psycopg2 on a connection of somebody else, whose transaction SQLAlchemy must not end.

    It would do so from the start: what it asks the server on its first connection, it rolls back.
    """

    supports_statement_cache = True

    def do_commit(self, dbapi_connection: DBAPIConnection) -> None:
        """Leave it to the owner."""

    def do_rollback(self, dbapi_connection: DBAPIConnection) -> None:
        """Leave it to the owner."""

    def do_close(self, dbapi_connection: DBAPIConnection) -> None:
        """Leave it to the owner."""


registry.register("postgresql.borrowed", __name__, BorrowedDialect.__name__)


def upgrade(connection: Connection, columns: Collection[str]) -> None:
    """Bring the tables to the newest version; where they have it, they are only read.

    All of it belongs to the transaction of the connection. The caller keeps others away meanwhile.

    Args:
        connection: an open transaction.
        columns: what the table `users` has to have in the end.

    Raises:
        TableError: the tables are not ours, or of a newer version, or the role may not change them.
    """
    with _borrowed(connection) as bind:
        config = Config(attributes={"connection": bind})
        config.set_main_option("script_location", "user_processing.store:migrations")
        known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
        current = MigrationContext.configure(bind, opts={"version_table": VERSION_TABLE}).get_current_revision()
        if current is not None and current not in known:
            raise TableError(
                f"The tables are of version {current}, which is newer than this code: it knows {known[0]} and older. "
                f"Install the version of user_processing that made them, or a newer one. {_UPGRADING}"
            )
        if current and _lacks_a_table(bind):
            # Somebody dropped one, to begin anew. Every migration finds what is still there, and leaves it.
            command.stamp(config, "base")
            current = None
        if current != known[0]:
            try:
                command.upgrade(config, "head")
            except sqlalchemy.exc.ProgrammingError as error:
                if not isinstance(error.orig, InsufficientPrivilege):
                    raise
                raise TableError(
                    f"The tables are of {f'version {current}' if current else 'no version yet'}, this code needs "
                    f"version {known[0]}, and the role may not change them: {error.orig.diag.message_primary}. "
                    f"Let their owner materialize users_table once. {_UPGRADING}"
                ) from None
        require_columns(bind, columns)


def _lacks_a_table(bind: sqlalchemy.Connection) -> bool:
    lacks = "SELECT bool_or(to_regclass(name) IS NULL) FROM unnest(%s) AS name"
    return bool(bind.exec_driver_sql(lacks, (list(TABLES),)).scalar())


def require_columns(bind: sqlalchemy.Connection, columns: Collection[str]) -> None:
    """Make sure that the table `users`, if there is one, has these columns, and that a row needs no others.

    Where they stand does not matter, and there may be more of them.

    Raises:
        TableError: it has not, or it does.
    """
    rows = bind.exec_driver_sql(
        "SELECT attname, attnotnull AND NOT atthasdef AND attidentity = '' AS required FROM pg_attribute "
        "WHERE attrelid = to_regclass('users') AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    found: dict[str, bool] = {row.attname: row.required for row in rows}
    missing = [column for column in columns if column not in found]
    required = [name for name, required in found.items() if required and name not in columns]
    if not found or not (missing or required):
        return
    wrong = (
        f"missing: {', '.join(missing)}"
        if missing
        else f"without a default, though not ours and never empty: {', '.join(required)}"
    )
    raise TableError(
        f"The table users has the columns {', '.join(found)}; {wrong}. Expected are {', '.join(columns)}, in any "
        "order, beside others that may be empty or have a default. Rename the table, or let the connection string "
        f"name another database or schema (options=-csearch_path=…). {_UPGRADING}"
    )


@contextmanager
def _borrowed(connection: Connection) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(
        "postgresql+borrowed://",
        creator=lambda: connection,
        poolclass=sqlalchemy.NullPool,
        use_native_hstore=False,
    )
    try:
        with engine.connect() as bind:
            yield bind
    except sqlalchemy.exc.DBAPIError as error:
        # Its text has the statement, and the class is not the one that is caught where the transaction is.
        if error.orig is None:
            raise
        raise error.orig from None

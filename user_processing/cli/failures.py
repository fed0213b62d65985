"""Which failures have a cause that a line can tell. Any other is a bug, and shows its trace."""

import dagster as dg
import sqlalchemy.exc
from dagster_postgres.utils import DagsterPostgresException

from user_processing.catchup.backfill import BackfillError
from user_processing.days.cadence import NoSuchDaysError
from user_processing.embedded.programs import EmbeddedPostgresError
from user_processing.internals.graphql import GraphqlError


def cause(error: BaseException) -> str | None:
    """The cause and what to do; None for what nobody has foreseen."""
    if isinstance(error, dg.Failure):
        return error.description
    if isinstance(error, BackfillError | NoSuchDaysError | EmbeddedPostgresError | GraphqlError):
        return str(error)
    # dagster-postgres raises its own after some attempts.
    failed = error.__cause__ if isinstance(error, DagsterPostgresException) else error
    if isinstance(failed, sqlalchemy.exc.OperationalError):
        said = str(failed.orig).strip()
        return f"Dagster's database cannot be used: {said}\nLook at DAGSTER_POSTGRES_URL, and whether the server runs."
    return None

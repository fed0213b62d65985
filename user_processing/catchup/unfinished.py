"""A run that did not come to its end, and whose pages the next one over the same days can take."""

import dagster as dg

from user_processing.catchup import facts
from user_processing.days.runs import FAILED_DAYS, PAGES_SINCE, RunDays, days_of_tag
from user_processing.store import tables
from user_processing.store.postgres import Postgres

_UNFINISHED = [
    dg.DagsterRunStatus.STARTED,  # its process was killed, and the daemon has not noticed yet
    dg.DagsterRunStatus.CANCELED,
    dg.DagsterRunStatus.FAILURE,
]
_LOOKED_AT = 200  # runs, newest first


def pages_since(days: RunDays, instance: dg.DagsterInstance) -> str | None:
    """The run since whose creation pages of these days are good; None if they have to be fetched.

    That is the newest run over all of these days that was interrupted, or stopped by an outage, while one of them is
    not stored since. A day that failed by itself is fetched anew: its pages may be the reason.
    """
    wanted = set(days)
    newest = instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED), limit=_LOOKED_AT)
    record = next((record for record in newest if wanted <= set(facts.days_of(record.dagster_run))), None)
    if record is None:
        return None
    run = record.dagster_run
    if wanted & set(days_of_tag(run.tags.get(FAILED_DAYS, ""))):
        return None
    with Postgres().transaction() as connection:
        since = tables.stored_since(connection, record.create_timestamp)
    return None if wanted <= since else run.tags.get(PAGES_SINCE) or run.root_run_id or run.run_id

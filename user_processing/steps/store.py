"""Store: the rows of a day, from its CSV to the table, in one transaction."""

from user_processing.days.work import CountRows, Metadata
from user_processing.store import tables
from user_processing.store.day_files import DayFiles, MissingFileError
from user_processing.store.manifests import CsvManifest
from user_processing.store.postgres import Postgres


def store_day(day: str, progress: CountRows, *, day_files: DayFiles, postgres: Postgres, run_id: str) -> Metadata:
    """Put the users of the day's CSV in the place of those that are stored; returns the day's metadata.

    Args:
        day: YYYY-MM-DD.
        progress: is told the rows, when they are committed.
        day_files: where the CSV is.
        postgres: where the rows go.
        run_id: the Dagster run, for the ledger.

    Raises:
        dagster.Failure: the CSV is not there, or is not the one of its manifest, or Postgres refuses it.
    """
    manifest = day_files.manifest(day_files.users(day), CsvManifest, day=day, asset="processed_user_csv")
    path = day_files.csv(day)
    try:
        with (
            day_files.reading(path, day=day, asset="processed_user_csv") as csv,
            postgres.transaction() as connection,
        ):
            tables.replace_day(connection, day, csv, manifest, run_id=run_id)
            table = tables.full_name(connection)
    except tables.LoadError as error:
        raise MissingFileError(day, path, f"is not whole: {error}", "processed_user_csv") from None
    progress(manifest.rows)
    return {
        "dagster/row_count": manifest.rows,
        "rejected": len(manifest.rejected),
        "dagster/relation_identifier": table,
    }

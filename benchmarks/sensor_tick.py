"""How long a tick of the sensor takes when nothing is to be done: for 1,400 days beside 14, and beside its limit, 1 s.

    make bench

On a real instance in the embedded Postgres, with the API on loopback. Printed are medians of 20 ticks.
"""

import dataclasses
import datetime as dt
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import dagster as dg
import psycopg2

from user_processing import automation
from user_processing.assets import stored_users
from user_processing.days.cadence import CADENCE
from user_processing.definitions import defs
from user_processing.embedded import api, postgres
from user_processing.source.user_api import UserApi
from user_processing.store import tables
from user_processing.store.postgres import Postgres

_TICKS = 20
_LIMIT = 1.0  # seconds


def main() -> None:
    """Fill an instance with days, and tick."""
    os.environ["USERS_CATCHUP"] = "true"
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(here / "dagster.yaml", folder)
        os.chdir(folder)
        os.environ["DAGSTER_POSTGRES_URL"] = postgres.dsn("dagster", folder / "postgres")
        users = postgres.dsn("users", folder / "postgres")
        with dg.DagsterInstance.from_config(name) as instance, api.serve() as stand_in:
            resources = {"user_api": UserApi(url=stand_in), "postgres": Postgres(url=users)}
            seconds = {days: _median(instance, users, resources, days) for days in (14, 1_400)}
        postgres.stop(folder / "postgres")
    for days, median in seconds.items():
        print(f"{days:>6,} days stored: {median * 1000:6.1f} ms a tick, {median / _LIMIT:.3f} of the limit")  # noqa: T201
    print(f"1,400 days take {seconds[1_400] / seconds[14]:.2f} times as long as 14")  # noqa: T201


def _median(instance: dg.DagsterInstance, users: str, resources: Mapping[str, object], days: int) -> float:
    cadence = dataclasses.replace(
        CADENCE, last_day=str(dt.date.fromisoformat(CADENCE.first_day) + dt.timedelta(days=days - 1))
    )
    known = instance.get_materialized_partitions(stored_users.key)
    due = cadence.due(dt.datetime.now(dt.UTC))
    for day in due:
        if day not in known:
            instance.report_runless_asset_event(dg.AssetMaterialization(stored_users.key, partition=day))
    with closing(psycopg2.connect(users)) as connection, connection, connection.cursor() as cursor:
        tables.create_tables(connection)
        cursor.executemany(
            "INSERT INTO user_loads (partition_date, users_requested, rows, rejected, csv_sha256, run_id) "
            "VALUES (%s, 1, 1, 0, '', '') ON CONFLICT DO NOTHING",
            [(day,) for day in due],
        )
    repository = defs.get_repository_def()
    seconds = []
    for _ in range(_TICKS + 1):
        started = time.perf_counter()
        with dg.build_sensor_context(
            instance=instance, repository_def=repository, resources=dict(resources)
        ) as context:
            api, database = context.resources.user_api, context.resources.postgres
            now = dt.datetime.now(dt.UTC)
            result = automation.evaluate_sensor(context, api, database, now=now, cadence=cadence)
        seconds.append(time.perf_counter() - started)
        if f"All {days:,} days" not in str(getattr(result, "skip_reason", "")):
            message = f"The tick said something else: {result}"
            raise RuntimeError(message)
    # The first one learns which columns the tables have.
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()

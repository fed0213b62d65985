"""What a tick costs when nothing is to be done: as many queries for years of days as for months."""

import dataclasses
import datetime as dt

import dagster as dg
import psycopg2
import pytest
import sqlalchemy

from user_processing import alerts, automation
from user_processing.assets import stored_users
from user_processing.days.cadence import CADENCE
from user_processing.definitions import defs
from user_processing.source.user_api import UserApi
from user_processing.store import tables
from user_processing.store.postgres import Postgres
from user_processing_tests.support.recorded_api import RecordedApi
from user_processing_tests.support.tables import say_stored


def test_a_tick_takes_as_many_queries_for_1_400_days_as_for_14(
    instance: dg.DagsterInstance,
    database: str,
    recorded_api: RecordedApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("USERS_CATCHUP", "true")
    with psycopg2.connect(database) as connection:
        tables.create_tables(connection)
    connection.close()
    postgres = Postgres(url=database)
    resources = {"user_api": UserApi(url=recorded_api.url), "postgres": postgres}
    asked: list[str] = []

    def count(*arguments: object) -> None:
        asked.append(str(arguments[2]))

    def tick(days: int) -> list[str]:
        """The queries of a tick, with this many days due and all of them stored."""
        last = dt.date.fromisoformat(CADENCE.first_day) + dt.timedelta(days=days - 1)
        cadence = dataclasses.replace(CADENCE, last_day=str(last))
        known = instance.get_materialized_partitions(stored_users.key)
        for day in cadence.due(dt.datetime.now(dt.UTC)):
            if day not in known:
                instance.report_runless_asset_event(dg.AssetMaterialization(stored_users.key, partition=day))
        say_stored(database, cadence.due(dt.datetime.now(dt.UTC)))
        asked.clear()
        with dg.build_sensor_context(
            instance=instance, repository_def=defs.get_repository_def(), resources=dict(resources)
        ) as context:
            api = context.resources.user_api
            now = dt.datetime.now(dt.UTC)
            result = automation.evaluate_sensor(context, api, postgres, now=now, cadence=cadence)
        assert f"All {days:,} days that are due are stored." in str(result.skip_reason)
        return list(asked)

    tick(1)  # the first one learns which columns the tables have
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", count)
    try:
        few, many = tick(14), tick(1_400)
        for _ in range(100):
            # Of a command line, so that nothing is asked for.
            tags = {"dagster/partition": CADENCE.first_day}
            instance.add_run(dg.DagsterRun("user_processing", status=dg.DagsterRunStatus.FAILURE, tags=tags))
        failed = tick(1_400)
        asked.clear()
        cursor = None
        for _ in range(2):
            context = dg.build_sensor_context(instance, cursor, repository_def=defs.get_repository_def())
            told = alerts.evaluate_data_alerts(context, postgres, now=dt.datetime.now(dt.UTC))
            cursor, alerting = told.cursor, list(asked)
            asked.clear()
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", count)
    assert 0 < len(few) == len(many) == len(failed) <= 7
    assert len(alerting) == len(few) + 1

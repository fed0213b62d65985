"""Dagster's own storage: the Postgres of `DAGSTER_POSTGRES_URL`, or else the embedded one.

Named in `dagster.yaml`. Dagster's configuration has no way to say "this variable, or else that".
"""

import os
from typing import Self

import sqlalchemy
from dagster._config.config_schema import UserConfigSchema
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from user_processing.embedded import postgres as embedded


class InstanceStorage(DagsterPostgresStorage):
    """Runs, events and schedules in Postgres."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing to configure in `dagster.yaml`: no secret can end up there."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: object) -> Self:
        """Called by Dagster in every process that has an instance."""
        del config_value
        url = os.environ.get("DAGSTER_POSTGRES_URL") or embedded.dsn("dagster")
        return cls(_with_driver(url), inst_data=inst_data)


def _with_driver(url: str) -> str:
    """The URL for SQLAlchemy, which from 2.1 on takes `postgresql://` for psycopg 3; Dagster brings psycopg2."""
    parsed = sqlalchemy.make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg2")
    return parsed.render_as_string(hide_password=False)

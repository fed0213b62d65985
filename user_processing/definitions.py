"""The table of contents: assets, checks, automation, and the resources with the variables that configure them."""

from typing import Any

import dagster as dg
from dagster._config.field_utils import IntEnvVar

from user_processing import assets, automation, checks
from user_processing.resources.day_files import DayFiles
from user_processing.resources.postgres import Postgres
from user_processing.resources.user_api import UserApi
from user_processing.resources.user_records import UserRecords


def _set(**fields: dg.EnvVar | IntEnvVar) -> dict[str, Any]:
    """The fields whose variable is set, each by reference: a value never gets into the definitions."""
    return {field: variable for field, variable in fields.items() if variable.get_value()}


defs = dg.Definitions(
    assets=[assets.users_table, assets.raw_user, assets.processed_user_csv, assets.stored_users],
    asset_checks=[checks.reconciliation],
    jobs=[automation.user_processing, automation.morning_checks],
    schedules=[automation.daily, automation.every_morning],
    sensors=[automation.api_availability],
    # Four steps in a row in one process: 5.3 s a run, where the multiprocess executor takes 29.7 s.
    executor=dg.in_process_executor,
    resources={
        "user_api": UserApi(**_set(url=dg.EnvVar("USER_API_URL"), users_per_day=dg.EnvVar.int("USERS_PER_DAY"))),
        "postgres": Postgres(**_set(url=dg.EnvVar("USERS_POSTGRES_URL"))),
        "user_records": UserRecords(
            **_set(passwords=dg.EnvVar("USERS_PASSWORDS"), max_rejected=dg.EnvVar("USERS_MAX_REJECTED"))
        ),
        "day_files": DayFiles(**_set(url=dg.EnvVar("USERS_FILES_URL"))),
    },
)

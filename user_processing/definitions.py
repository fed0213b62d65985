"""The table of contents: assets, checks, automation, and the resources with the variables that configure them."""

import dagster as dg

from user_processing import assets, automation
from user_processing.resources.day_files import DayFiles
from user_processing.resources.postgres import Postgres
from user_processing.resources.user_api import UserApi


def _set(**variables: str) -> dict[str, dg.EnvVar]:
    """The fields whose variable is set, each by reference: a value never gets into the definitions."""
    return {field: dg.EnvVar(name) for field, name in variables.items() if dg.EnvVar(name).get_value()}


defs = dg.Definitions(
    assets=[assets.users_table, assets.raw_user, assets.processed_user_csv, assets.stored_users],
    jobs=[automation.user_processing],
    schedules=[automation.daily],
    sensors=[automation.api_availability],
    # Four steps in a row in one process: 5.3 s a run, where the multiprocess executor takes 29.7 s.
    executor=dg.in_process_executor,
    resources={
        "user_api": UserApi(**_set(url="USER_API_URL", users_per_day="USERS_PER_DAY")),
        "postgres": Postgres(**_set(url="USERS_POSTGRES_URL")),
        "day_files": DayFiles(**_set(url="USERS_FILES_URL")),
    },
)

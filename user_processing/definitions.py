"""The table of contents: assets, checks, automation, resources. What configures a resource is said in its fields."""

import logging

import dagster as dg

from user_processing import alerts, assets, automation, checks, settings
from user_processing.source.user_api import UserApi
from user_processing.store.day_files import DayFiles
from user_processing.store.postgres import Postgres

# An invalid setting is refused here, when Dagster loads the definitions, and not in the middle of a run.
settings.load()
for sentence in settings.unknown_variables():
    logging.getLogger("user_processing").warning(sentence)

defs = dg.Definitions(
    assets=[
        assets.users_table,
        assets.user_api_source,
        assets.raw_user,
        assets.processed_user_csv,
        assets.stored_users,
    ],
    asset_checks=[checks.reconciliation],
    jobs=[automation.user_processing, automation.morning_checks],
    schedules=[automation.daily, automation.every_morning],
    sensors=[automation.api_availability, alerts.failure_alerts, alerts.data_alerts],
    # Four steps in a row in one process: 5.3 s a run, where the multiprocess executor takes 29.7 s.
    executor=dg.in_process_executor,
    resources={
        "user_api": UserApi(),
        "postgres": Postgres(),
        "day_files": DayFiles(),
    },
)

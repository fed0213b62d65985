"""When things run: the job of all four assets, the daily schedule, the sensor that watches the API."""

import dagster as dg

from user_processing import checks
from user_processing.assets import GROUP, days, stored_users
from user_processing.resources.user_api import UserApi

_NOT_FINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

user_processing = dg.define_asset_job(
    "user_processing",
    selection=dg.AssetSelection.groups(GROUP),
    description="Takes the users of a day, or of a range of days, from the API to Postgres.",
)

morning_checks = dg.define_asset_job(
    "morning_checks",
    selection=dg.AssetSelection.checks(checks.reconciliation),
    description="Checks all that is stored.",
)

every_morning = dg.ScheduleDefinition(
    name="every_morning",
    job=morning_checks,
    cron_schedule=f"0 {checks.DEADLINE_HOURS} * * *",
    execution_timezone="UTC",
    description="Checks all that is stored, at the hour by which the newest day has to be there.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

daily = dg.build_schedule_from_partitioned_job(
    user_processing,
    name="daily",
    description="Launches the day that has just ended, at 00:00 UTC.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


@dg.sensor(
    job=user_processing,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def api_availability(context: dg.SensorEvaluationContext, user_api: UserApi) -> dg.RunRequest | dg.SkipReason:
    """Watches the API. While it answers, the newest complete day is asked for if nothing has stored it yet."""
    day = days.get_last_partition_key()
    if day is None:
        return dg.SkipReason("No day is complete yet.")
    if day in context.instance.get_materialized_partitions(stored_users.key):
        return dg.SkipReason(f"The newest complete day, {day}, is stored.")
    seen = user_api.probe(seed=day)
    if seen:
        return dg.SkipReason(f"{user_api.address} does not answer: {seen}. Day {day} waits for it.")
    running = context.instance.get_runs(dg.RunsFilter(statuses=_NOT_FINISHED, tags={"dagster/partition": day}), limit=1)
    if running:
        return dg.SkipReason(f"Run {running[0].run_id} is at work on day {day}.")
    return dg.RunRequest(run_key=day, partition_key=day)

"""When things run: the schedule and the sensor, by what the API says and which days are there."""

import datetime as dt

import dagster as dg
import pytest

from user_processing import automation
from user_processing.assets import days
from user_processing.definitions import defs
from user_processing.resources.user_api import UserApi
from user_processing_tests.conftest import Pipeline, RecordedApi


@pytest.fixture
def newest() -> str:
    """The newest complete day."""
    return str(dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1))


def tick(pipeline: Pipeline, api: UserApi) -> dg.RunRequest | dg.SkipReason:
    with dg.build_sensor_context(instance=pipeline.instance, resources={"user_api": api}) as context:
        result = automation.api_availability(context)
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result


@pytest.mark.filterwarnings("ignore:Function `JobDefinition.run_request_for_partition`")  # called by Dagster itself
def test_the_schedule_launches_the_day_that_has_just_ended() -> None:
    moment = dt.datetime(2023, 3, 27, tzinfo=dt.UTC)
    context = dg.build_schedule_context(scheduled_execution_time=moment)
    result = defs.resolve_schedule_def("daily").evaluate_tick(context)
    assert [request.partition_key for request in result.run_requests or []] == ["2023-03-26"]


def test_schedule_and_sensor_run_without_being_switched_on() -> None:
    daily = defs.resolve_schedule_def("daily")
    assert daily.default_status == dg.DefaultScheduleStatus.RUNNING
    assert (daily.cron_schedule, daily.execution_timezone) == ("0 0 * * *", "UTC")
    assert automation.api_availability.default_status == dg.DefaultSensorStatus.RUNNING
    assert automation.api_availability.minimum_interval_seconds == 60


def test_the_api_answers_and_the_newest_day_is_missing(
    pipeline: Pipeline, recorded_api: RecordedApi, newest: str
) -> None:
    asked = tick(pipeline, UserApi(url=recorded_api.url))
    assert isinstance(asked, dg.RunRequest)
    assert (asked.partition_key, asked.run_key) == (newest, newest)
    assert days.get_last_partition_key() == newest


def test_the_api_is_down_and_the_reason_says_what_was_seen(
    pipeline: Pipeline, recorded_api: RecordedApi, newest: str
) -> None:
    recorded_api.close()
    skipped = tick(pipeline, UserApi(url=recorded_api.url))
    assert isinstance(skipped, dg.SkipReason)
    assert recorded_api.url in str(skipped.skip_message)
    assert "refused" in str(skipped.skip_message)
    assert newest in str(skipped.skip_message)


def test_a_200_that_is_no_page_of_users_is_not_available(pipeline: Pipeline, recorded_api: RecordedApi) -> None:
    recorded_api.tamper = lambda _, page: {**page, "results": []}
    skipped = tick(pipeline, UserApi(url=recorded_api.url))
    assert isinstance(skipped, dg.SkipReason)
    assert "asked for 1 users, and 0 came" in str(skipped.skip_message)


def test_the_newest_day_is_there_and_nothing_is_asked(
    pipeline: Pipeline, recorded_api: RecordedApi, newest: str
) -> None:
    assert pipeline.run(newest).success
    skipped = tick(pipeline, UserApi(url=recorded_api.url))
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == f"The newest complete day, {newest}, is stored."
    assert recorded_api.asked == []


def test_a_run_is_at_work_on_the_newest_day(pipeline: Pipeline, recorded_api: RecordedApi, newest: str) -> None:
    run = pipeline.instance.create_run_for_job(
        defs.resolve_job_def("user_processing"), tags={"dagster/partition": newest}, status=dg.DagsterRunStatus.STARTED
    )
    skipped = tick(pipeline, UserApi(url=recorded_api.url))
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == f"Run {run.run_id} is at work on day {newest}."

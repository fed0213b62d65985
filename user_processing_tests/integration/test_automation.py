"""When things run: the schedule and the sensor, by what the API says, which days are there, and what is at work."""

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from user_processing import automation
from user_processing.assets import stored_users
from user_processing.catchup import backfill, facts
from user_processing.days.cadence import CADENCE
from user_processing.days.runs import BACKFILL, FAILED_DAYS, LANE, PAGES_SINCE, STOPPED_AT, WILL_RETRY
from user_processing.definitions import defs
from user_processing.source.user_api import UserApi
from user_processing.store.postgres import Postgres
from user_processing_tests.support.checkout import TOMORROW
from user_processing_tests.support.dagster_records import ORIGIN, backfill_of_assets, backfill_of_the_job, with_status
from user_processing_tests.support.pipeline import Pipeline
from user_processing_tests.support.recorded_api import RecordedApi, Row

Query = Callable[..., list[Row]]

NOON = dt.datetime(2023, 1, 6, 12, tzinfo=dt.UTC)
NEWEST = "2023-01-05"
ENDED = dataclasses.replace(CADENCE, last_day=NEWEST)
DUE = ["2023-01-01", "2023-01-02", "2023-01-03", "2023-01-04", NEWEST]


class Clock:
    """What time it is for the sensor and the schedule."""

    def __init__(self, now: dt.datetime) -> None:
        self.now = now


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERS_CATCHUP", "USERS_MAX_ACTIVE_RUNS", "USERS_DAYS_PER_RUN", "USERS_MAX_ATTEMPTS"):
        monkeypatch.delenv(name, raising=False)


class Sensor:
    """The sensor, tick after tick, with its cursor."""

    def __init__(self, pipeline: Pipeline, api: RecordedApi, clock: Clock) -> None:
        self.pipeline = pipeline
        self.api = UserApi(url=api.url)
        self.clock = clock
        self.cadence = CADENCE
        self.cursor: str | None = None

    def tick(self) -> dg.SensorResult:
        with dg.build_sensor_context(
            instance=self.pipeline.instance,
            cursor=self.cursor,
            repository_def=defs.get_repository_def(),
            resources={"user_api": self.api},
        ) as context:
            api, postgres = context.resources.user_api, self.pipeline.postgres
            result = automation.evaluate_sensor(context, api, postgres, now=self.clock.now, cadence=self.cadence)
        self.cursor = result.cursor
        return result

    def asks(self) -> list[str]:
        return [str(request.run_key).partition(" after ")[0] for request in self.tick().run_requests or []]

    def says(self) -> str:
        result = self.tick()
        assert not result.run_requests
        assert result.skip_reason
        return str(result.skip_reason.skip_message)

    def observes(self) -> list[dict[str, Any]]:
        events = self.tick().asset_events or []
        return [
            {name: value.value for name, value in event.metadata.items()}
            for event in events
            if isinstance(event, dg.AssetObservation)
        ]


@pytest.fixture
def sensor(pipeline: Pipeline, recorded_api: RecordedApi, clock: Clock) -> Sensor:
    return Sensor(pipeline, recorded_api, clock)


def a_run(
    instance: dg.DagsterInstance,
    status: dg.DagsterRunStatus,
    tags: dict[str, str],
    **more: Any,  # noqa: ANN401
) -> dg.DagsterRun:
    """A run of the job that has come to this."""
    job = defs.resolve_job_def("user_processing")
    run = instance.create_run_for_job(
        job, tags=tags, status=dg.DagsterRunStatus.STARTED, **{"remote_job_origin": ORIGIN, **more}
    )
    if status == dg.DagsterRunStatus.FAILURE:
        instance.report_run_failed(run)
    if status == dg.DagsterRunStatus.CANCELED:
        instance.report_run_canceled(run)
    return run


def test_schedule_and_sensor_run_without_being_switched_on() -> None:
    assert automation.daily.default_status == dg.DefaultScheduleStatus.RUNNING
    assert (automation.daily.cron_schedule, automation.daily.execution_timezone) == ("0 0 * * *", "UTC")
    assert automation.api_availability.default_status == dg.DefaultSensorStatus.RUNNING
    assert automation.api_availability.minimum_interval_seconds == 60


def test_what_dagster_calls_tells_the_time_by_itself(pipeline: Pipeline, recorded_api: RecordedApi) -> None:
    """Midnight may pass meanwhile; the schedule's tick is years late whatever the time is."""
    resources: dict[str, Any] = {"user_api": UserApi(url=recorded_api.url), "postgres": pipeline.postgres}
    newest = [CADENCE.due(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=90))[-1]]
    with dg.build_sensor_context(
        pipeline.instance, repository_def=defs.get_repository_def(), resources=resources
    ) as context:
        polled = automation.api_availability(context)
    newest.append(CADENCE.due(dt.datetime.now(dt.UTC))[-1])
    assert isinstance(polled, dg.SensorResult)
    assert [request.partition_key in newest for request in polled.run_requests or []] == [True]
    with dg.build_schedule_context(
        scheduled_execution_time=MIDNIGHT, resources={"user_api": resources["user_api"]}
    ) as tick:
        late = automation.daily(tick)
    assert isinstance(late, dg.SkipReason)
    assert "Day 2023-01-01 is not the newest any more." in str(late.skip_message)


# The schedule


MIDNIGHT = dt.datetime(2023, 1, 2, tzinfo=dt.UTC)


def schedule(
    api: RecordedApi, scheduled: dt.datetime = MIDNIGHT, *, late: dt.timedelta = dt.timedelta()
) -> dg.RunRequest | str | None:
    with dg.build_resources({"user_api": UserApi(url=api.url)}) as resources:
        result = automation.evaluate_schedule(scheduled, resources.user_api, now=scheduled + late)
    return result.skip_message if isinstance(result, dg.SkipReason) else result


@pytest.mark.parametrize(("moment", "day"), [("2023-01-02", "2023-01-01"), ("2023-03-27", "2023-03-26")])
def test_the_schedule_launches_the_day_that_has_just_ended(recorded_api: RecordedApi, moment: str, day: str) -> None:
    scheduled = dt.datetime.fromisoformat(f"{moment}T00:00:00+00:00")
    request = schedule(recorded_api, scheduled, late=dt.timedelta(seconds=3))
    assert isinstance(request, dg.RunRequest)
    assert (request.partition_key, request.run_key) == (day, day)


def test_the_schedule_leaves_a_day_to_the_sensor_while_the_api_is_down(recorded_api: RecordedApi) -> None:
    recorded_api.close()
    said = schedule(recorded_api)
    assert isinstance(said, str)
    assert "refused" in said
    assert "The sensor asks for day 2023-01-01" in said


def test_a_tick_of_the_schedule_that_comes_late_leaves_its_day_to_the_sensor(recorded_api: RecordedApi) -> None:
    said = "This tick comes 0:00:31 late. While day 2023-01-01 is not stored, the sensor asks for it."
    assert schedule(recorded_api, late=dt.timedelta(seconds=31)) == said
    assert recorded_api.asked == []


def test_the_preview_of_an_old_tick_says_who_asks_for_its_day(
    recorded_api: RecordedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = dt.timedelta(days=10, seconds=5.5)
    assert schedule(recorded_api, late=late) == (
        "This tick comes 10 days, 0:00:05 late. Day 2023-01-01 is not the newest any more. The sensor asks for it "
        "only if a run was launched for it and failed. To run it: make run DAY=2023-01-01. To have every day that is "
        "missing asked for: USERS_CATCHUP=true."
    )
    monkeypatch.setenv("USERS_CATCHUP", "true")
    assert str(schedule(recorded_api, late=late)).endswith(
        " late. While day 2023-01-01 is not stored, the sensor asks for it."
    )


def test_the_schedule_has_no_day_before_the_first_has_ended(recorded_api: RecordedApi) -> None:
    first = dt.datetime(2023, 1, 1, tzinfo=dt.UTC)
    assert schedule(recorded_api, first) == "2022-12-31 is not one of the days from 2023-01-01 to now."


def test_schedule_and_sensor_never_ask_for_a_new_day_at_the_same_moment(
    sensor: Sensor, recorded_api: RecordedApi, clock: Clock
) -> None:
    for second in (0, 1, 29, 30, 31, 32, 60, 89, 90, 91, 92, 99):
        late = dt.timedelta(seconds=second)
        clock.now = MIDNIGHT + late
        by_schedule = isinstance(schedule(recorded_api, late=late), dg.RunRequest)
        assert not (by_schedule and sensor.asks())
    assert sensor.asks() == ["2023-01-01#1"]


# The sensor


def test_the_api_answers_and_the_newest_day_is_missing(sensor: Sensor) -> None:
    (request,) = sensor.tick().run_requests or []
    assert (request.partition_key, request.run_key, request.tags) == (NEWEST, f"{NEWEST}#1", {})


def test_with_catch_up_all_days_are_one_range(sensor: Sensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_CATCHUP", "true")
    (request,) = sensor.tick().run_requests or []
    assert request.tags == {
        "dagster/asset_partition_range_start": "2023-01-01",
        "dagster/asset_partition_range_end": NEWEST,
    }
    assert request.partition_key is None


def test_settings_come_from_the_environment(sensor: Sensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_CATCHUP", "True")
    monkeypatch.setenv("USERS_DAYS_PER_RUN", "2")
    monkeypatch.setenv("USERS_MAX_ACTIVE_RUNS", "2")
    assert sensor.asks() == ["2023-01-01...2023-01-02#1", "2023-01-03...2023-01-04#1"]


@pytest.mark.parametrize(
    ("name", "value"), [("USERS_CATCHUP", "maybe"), ("USERS_MAX_ACTIVE_RUNS", "0"), ("USERS_DAYS_PER_RUN", "-1")]
)
def test_a_setting_that_cannot_be_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(dg.Failure) as caught:
        facts.rules()
    assert str(caught.value.description).startswith(f"{name} is ")


def test_the_newest_day_is_there_and_nothing_is_asked(sensor: Sensor, pipeline: Pipeline) -> None:
    assert pipeline.run(NEWEST).success
    assert [sensor.asks() for _ in range(10)] == [[]] * 10
    assert f"The newest day, {NEWEST}, is stored." in sensor.says()


def test_all_days_are_there(sensor: Sensor, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_CATCHUP", "true")
    assert pipeline.run("2023-01-01", NEWEST).success
    assert "All 5 days that are due are stored." in sensor.says()


def test_a_day_that_was_stored_and_is_gone_from_the_database_is_asked_for(
    sensor: Sensor, pipeline: Pipeline, query: Query
) -> None:
    assert pipeline.run(NEWEST).success
    query("DELETE FROM user_loads")
    (request,) = sensor.tick().run_requests or []
    assert str(request.run_key).startswith(f"{NEWEST}#1 after event ")


def test_a_day_that_is_gone_is_asked_for_also_where_it_had_been_cancelled(
    sensor: Sensor, pipeline: Pipeline, query: Query
) -> None:
    a_run(pipeline.instance, dg.DagsterRunStatus.CANCELED, {"dagster/partition": NEWEST})
    assert "Cancelled" in sensor.says()
    assert pipeline.run(NEWEST).success
    query("DELETE FROM user_loads")
    assert sensor.asks() == [f"{NEWEST}#2"]


def test_more_days_than_a_tick_reports_are_not_run_again(
    sensor: Sensor, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERS_CATCHUP", "true")
    monkeypatch.setattr(automation, "_MOST_REPORTED", 2)
    assert pipeline.run("2023-01-01", NEWEST).success
    with dg.DagsterInstance.ephemeral() as pipeline.instance:
        for reported in (2, 2, 1, 0):
            result = sensor.tick()
            assert not result.run_requests
            events = [event for event in result.asset_events or [] if isinstance(event, dg.AssetMaterialization)]
            assert len(events) == reported
            for event in events:
                pipeline.instance.report_runless_asset_event(event)


def test_a_day_that_was_stored_by_a_run_that_could_not_say_so_is_reported_and_not_asked_for(
    sensor: Sensor, pipeline: Pipeline
) -> None:
    assert pipeline.run("2023-01-01", NEWEST, users_per_day=7).success
    # An instance that knows nothing, as after a crash between the commit and the event.
    with dg.DagsterInstance.ephemeral() as pipeline.instance:
        result = sensor.tick()
        assert not result.run_requests
        reported = [event for event in result.asset_events or [] if isinstance(event, dg.AssetMaterialization)]
        assert [event.partition for event in reported] == DUE
        assert {event.metadata["dagster/row_count"].value for event in reported} == {7}
        for event in reported:
            pipeline.instance.report_runless_asset_event(event)
        assert pipeline.instance.get_materialized_partitions(stored_users.key) == set(DUE)
        assert sensor.tick().asset_events == []


@pytest.mark.parametrize(
    "tags",
    [
        {"dagster/partition": NEWEST},
        {"dagster/asset_partition_range_start": "2023-01-04", "dagster/asset_partition_range_end": "2023-01-06"},
    ],
)
def test_a_run_is_at_work_on_the_newest_day(sensor: Sensor, pipeline: Pipeline, tags: dict[str, str]) -> None:
    a_run(pipeline.instance, dg.DagsterRunStatus.STARTED, tags)
    assert f"In progress: {NEWEST}." in sensor.says()


def test_runs_that_do_not_store_the_day_keep_nobody_from_asking(sensor: Sensor, pipeline: Pipeline) -> None:
    day = {"dagster/partition": NEWEST}
    a_run(pipeline.instance, dg.DagsterRunStatus.STARTED, {"dagster/partition": "2023-01-04"})
    a_run(pipeline.instance, dg.DagsterRunStatus.STARTED, day, asset_selection=frozenset([dg.AssetKey("raw_user")]))
    # Created by a process that died before it could queue it.
    pipeline.instance.create_run_for_job(defs.resolve_job_def("user_processing"), tags=day)
    assert sensor.asks() == [f"{NEWEST}#1"]


@pytest.mark.parametrize("kind", ["assets", "job"])
def test_a_day_that_waits_in_a_backfill_is_not_asked_for(sensor: Sensor, pipeline: Pipeline, kind: str) -> None:
    made = backfill_of_assets if kind == "assets" else backfill_of_the_job
    found = made(["2023-01-04", NEWEST], NOON)
    pipeline.instance.add_backfill(found)
    assert f"In progress: {NEWEST}." in sensor.says()
    pipeline.instance.update_backfill(with_status(found, "COMPLETED_SUCCESS"))
    assert sensor.asks() == [f"{NEWEST}#1"]


def test_a_day_that_failed_is_asked_for_again_after_a_pause_by_itself(
    sensor: Sensor,
    pipeline: Pipeline,
    recorded_api: RecordedApi,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("USERS_CATCHUP", "true")
    pipeline.ask(recorded_api)
    recorded_api.tamper = lambda query, page: {} if query["seed"] == "2023-01-03" else page
    clock.now = dt.datetime.now(dt.UTC)
    sensor.cadence = ENDED
    failed = pipeline.run_job("2023-01-01", NEWEST)
    run = pipeline.instance.get_run_by_id(failed.run_id)
    assert run
    assert (run.tags[FAILED_DAYS], run.tags.get(STOPPED_AT)) == ("2023-01-03", None)
    requests = sensor.tick().run_requests or []
    keys = [f"{days}#2 after {run.run_id[:8]}" for days in ("2023-01-01...2023-01-02", f"2023-01-04...{NEWEST}")]
    assert [request.run_key for request in requests] == keys
    # The pages of the days that were not at fault are there, and are not fetched again.
    assert {request.tags[PAGES_SINCE] for request in requests} == {run.run_id}
    asked = len(recorded_api.asked)
    for request in requests:
        assert pipeline.run_job(request.tags["dagster/asset_partition_range_start"], tags=dict(request.tags)).success
    assert len(recorded_api.asked) == asked
    assert "Failed, and tried again from" in sensor.says()
    clock.now += dt.timedelta(minutes=6)
    (again,) = sensor.tick().run_requests or []
    assert (again.run_key, again.tags) == (f"2023-01-03#2 after {run.run_id[:8]}", {})
    recorded_api.tamper = lambda _, page: page
    assert pipeline.run_job("2023-01-03").success
    assert "All 5 days that are due are stored." in sensor.says()


def test_a_run_that_finds_the_api_gone_is_held_against_no_day(
    sensor: Sensor, pipeline: Pipeline, recorded_api: RecordedApi, clock: Clock
) -> None:
    pipeline.user_api = UserApi(url="http://127.0.0.1:1/", attempts=1)
    sensor.cadence = ENDED
    recorded_api.tamper = lambda _, page: {**page, "results": []}
    sensor.tick()
    clock.now = dt.datetime.now(dt.UTC)
    run = pipeline.instance.get_run_by_id(pipeline.run_job(NEWEST).run_id)
    assert run
    assert (run.tags[STOPPED_AT], run.tags.get(FAILED_DAYS)) == (NEWEST, None)
    clock.now = dt.datetime.now(dt.UTC)
    recorded_api.tamper = lambda _, page: page
    # It has come back: there is nothing to wait for.
    assert sensor.asks() == [f"{NEWEST}#2"]


def test_a_day_that_failed_too_often_is_left_to_people(
    sensor: Sensor, pipeline: Pipeline, recorded_api: RecordedApi, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setenv("USERS_MAX_ATTEMPTS", "2")
    sensor.cadence = ENDED
    pipeline.ask(recorded_api)
    recorded_api.tamper = lambda _, __: {}
    for _ in range(2):
        run = pipeline.run_job(NEWEST)
    recorded_api.tamper = lambda _, page: page
    clock.now = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
    said = sensor.says()
    assert f"Failed 2 times, and not asked for any more: {NEWEST}. Run {run.run_id} says why." in said
    assert said.endswith(f"When it is mended: make run DAY={NEWEST}")
    assert pipeline.run_job(NEWEST).success
    assert "is stored" in sensor.says()


def test_a_run_that_dagster_is_about_to_retry_is_waited_for(sensor: Sensor, pipeline: Pipeline, clock: Clock) -> None:
    sensor.cadence = ENDED
    tags = {"dagster/partition": NEWEST, "dagster/will_retry": "true"}
    run = a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, tags)
    clock.now = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=9)
    assert f"In progress: {NEWEST}." in sensor.says()
    # The retry was launched, and failed as well; the two are one attempt.
    pipeline.instance.add_run_tags(run.run_id, {"dagster/auto_retry_run_id": "another"})
    last = {**tags, "dagster/will_retry": "false"}
    group = {"root_run_id": run.run_id, "parent_run_id": run.run_id}
    a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, last, **group)
    assert sensor.asks() == [f"{NEWEST}#2"]


def test_a_retry_that_never_comes_is_not_waited_for(sensor: Sensor, pipeline: Pipeline, clock: Clock) -> None:
    sensor.cadence = ENDED
    a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, {"dagster/partition": NEWEST, "dagster/will_retry": "true"})
    clock.now = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=11)
    assert sensor.asks() == [f"{NEWEST}#2"]


def test_a_killed_command_line_is_not_waited_for(sensor: Sensor, pipeline: Pipeline, clock: Clock) -> None:
    """Dagster marks it as one that it will retry, and cannot launch what no code location has started."""
    sensor.cadence = ENDED
    tags = {"dagster/partition": NEWEST, "dagster/will_retry": "true"}
    a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, tags, remote_job_origin=None)
    clock.now = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=6)
    assert sensor.asks() == [f"{NEWEST}#2"]


def test_a_killed_run_of_a_backfill_that_is_over_is_not_waited_for(
    sensor: Sensor, pipeline: Pipeline, clock: Clock
) -> None:
    """A backfill of the job is over when its runs are queued. Dagster marks them as well, and retries none of them."""
    sensor.cadence = ENDED
    backfill = with_status(backfill_of_the_job([NEWEST], NOON), "COMPLETED")
    pipeline.instance.add_backfill(backfill)
    tags = {"dagster/partition": NEWEST, "dagster/will_retry": "true", "dagster/backfill": backfill.backfill_id}
    a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, tags)
    clock.now = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=6)
    assert sensor.asks() == [f"{NEWEST}#2"]


def test_a_run_that_was_cancelled_is_left_to_people(sensor: Sensor, pipeline: Pipeline) -> None:
    a_run(pipeline.instance, dg.DagsterRunStatus.CANCELED, {"dagster/partition": NEWEST})
    said = f"Cancelled, and not asked for any more: {NEWEST}. To run them all the same: make run DAY={NEWEST}"
    assert said in sensor.says()


# Days that somebody asked for

ASKED = ["2023-01-01", "2023-01-02"]
SPAN = {"dagster/asset_partition_range_start": ASKED[0], "dagster/asset_partition_range_end": ASKED[1]}


@pytest.fixture
def asked(sensor: Sensor, pipeline: Pipeline, clock: Clock) -> Sensor:
    """The newest day is stored; without catch-up nothing else is asked for by itself. An hour has gone by since."""
    sensor.cadence = ENDED
    assert pipeline.run(NEWEST).success
    clock.now = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert sensor.asks() == []
    return sensor


def test_days_that_a_run_was_launched_for_are_asked_for_until_they_are_there(asked: Sensor, pipeline: Pipeline) -> None:
    run = a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, {**SPAN, STOPPED_AT: ASKED[1]})
    (request,) = asked.tick().run_requests or []
    assert request.run_key == f"{ASKED[0]}...{ASKED[1]}#2 after {run.run_id[:8]}"
    assert request.tags == {**SPAN, PAGES_SINCE: run.run_id}
    assert pipeline.run_job(ASKED[0]).success
    assert asked.asks() == [f"{ASKED[1]}#2"]
    assert pipeline.run_job(ASKED[1]).success
    assert asked.asks() == []


def test_a_day_that_is_stored_and_was_to_be_loaded_again_is_asked_for_again(asked: Sensor, pipeline: Pipeline) -> None:
    assert pipeline.run(*ASKED).success
    a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, {"dagster/partition": ASKED[0]})
    assert asked.asks() == [f"{ASKED[0]}#2"]
    assert pipeline.run(ASKED[0]).success
    assert asked.asks() == []


def test_what_a_command_line_failed_to_do_is_not_asked_for(asked: Sensor, pipeline: Pipeline) -> None:
    a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, SPAN, remote_job_origin=None)
    assert asked.asks() == []


def test_days_that_the_assets_refuse_are_not_asked_for(asked: Sensor, pipeline: Pipeline) -> None:
    for first, last in ((ASKED[1], TOMORROW), (ASKED[1], ASKED[0])):
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, tags)
    assert asked.asks() == []


def test_a_run_that_failed_long_ago_says_nothing_of_days_that_are_not_due(
    asked: Sensor, pipeline: Pipeline, clock: Clock
) -> None:
    a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, SPAN)
    clock.now = dt.datetime.now(dt.UTC) + facts.REMEMBERED - dt.timedelta(hours=1)
    assert asked.asks() == [f"{ASKED[0]}...{ASKED[1]}#2"]
    clock.now += dt.timedelta(hours=2)
    assert asked.asks() == []


def test_a_run_in_the_place_of_one_that_failed_has_its_configuration_and_its_backfill(
    asked: Sensor, pipeline: Pipeline, recorded_api: RecordedApi, query: Query
) -> None:
    pipeline.ask(recorded_api)
    config = {"ops": {"raw_user": {"config": {"users_per_day": 7}}}}
    kept = {BACKFILL: "abc", LANE: "abc-0", "dagster/priority": "-1"}
    tags = {"dagster/partition": ASKED[0], **kept, "somebody": "else"}
    first = a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, tags, run_config=config)
    other = {"ops": {"raw_user": {"config": {"users_per_day": 8}}}}
    a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, {"dagster/partition": ASKED[1]}, run_config=other)
    one, two = asked.tick().run_requests or []
    assert (one.partition_key, one.run_config) == (ASKED[0], config)
    assert one.tags == {**kept, PAGES_SINCE: first.run_id}
    assert (two.partition_key, two.run_config) == (ASKED[1], other)
    assert pipeline.run_job(ASKED[0], tags=dict(one.tags), run_config=one.run_config).success
    assert query("SELECT count(*) FROM users WHERE partition_date = %s", [ASKED[0]]) == [(7,)]


def test_a_configuration_that_is_not_valid_any_more_does_not_keep_the_day_from_being_asked_for(
    asked: Sensor, pipeline: Pipeline
) -> None:
    config = {"ops": {"raw_user": {"config": {"people_per_day": 7}}}}
    job = dg.define_asset_job("user_processing").resolve(asset_graph=defs.resolve_asset_graph())
    run = dg.DagsterRun(
        job.name, run_config=config, status=dg.DagsterRunStatus.FAILURE, tags=SPAN, remote_job_origin=ORIGIN
    )
    pipeline.instance.add_run(run)
    (request,) = asked.tick().run_requests or []
    assert request.run_config == {}


def test_a_backfill_of_the_ui_that_failed_before_it_launched_runs_is_asked_for(
    asked: Sensor, pipeline: Pipeline, clock: Clock
) -> None:
    """Its first run is the one of `users_table`, which has no days; if that fails, Dagster launches no other."""
    failing = backfill_of_assets(ASKED, clock.now - dt.timedelta(minutes=61))
    pipeline.instance.add_backfill(failing)
    assert asked.asks() == []
    pipeline.instance.update_backfill(with_status(failing, "COMPLETED_FAILED"))
    assert asked.asks() == [f"{ASKED[0]}...{ASKED[1]}#2"]
    assert pipeline.run(*ASKED).success
    assert asked.asks() == []


def test_what_was_cancelled_is_not_asked_for_also_where_it_had_failed_before(asked: Sensor, pipeline: Pipeline) -> None:
    a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, SPAN)
    a_run(pipeline.instance, dg.DagsterRunStatus.CANCELED, {"dagster/partition": ASKED[0]})
    assert asked.asks() == [f"{ASKED[1]}#2"]


def test_a_backfill_of_the_ui_that_was_cancelled_is_not_asked_for(asked: Sensor, pipeline: Pipeline) -> None:
    a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, {**SPAN, "dagster/backfill": "abc"})
    assert asked.asks() == [f"{ASKED[0]}...{ASKED[1]}#2"]
    pipeline.instance.add_backfill(with_status(backfill_of_assets(ASKED, NOON), "CANCELED"))
    assert asked.asks() == []


def test_a_backfill_of_the_command_that_was_cancelled_is_not_asked_for(asked: Sensor, pipeline: Pipeline) -> None:
    run = a_run(pipeline.instance, dg.DagsterRunStatus.FAILURE, {**SPAN, BACKFILL: "abc"})
    assert asked.asks() == [f"{ASKED[0]}...{ASKED[1]}#2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backfill, "Postgres", lambda: pipeline.postgres)
        backfill.cancel("abc", pipeline.instance)
    assert asked.asks() == []
    reloaded = pipeline.instance.get_run_by_id(run.run_id)
    assert reloaded
    assert reloaded.tags[WILL_RETRY] == "false"


def test_the_api_is_down_and_the_reason_says_what_was_seen_and_since_when(
    sensor: Sensor, recorded_api: RecordedApi, clock: Clock
) -> None:
    recorded_api.close()
    sensor.tick()
    clock.now = NOON + dt.timedelta(hours=2)
    said = sensor.says()
    assert recorded_api.url in said
    assert "refused" in said
    assert "down since 2023-01-06 12:00:00 UTC" in said


def test_a_200_that_is_no_page_of_users_is_not_available(sensor: Sensor, recorded_api: RecordedApi) -> None:
    recorded_api.tamper = lambda _, page: {**page, "results": []}
    assert "asked for 1 users, and 0 came" in sensor.says()


def test_the_api_is_down_for_too_long_and_the_tick_fails_until_it_is_back(
    sensor: Sensor, recorded_api: RecordedApi, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER_API_TIMEOUT", "3600")
    recorded_api.tamper = lambda _, page: {**page, "results": []}
    sensor.tick()
    clock.now = NOON + dt.timedelta(hours=1)
    assert "down since" in sensor.says()
    for minutes in (61, 62):
        clock.now = NOON + dt.timedelta(minutes=minutes)
        with pytest.raises(automation.ApiDownError) as caught:
            sensor.tick()
        assert "down since 2023-01-06 12:00:00 UTC" in str(caught.value.description)
        assert "USER_API_TIMEOUT allows, 3,600 s" in str(caught.value.description)
    recorded_api.tamper = lambda _, page: page
    assert sensor.asks() == [f"{NEWEST}#1"]


def test_the_api_may_be_down_for_seven_days(sensor: Sensor, recorded_api: RecordedApi, clock: Clock) -> None:
    recorded_api.tamper = lambda _, page: {**page, "results": []}
    sensor.tick()
    clock.now = NOON + dt.timedelta(days=7)
    sensor.tick()
    clock.now += dt.timedelta(seconds=1)
    with pytest.raises(automation.ApiDownError):
        sensor.tick()


def test_the_api_comes_back_and_the_days_that_wait_are_asked_for_at_the_next_poll(
    sensor: Sensor, recorded_api: RecordedApi, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERS_CATCHUP", "true")
    assert pipeline.run("2023-01-01", "2023-01-02").success
    recorded_api.tamper = lambda _, page: {**page, "results": []}
    assert "wait for it" in sensor.says()
    recorded_api.tamper = lambda _, page: page
    assert sensor.asks() == [f"2023-01-03...{NEWEST}#1"]


def test_what_the_api_says_is_observed_when_it_changes_and_when_days_are_asked_for(
    sensor: Sensor, recorded_api: RecordedApi, pipeline: Pipeline
) -> None:
    assert pipeline.run(NEWEST).success
    (first,) = sensor.observes()
    assert first["up"] == 1
    assert 0 < first["latency_seconds"] < 10
    assert sensor.observes() == []
    recorded_api.tamper = lambda _, page: {**page, "results": []}
    (down,) = sensor.observes()
    assert down["up"] == 0
    assert "0 came" in down["problem"]
    assert sensor.observes() == []
    recorded_api.tamper = lambda _, page: page
    assert [seen["up"] for seen in sensor.observes()] == [1]
    assert sensor.observes() == []


def test_the_database_is_down_and_the_days_wait(sensor: Sensor, pipeline: Pipeline) -> None:
    there, pipeline.postgres = pipeline.postgres, Postgres(url="postgresql://u:canary@127.0.0.1:1/users")
    said = sensor.says()
    assert "Postgres cannot be reached" in said
    assert "canary" not in said
    pipeline.postgres = there
    assert sensor.asks() == [f"{NEWEST}#1"]

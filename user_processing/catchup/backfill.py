"""Backfills: what Airflow's `backfill` command does, on Dagster's own run queue. The command itself is in `cli`.

A backfill is a set of queued runs with one tag. Nothing else is kept: the daemon launches what is queued whatever has
died, to cancel is to cancel runs, to resume is to queue those of their days again that were not stored since. If the
command dies before all runs are queued, the same command queues the others.

At most so many of its runs are active: each is in one of as many lanes, and `dagster.yaml` lets one run of a lane run.
"""

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import dagster as dg
import msgspec

from user_processing.catchup import facts
from user_processing.days.runs import (
    BACKFILL,
    BACKWARDS,
    CANCELLED,
    DAYS_PER_RUN,
    LANE,
    MAX_ACTIVE_RUNS,
    PRIORITY,
    WILL_RETRY,
    RunDays,
    spans,
)
from user_processing.internals import graphql
from user_processing.store import tables
from user_processing.store.postgres import Postgres

_RUNS_AT_ONCE = 50
"""Queued in one request, between two lines of progress."""

_LAUNCH = """
mutation ($runs: [ExecutionParams!]!) {
  launchMultipleRuns(executionParamsList: $runs) {
    ... on LaunchMultipleRunsResult { launchMultipleRunsResult { __typename ... on Error { message } } }
    ... on Error { message }
  }
}"""
_LAUNCHED = "LaunchRunSuccess"

_TERMINATE = """
mutation ($runs: [String!]!) {
  terminateRuns(runIds: $runs) {
    ... on TerminateRunsResult { terminateRunResults { __typename } }
    ... on Error { message }
  }
}"""

# A run that is just being started cannot be cancelled yet, and one in progress ends what it is doing.
_SECONDS_TO_CANCEL = 60.0
_SECONDS_BETWEEN = 1.0


class BackfillError(ValueError):
    """The command cannot be done as it stands; the message says why, and what to do."""


class Rules(msgspec.Struct, frozen=True):
    """How the runs of a backfill are cut and ordered, and how many of them are active."""

    days_per_run: int | None
    """None: all that follow each other."""

    max_active_runs: int
    backwards: bool

    def tags(self) -> dict[str, str]:
        """What the runs have, for whoever resumes them."""
        tags = {MAX_ACTIVE_RUNS: str(self.max_active_runs), BACKWARDS: str(self.backwards).lower()}
        return {**tags, DAYS_PER_RUN: str(self.days_per_run)} if self.days_per_run else tags


class Choice(msgspec.Struct, frozen=True):
    """Which days to run, and which to leave out."""

    chosen: Sequence[str]
    stored: Sequence[str]
    failed: Sequence[str]
    busy: Sequence[str]


def choose(
    days: Sequence[str],
    reprocess: str,
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    now: dt.datetime,
) -> Choice:
    """Sort the days by what has become of them; those at work are never chosen.

    Args:
        days: oldest first.
        reprocess: `none` chooses the days that no run has tried, `failed` also those that are not stored although a
            run has tried, `completed` also those that are stored.
        instance: knows the runs.
        repository: the definitions, to read Dagster's own backfills with.
        now: the moment from which a retry by Dagster is waited for.
    """
    attempts, busy = facts.attempts(instance, now)[0], _busy(instance, repository, now)
    with Postgres().transaction() as connection:
        ledger = tables.ledger(connection)
    tried = {day for attempt in attempts for day in attempt.days}
    free = [day for day in days if day not in busy]
    stored = [day for day in free if day in ledger]
    failed = [day for day in free if day not in ledger and day in tried]
    left_out = {*(stored if reprocess != "completed" else ()), *(failed if reprocess == "none" else ())}
    return Choice([day for day in free if day not in left_out], stored, failed, [day for day in days if day in busy])


def lanes(runs: Sequence[RunDays], name: str, rules: Rules) -> list[dict[str, str]]:
    """The tags of each run: its days, its backfill, and the lane that lets one of its runs be active at a time."""
    return [
        {
            **days.tags(),
            **rules.tags(),
            BACKFILL: name,
            LANE: f"{name}-{number % rules.max_active_runs}",
            # The newest day does not wait for old ones.
            PRIORITY: "-1",
        }
        for number, days in enumerate(runs)
    ]


def remaining(name: str, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition) -> list[str]:
    """The days of a backfill that were not stored since it began and are not at work, oldest first.

    Raises:
        BackfillError: there is none of this name.
    """
    records = _known_records(instance, name)
    began, busy = records[0].create_timestamp, _busy(instance, repository, dt.datetime.now(dt.UTC))
    days = {day for record in records for day in facts.days_of(record.dagster_run)}
    with Postgres().transaction() as connection:
        return sorted(days - tables.stored_since(connection, began) - busy.keys())


def rules_of(
    name: str,
    instance: dg.DagsterInstance,
    *,
    days_per_run: int | None,
    max_active_runs: int | None,
    backwards: bool | None,
) -> Rules:
    """What is asked for, or else what the backfill `name` had when last queued, or else what the settings say."""
    queued = _records(instance, name)
    before = queued[-1].dagster_run.tags if queued else {}
    settings = facts.rules()
    if days_per_run is None:
        days_per_run = settings.days_per_run if MAX_ACTIVE_RUNS not in before else _number(before.get(DAYS_PER_RUN))
    return Rules(
        days_per_run=days_per_run,
        max_active_runs=max_active_runs or _number(before.get(MAX_ACTIVE_RUNS)) or settings.max_active_runs,
        backwards=before.get(BACKWARDS) == "true" if backwards is None else backwards,
    )


def cut(days: Sequence[str], rules: Rules) -> list[RunDays]:
    """The runs for these days, in the order in which they are queued."""
    runs = list(spans(days, rules.days_per_run))
    return runs[::-1] if rules.backwards else runs


def queue(
    runs: Sequence[RunDays], name: str, rules: Rules, instance: dg.DagsterInstance, progress: Callable[[int], None]
) -> None:
    """Queue the runs of a backfill; `progress` is told, from time to time, how many of them are.

    Raises:
        BackfillError: Dagster refused one. Those before it are queued.
        GraphqlError: the definitions cannot be loaded.
    """
    tags = lanes(runs, name, rules)
    with graphql.connect(instance) as ask:
        selector = graphql.job_selector(ask, facts.JOB)
        for start in range(0, len(tags), _RUNS_AT_ONCE):
            parameters = [
                {
                    "selector": selector,
                    "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in run.items()]},
                }
                for run in tags[start : start + _RUNS_AT_ONCE]
            ]
            answer = ask(_LAUNCH, {"runs": parameters})["launchMultipleRuns"]
            for run in answer.get("launchMultipleRunsResult", [answer]):
                if run.get("__typename") != _LAUNCHED:
                    raise BackfillError(
                        f"Dagster refused a run: {run.get('message', run)}. The same command queues what is not queued."
                    )
            progress(min(start + _RUNS_AT_ONCE, len(tags)))


class Cancelled(msgspec.Struct, frozen=True):
    """What has become of the runs that were to be cancelled."""

    days: Sequence[str]
    """Of those that are cancelled, oldest first."""

    by_status: Mapping[dg.DagsterRunStatus, int]


def cancel(name: str, instance: dg.DagsterInstance) -> Cancelled:
    """Cancel the runs of a backfill that are queued, and stop those that are in progress.

    Raises:
        BackfillError: there is no such backfill, or some of its runs go on.
    """
    _known_records(instance, name)
    for record in _records(instance, name):
        if record.dagster_run.status == dg.DagsterRunStatus.FAILURE:
            # Dagster would launch it again, and the sensor would ask for its days.
            instance.add_run_tags(record.dagster_run.run_id, {WILL_RETRY: "false", CANCELLED: "true"})
    asked = {run.run_id for run in _active(instance, name)}
    if asked:
        with graphql.connect(instance) as ask:
            until = time.monotonic() + _SECONDS_TO_CANCEL
            while time.monotonic() < until:
                left = _active(instance, name)
                if not left:
                    break
                # Those that wait first: none of them is launched in the place of one that stops.
                left.sort(key=lambda run: run.status != dg.DagsterRunStatus.QUEUED)
                stop = [run.run_id for run in left if run.status != dg.DagsterRunStatus.CANCELING]
                for start in range(0, len(stop), _RUNS_AT_ONCE):
                    ask(_TERMINATE, {"runs": stop[start : start + _RUNS_AT_ONCE]})
                if any(run.status != dg.DagsterRunStatus.QUEUED for run in left):
                    time.sleep(_SECONDS_BETWEEN)
    left = _active(instance, name)
    if left:
        raise BackfillError(
            f"After {_SECONDS_TO_CANCEL:.0f} s these of its runs have still not ended: "
            f"{', '.join(run.run_id for run in left)}. The same command asks them again."
        )
    # Some may have ended by themselves, before they could be stopped.
    ended = [record.dagster_run for record in _records(instance, name) if record.dagster_run.run_id in asked]
    days = {day for run in ended if run.status == dg.DagsterRunStatus.CANCELED for day in facts.days_of(run)}
    return Cancelled(sorted(days), Counter(run.status for run in ended))


class Backfill(msgspec.Struct, frozen=True):
    """A backfill, and what has become of its runs."""

    name: str
    created: dt.datetime
    days: Sequence[str]
    by_status: Mapping[dg.DagsterRunStatus, int]


def backfills(instance: dg.DagsterInstance) -> Iterator[Backfill]:
    """All that there are, oldest first."""
    found = dict(instance.get_run_tags(tag_keys=[BACKFILL])).get(BACKFILL, set())
    listed = sorted(((_records(instance, name), name) for name in found), key=lambda pair: pair[0][0].storage_id)
    for records, name in listed:
        runs = [record.dagster_run for record in records]
        days = sorted({day for run in runs for day in facts.days_of(run)})
        yield Backfill(name, records[0].create_timestamp, days, Counter(run.status for run in runs))


def _busy(instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, now: dt.datetime) -> dict[str, str]:
    """Day → what is at work on it, or waits to be."""
    retried = facts.attempts(instance, now)[1]
    backfilled = facts.backfilling(instance, repository)
    return {**backfilled, **retried, **facts.busy(facts.active(instance))}


def _active(instance: dg.DagsterInstance, name: str) -> list[dg.DagsterRun]:
    return [run for run in facts.active(instance) if run.tags.get(BACKFILL) == name]


def _known_records(instance: dg.DagsterInstance, name: str) -> Sequence[dg.RunRecord]:
    """The runs of a backfill, oldest first.

    Raises:
        BackfillError: there is none of this name.
    """
    records = _records(instance, name)
    if not records:
        raise BackfillError(f"There is no backfill {name}. `user-processing backfill list` shows those that there are.")
    return records


def _records(instance: dg.DagsterInstance, name: str) -> Sequence[dg.RunRecord]:
    return instance.get_run_records(dg.RunsFilter(tags={BACKFILL: name}), ascending=True)


def _number(tag: str | None) -> int | None:
    return int(tag) if tag and tag.isdecimal() else None

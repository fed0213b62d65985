"""`python -m user_processing.backfill`: what Airflow's `backfill` command does, on Dagster's own run queue.

A backfill is a set of queued runs with one tag. Nothing else is kept: the daemon launches what is queued whatever has
died, to cancel is to cancel runs, to resume is to queue those of their days again that were not stored since. If this
command dies before all runs are queued, the same command queues the others.

At most so many of its runs are active: each is in one of as many lanes, and `dagster.yaml` lets one run of a lane run.
"""

import argparse
import contextlib
import datetime as dt
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import msgspec
from dagster._cli.workspace.cli_target import workspace_opts_to_load_target
from dagster._core.remote_representation.grpc_server_registry import GrpcServerRegistry
from dagster._core.storage.tags import WILL_RETRY_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._daemon.controller import all_daemons_live
from dagster._grpc.constants import GrpcServerCommand
from dagster_graphql.cli import execute_query
from dagster_shared.cli import WorkspaceOpts
from dotenv import load_dotenv

from user_processing import automation, catchup, facts, tables
from user_processing.assets import day_ranges
from user_processing.cadence import CADENCE, NoSuchDaysError
from user_processing.definitions import defs
from user_processing.embedded.postgres import EmbeddedPostgresError
from user_processing.resources.postgres import Postgres

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

_HEARTBEAT = 45
"""Seconds after which the code server ends by itself, if this process is killed."""

_STOPPING = {dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED}

# A run that is just being started cannot be cancelled yet.
_TRIES_TO_CANCEL = 20
_SECONDS_BETWEEN = 1.0

_LOCATIONS = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"


class BackfillError(ValueError):
    """The command cannot be done as it stands; the message says why, and what to do."""


class Choice(msgspec.Struct, frozen=True):
    """Which days to run, and which to leave out."""

    chosen: Sequence[str]
    stored: Sequence[str]
    failed: Sequence[str]
    busy: Sequence[str]


def choose(days: Sequence[str], reprocess: str, instance: dg.DagsterInstance, now: dt.datetime) -> Choice:
    """Sort the days by what has become of them; those at work are never chosen.

    Args:
        days: oldest first.
        reprocess: `none` chooses the days that no run has tried, `failed` also those that are not stored although a
            run has tried, `completed` also those that are stored.
        instance: knows the runs.
        now: the moment from which a retry by Dagster is waited for.
    """
    attempts, busy = facts.attempts(instance, now)[0], _busy(instance, now)
    with Postgres().transaction() as connection:
        ledger = {day.isoformat() for day in tables.ledger(connection)}
    tried = {day for attempt in attempts for day in attempt.days}
    free = [day for day in days if day not in busy]
    stored = [day for day in free if day in ledger]
    failed = [day for day in free if day not in ledger and day in tried]
    left_out = {*(stored if reprocess != "completed" else ()), *(failed if reprocess == "none" else ())}
    return Choice([day for day in free if day not in left_out], stored, failed, [day for day in days if day in busy])


def lanes(runs: Sequence[Sequence[str]], name: str, count: int) -> list[dict[str, str]]:
    """The tags of each run: its days, its backfill, and the lane that lets one of its runs be active at a time."""
    return [
        {
            **automation.tags_of_days(days),
            facts.BACKFILL: name,
            facts.LANE: f"{name}-{number % count}",
            # The newest day does not wait for old ones.
            "dagster/priority": "-1",
        }
        for number, days in enumerate(runs)
    ]


def remaining(name: str, instance: dg.DagsterInstance) -> list[str]:
    """The days of a backfill that were not stored since it began and are not at work, oldest first.

    Raises:
        BackfillError: there is none of this name.
    """
    records = _records(instance, name)
    if not records:
        message = f"There is no backfill {name}. `make backfill` lists those that there are."
        raise BackfillError(message)
    began, busy = records[0].create_timestamp, _busy(instance, dt.datetime.now(dt.UTC))
    days = {day for record in records for day in facts.days_of(record.dagster_run)}
    with Postgres().transaction() as connection:
        since = {day.isoformat() for day, loaded_at in tables.loaded_at(connection).items() if loaded_at >= began}
    return sorted(days - since - busy.keys())


def create(options: argparse.Namespace, instance: dg.DagsterInstance) -> None:
    """Queue the runs of a new backfill, or print them."""
    now = dt.datetime.now(dt.UTC)
    days = CADENCE.between(options.first, options.last, now)
    choice = choose(days, options.reprocess, instance, now)
    for which, found, flag in (
        ("stored", choice.stored, "REPROCESS=completed"),
        ("tried and not stored", choice.failed, "REPROCESS=failed"),
        ("at work", choice.busy, None),
    ):
        left_out = [day for day in found if day not in choice.chosen]
        if left_out:
            _print(f"Left out, as they are {which}: {_told(left_out)}." + (f" To run them: {flag}." if flag else ""))
    _queue(options, secrets.token_hex(4), choice.chosen, instance)


def resume(options: argparse.Namespace, instance: dg.DagsterInstance) -> None:
    """Queue the days of a backfill again that were not stored since it began."""
    _queue(options, options.name, remaining(options.name, instance), instance)


def cancel(options: argparse.Namespace, instance: dg.DagsterInstance) -> None:
    """Cancel the runs of a backfill that are queued, and stop those that are at work.

    Raises:
        BackfillError: there is no such backfill, or some of its runs go on.
    """
    remaining(options.name, instance)
    for record in _records(instance, options.name):
        if record.dagster_run.tags.get(WILL_RETRY_TAG) == "true":
            # Dagster would launch it again.
            instance.add_run_tags(record.dagster_run.run_id, {WILL_RETRY_TAG: "false"})
    asked = left = _active(instance, options.name)
    if asked:
        with _graphql(instance) as ask:
            for _ in range(_TRIES_TO_CANCEL):
                # Those that wait first: none of them is launched in the place of one that stops.
                left.sort(key=lambda run: run.status != dg.DagsterRunStatus.QUEUED)
                for start in range(0, len(left), _RUNS_AT_ONCE):
                    ask(_TERMINATE, {"runs": [run.run_id for run in left[start : start + _RUNS_AT_ONCE]]})
                left = [run for run in _active(instance, options.name) if run.status not in _STOPPING]
                if not left:
                    break
                time.sleep(_SECONDS_BETWEEN)
    if left:
        message = f"{len(left):,} runs go on: {', '.join(run.run_id for run in left)}. Try again."
        raise BackfillError(message)
    days = sorted(day for run in asked for day in facts.days_of(run))
    _print(f"{len(asked):,} runs are cancelled" + (f": {_told(days)}." if days else "; none was left."))
    _print(f"To go on: make backfill RESUME={options.name}")


def show(options: argparse.Namespace, instance: dg.DagsterInstance) -> None:
    """List the backfills, newest last, with what has become of their runs."""
    del options
    found = dict(instance.get_run_tags(tag_keys=[facts.BACKFILL])).get(facts.BACKFILL, set())
    if not found:
        _print("There is no backfill yet: make backfill FROM=2023-01-01 TO=2023-01-31")
    listed = sorted(((_records(instance, name), name) for name in found), key=lambda pair: pair[0][0].storage_id)
    for records, name in listed:
        days = sorted({day for record in records for day in facts.days_of(record.dagster_run)})
        by_status: dict[str, int] = {}
        for record in records:
            status = record.dagster_run.status.value.lower()
            by_status[status] = by_status.get(status, 0) + 1
        runs = ", ".join(f"{count:,} {status}" for status, count in sorted(by_status.items()))
        _print(f"{name}  {records[0].create_timestamp:%Y-%m-%d %H:%M:%S}  {_told(days)}  runs: {runs}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m user_processing.backfill", description=__doc__)
    commands = parser.add_subparsers(required=True)
    runs = argparse.ArgumentParser(add_help=False)
    runs.add_argument("--backwards", action="store_true", help="newest days first")
    runs.add_argument("--dry-run", action="store_true", help="print days and runs, and queue nothing")
    runs.add_argument("--max-active-runs", type=_at_least_one, help="without it: USERS_MAX_ACTIVE_RUNS, or else 16")
    runs.add_argument("--days-per-run", type=_at_least_one, help="without it: USERS_DAYS_PER_RUN, or else all")
    new = commands.add_parser("create", parents=[runs], help="queue runs for the days of a range")
    new.add_argument("--from", dest="first", required=True, metavar="DAY", help="the first day, YYYY-MM-DD")
    new.add_argument("--to", dest="last", required=True, metavar="DAY", help="the last day, itself included")
    new.add_argument(
        "--reprocess",
        choices=["none", "failed", "completed"],
        default="none",
        help="which days to run again: none (default), those that are not stored although a run has tried, all",
    )
    new.set_defaults(command=create)
    for name, command, parents, text in (
        ("resume", resume, [runs], "queue what a backfill has not stored"),
        ("cancel", cancel, [], "cancel the runs of a backfill"),
    ):
        known = commands.add_parser(name, parents=parents, help=text)
        known.add_argument("name", help="as `list` shows it")
        known.set_defaults(command=command)
    commands.add_parser("list", help="list the backfills").set_defaults(command=show)
    options = parser.parse_args(arguments)
    load_dotenv(".env")
    try:
        with dg.DagsterInstance.get() as instance:
            options.command(options, instance)
    except (BackfillError, NoSuchDaysError) as error:
        sys.exit(str(error))
    except (dg.Failure, EmbeddedPostgresError) as error:
        sys.exit(str(error.description if isinstance(error, dg.Failure) else error))


def _queue(options: argparse.Namespace, name: str, days: Sequence[str], instance: dg.DagsterInstance) -> None:
    settings = automation.settings_of_environment()
    count = options.max_active_runs or settings.max_active_runs
    runs = list(catchup.chunks(days, options.days_per_run or settings.days_per_run))
    if options.backwards:
        runs.reverse()
    if not runs:
        _print("No day is left to run.")
        return
    active = f", at most {count:,} of them active" if len(runs) > count else ""
    _print(f"{len(days):,} days in {len(runs):,} runs{active}:")
    for chunk in runs:
        _print(f"  {catchup.span(chunk)}" + (f"  {len(chunk):,} days" if len(chunk) > 1 else ""))
    if options.dry_run:
        _print("Nothing is queued: this was a dry run.")
        return
    tags = lanes(runs, name, count)
    _print(f"This is backfill {name}. To cancel it: make backfill CANCEL={name}")
    with _graphql(instance) as ask:
        repositories = ask(_LOCATIONS, {})["repositoriesOrError"]["nodes"]
        if len(repositories) != 1:
            message = "The definitions cannot be loaded: `dagster definitions validate` says why."
            raise BackfillError(message)
        repository = repositories[0]
        selector = {
            "repositoryLocationName": repository["location"]["name"],
            "repositoryName": repository["name"],
            "jobName": automation.user_processing.name,
        }
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
                    message = (
                        f"Dagster refused a run: {run.get('message', run)}. The same command queues what is not queued."
                    )
                    raise BackfillError(message)
            _print(f"{min(start + _RUNS_AT_ONCE, len(tags)):,} of {len(tags):,} runs are queued.")
    if not all_daemons_live(instance):
        _print("No daemon is at work on this instance, so nothing is launched until `make dev` runs.")


@contextlib.contextmanager
def _graphql(instance: dg.DagsterInstance) -> Iterator[Any]:
    """Ask Dagster's GraphQL API in this process, with the code locations of workspace.yaml."""
    target = workspace_opts_to_load_target(WorkspaceOpts(workspace=("workspace.yaml",)))
    servers = GrpcServerRegistry(
        instance_ref=instance.get_ref(),
        server_command=GrpcServerCommand.API_GRPC,
        heartbeat_ttl=_HEARTBEAT,
        startup_timeout=instance.code_server_process_startup_timeout,
        log_level="error",
        # Nothing of this command is left when it ends.
        wait_for_processes_on_shutdown=True,
    )
    with servers, WorkspaceProcessContext(instance, target, grpc_server_registry=servers) as workspace:

        def ask(query: str, variables: Mapping[str, object]) -> dict[str, Any]:
            answer = execute_query(workspace, query, variables)
            if answer.get("errors"):
                raise BackfillError(answer["errors"][0]["message"])
            data: dict[str, Any] = answer["data"]
            return data

        yield ask


def _busy(instance: dg.DagsterInstance, now: dt.datetime) -> dict[str, str]:
    """Day → what is at work on it, or waits to be."""
    retried = facts.attempts(instance, now)[1]
    backfilled = facts.backfilling(instance, defs.get_repository_def())
    return {**backfilled, **retried, **facts.busy(facts.active(instance))}


def _active(instance: dg.DagsterInstance, name: str) -> list[dg.DagsterRun]:
    return [run for run in facts.active(instance) if run.tags.get(facts.BACKFILL) == name]


def _records(instance: dg.DagsterInstance, name: str) -> Sequence[dg.RunRecord]:
    return instance.get_run_records(dg.RunsFilter(tags={facts.BACKFILL: name}), ascending=True)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        message = f"{number} is not 1 or more"
        raise argparse.ArgumentTypeError(message)
    return number


def _told(days: Sequence[str]) -> str:
    return day_ranges(dt.date.fromisoformat(day) for day in days)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

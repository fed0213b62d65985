"""Dagster's GraphQL API, asked in this process: runs that a daemon is to launch are queued and stopped through it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import dagster as dg
from dagster._cli.workspace.cli_target import workspace_opts_to_load_target
from dagster._core.remote_representation.grpc_server_registry import GrpcServerRegistry
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._grpc.constants import GrpcServerCommand
from dagster_graphql.cli import execute_query
from dagster_shared.cli import WorkspaceOpts

Ask: TypeAlias = Callable[[str, Mapping[str, object]], dict[str, Any]]

_HEARTBEAT = 45
"""Seconds after which the code server ends by itself, if this process is killed."""

_LOCATIONS = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"


class GraphqlError(RuntimeError):
    """Dagster refused a request; the message is its own."""


@contextlib.contextmanager
def connect(instance: dg.DagsterInstance) -> Iterator[Ask]:
    """Ask with the code locations of `workspace.yaml` in this folder, or else with this package as the only one."""
    here = WorkspaceOpts(workspace=("workspace.yaml",))
    target = workspace_opts_to_load_target(
        here if Path("workspace.yaml").is_file() else WorkspaceOpts(module_name=("user_processing",))
    )
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
                raise GraphqlError(answer["errors"][0]["message"])
            data: dict[str, Any] = answer["data"]
            return data

        yield ask


def job_selector(ask: Ask, job: str) -> dict[str, str]:
    """The selector of a job of the one code location that there is.

    Raises:
        GraphqlError: there is none that loads, or several.
    """
    repositories = ask(_LOCATIONS, {})["repositoriesOrError"].get("nodes", [])
    if len(repositories) != 1:
        raise GraphqlError("The definitions cannot be loaded: `dagster definitions validate` says why.")
    (repository,) = repositories
    return {
        "repositoryLocationName": repository["location"]["name"],
        "repositoryName": repository["name"],
        "jobName": job,
    }

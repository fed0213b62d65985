"""A run of the assets in this process, with resources of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from user_processing import assets, automation, checks
from user_processing.columns import Column
from user_processing.source import contract
from user_processing.source import user_api as user_api_module
from user_processing.source.user_api import UserApi
from user_processing.steps import fetch, process
from user_processing.store import manifests, tables
from user_processing.store.day_files import DayFiles
from user_processing.store.postgres import Postgres
from user_processing_tests.support.recorded_api import RecordedApi

ALL = [assets.users_table, assets.raw_user, assets.processed_user_csv, assets.stored_users]


class Pipeline:
    """The four assets with resources of their own."""

    def __init__(self, database: str, folder: Path) -> None:
        self.instance = dg.DagsterInstance.ephemeral(tempdir=str(folder.with_name("instance")))
        self.folder = folder
        self.postgres = Postgres(url=database)
        self.user_api = UserApi()
        self.day_files = DayFiles(url=str(folder))
        self.reconciliation = checks.reconciliation

    @property
    def resources(self) -> dict[str, Any]:
        return {
            "user_api": self.user_api,
            "postgres": self.postgres,
            "day_files": self.day_files,
        }

    def ask(self, api: RecordedApi, **options: Any) -> None:  # noqa: ANN401
        """Take the users from this API from now on."""
        self.user_api = UserApi(url=api.url, backoff_seconds=0, **options)

    def run(
        self, first: str, last: str | None = None, *, select: list[str] | None = None, **config: object
    ) -> dg.ExecuteInProcessResult:
        """Materialize the assets for one day, or for the days from the first to the last; never raises."""
        options: dict[str, Any] = {"partition_key": first}
        if last:
            options = {
                "tags": {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
            }
        return dg.materialize(
            [*ALL, self.reconciliation],
            instance=self.instance,
            resources=self.resources,
            run_config={"ops": {"raw_user": {"config": config}}} if config else None,
            selection=select,
            raise_on_error=False,
            **options,
        )

    def run_job(
        self,
        first: str,
        last: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run the job `user_processing` for one day or a range of days, with the tags and the config of a request."""
        definitions = dg.Definitions(
            assets=ALL,
            asset_checks=[self.reconciliation],
            resources=self.resources,
            jobs=[automation.user_processing],
        )
        tags = dict(tags or {})
        if last:
            tags |= {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        return definitions.resolve_job_def("user_processing").execute_in_process(
            instance=self.instance,
            partition_key=None if "dagster/asset_partition_range_start" in tags else first,
            tags=tags,
            run_config=run_config,
            raise_on_error=False,
        )

    def checked(self, result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
        """What each check of a run came to."""
        return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}

    def check(self, name: str | None = None) -> dict[str, dg.AssetCheckEvaluation]:
        """Run the checks by themselves, or one of them, over all days."""
        definitions = dg.Definitions(
            assets=ALL, asset_checks=[self.reconciliation], resources=self.resources, jobs=[automation.morning_checks]
        )
        job = definitions.resolve_job_def("morning_checks")
        chosen = dg.AssetCheckKey(assets.stored_users.key, name) if name else None
        if chosen:
            job = job.get_subset(asset_selection=set(), asset_check_selection={chosen})
        return self.checked(job.execute_in_process(instance=self.instance))

    def error(self, result: dg.ExecuteInProcessResult) -> str:
        """What the step that failed said."""
        (event,) = [event for event in result.all_events if event.is_step_failure]
        data = event.step_failure_data
        return (data.user_failure_data.description if data.user_failure_data else None) or str(data.error)

    def events(self, asset: str) -> list[tuple[str | None, dict[str, Any]]]:
        """Day and metadata of every materialization of an asset, oldest first."""
        records = self.instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
        found = []
        for record in reversed(records):
            materialization = record.asset_materialization
            assert materialization
            values = {name: value.value for name, value in materialization.metadata.items()}
            found.append((materialization.partition, values))
        return found


def use_columns(monkeypatch: pytest.MonkeyPatch, listed: Sequence[Column]) -> None:
    """Let the pipeline have other columns than those of the list."""
    paths = {column.name: column.path for column in listed}
    included = ",".join(dict.fromkeys(path.partition(".")[0] for path in paths.values()))
    for module in (contract, fetch, process, manifests, user_api_module, tables):
        for name, value in {
            "COLUMNS": listed,
            "NAMES": tuple(paths),
            "PATHS": paths,
            "INCLUDED": included,
            "_shape": contract._Shape,  # noqa: SLF001 - the shapes that are known have the listed columns
            "_COPY_USERS": tables._copy_users(listed),  # noqa: SLF001
        }.items():
            if name in vars(module):
                monkeypatch.setattr(module, name, value)

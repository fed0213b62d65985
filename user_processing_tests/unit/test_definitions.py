"""What Dagster sees of the project: that it loads, and that it is what its users expect."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

import user_processing
from user_processing import assets
from user_processing.definitions import defs

ROOT = Path(user_processing.__file__).parents[1]


def test_the_definitions_are_loadable() -> None:
    dg.Definitions.validate_loadable(defs)


def test_the_package_is_the_code_location() -> None:
    assert user_processing.defs is defs
    assert "defs" in dir(user_processing)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = user_processing.nothing


def test_the_assets_follow_each_other_in_the_seed_s_order() -> None:
    graph = defs.resolve_asset_graph()
    chain = ["users_table", "raw_user", "processed_user_csv", "stored_users"]
    made = [key.to_user_string() for key in graph.toposorted_asset_keys if key in graph.materializable_asset_keys]
    assert made == chain
    assert graph.external_asset_keys == {dg.AssetKey("user_api")}
    for before, after in itertools.pairwise(chain):
        assert graph.get(dg.AssetKey(after)).parent_keys - graph.external_asset_keys == {dg.AssetKey(before)}


@pytest.mark.parametrize("name", ["users_table", "raw_user", "processed_user_csv", "stored_users"])
def test_every_asset_says_what_it_is(name: str) -> None:
    node = defs.resolve_asset_graph().get(dg.AssetKey(name))
    assert node.group_name == "user_processing"
    assert node.owners == ["team:data-engineering"]
    assert node.kinds
    assert node.description
    assert node.backfill_policy == dg.BackfillPolicy.single_run()
    assert (node.partitions_def is None) == (name == "users_table")
    if name != "raw_user":
        columns = [column.name for column in node.metadata["dagster/column_schema"].columns]
        assert columns[:6] == ["firstname", "lastname", "country", "username", "password", "email"]


def test_a_run_of_the_job_is_one_process() -> None:
    assert defs.resolve_job_def("user_processing").executor_def is dg.in_process_executor


def test_two_settings_are_part_of_the_definitions_and_no_value_of_another_is() -> None:
    """In a process of its own: the definitions look at the variables when they are imported."""
    secrets = {
        "USER_API_URL": "https://canary-user:canary-password@api.example/?key=canary-key",
        "USERS_POSTGRES_URL": "postgresql://canary-user:canary-password@db.example/users",
        "USERS_FILES_URL": "s3://canary-key:canary-secret@bucket/users",
    }
    program = """
import dagster as dg
from dagster._core.remote_representation.external_data import RepositorySnap
from user_processing.definitions import defs
print(dg.serialize_value(RepositorySnap.from_def(defs.get_repository_def())))
node = defs.resolve_asset_graph().get(dg.AssetKey("stored_users"))
print(node.backfill_policy.max_partitions_per_run, defs.resolve_sensor_def("api_availability").minimum_interval_seconds)
"""
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, **secrets, "USERS_DAYS_PER_RUN": "8", "USER_API_POKE_INTERVAL": "7"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert all(name in said for name in secrets), "the descriptions of the fields name the variables"
    assert "canary" not in said
    assert said.splitlines()[-1] == "8 7"


def test_without_settings_a_backfill_is_one_run_and_the_api_is_polled_each_minute() -> None:
    assert assets.stored_users.backfill_policy == dg.BackfillPolicy.single_run()
    assert defs.resolve_sensor_def("api_availability").minimum_interval_seconds == 60


def test_importing_the_package_does_not_load_dagster() -> None:
    """The processes of the stand-in and of the reaper have no use for it."""
    program = (
        "import sys, user_processing.embedded.api, user_processing.embedded.reaper; print('dagster' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert said == "False\n"


def test_assets_run_over_days_from_the_first_one() -> None:
    assert assets.days.get_first_partition_key() == "2023-01-01"

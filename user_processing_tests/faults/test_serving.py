"""What the README says of `dagster dev` and `dg dev`, and of commands beside them, in a checkout of their own."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from user_processing_tests.integration.test_commands import BESIDE_DEV, DEV
from user_processing_tests.support.checkout import Checkout, checkout_in, wait_for

pytestmark = pytest.mark.xdist_group("serving")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    with checkout_in(tmp_path_factory.mktemp("checkout")) as checkout:
        yield checkout


def test_beside_a_running_dagster_dev_a_job_and_a_backfill_are_launched(checkout: Checkout, tmp_path: Path) -> None:
    with checkout.serving(f"{DEV[0]} --port {{port}}", tmp_path / "dev.log") as dev:
        for command in BESIDE_DEV:
            checkout.run(command.replace("make ", "make -o .venv/installed "))
        launched = {f"2023-04-0{day}" for day in (1, 2, 3, 5, 6, 7, 8)}
        wait_for(lambda: launched <= set(checkout.days()))
        # One instance: the UI knows of runs that were made by other commands before it was opened.
        runs = dev.graphql("{ runsOrError { ... on Runs { results { status jobName } } } }")
        assert len(runs["runsOrError"]["results"]) > 3
        dev.kill(signal.SIGKILL)
    checkout.run("dagster asset materialize -m user_processing --select '*' --partition 2023-04-04")
    assert "2023-04-04" in checkout.days()


def test_dg_dev_in_another_folder_of_the_checkout_opens_the_same_instance(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run("dagster asset materialize -m user_processing --select users_table")
    elsewhere = checkout.folder / "elsewhere"
    elsewhere.mkdir()
    command = f'bash -c "cd {elsewhere} && exec dg dev --port {{port}}"'
    with checkout.serving(command, tmp_path / "dev.log") as dev:
        runs = dev.graphql("{ runsOrError { ... on Runs { results { status } } } }")
        assert runs["runsOrError"]["results"]
    assert list(elsewhere.iterdir()) == []


def test_dg_dev_serves_the_same_project(checkout: Checkout, tmp_path: Path) -> None:
    with checkout.serving(f"{DEV[1]} --port {{port}}", tmp_path / "dev.log") as dev:
        said = dev.graphql("{ assetNodes { assetKey { path } } }")
        assert len(said["assetNodes"]) == 5
        assert dev.kill(signal.SIGINT) == 0

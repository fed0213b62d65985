"""The README's commands, as they stand there, in a checkout of their own that nothing is configured for."""

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from user_processing_tests.support.checkout import ROOT, Checkout, checkout_in, wait_for

ONE_SHOT = [
    "dagster asset materialize -m user_processing --select '*' --partition 2023-01-01",
    "dagster asset materialize -m user_processing --select '*' --partition-range 2023-01-01...2023-01-31",
    "dg launch --assets '*' --partition 2023-01-02",
    "dg launch --assets '*' --partition-range 2023-02-01...2023-02-03",
    """dagster job execute -m user_processing -j user_processing --tags '{"dagster/partition": "2023-01-03"}'""",
]
DEV = ["dagster dev", "dg dev"]
BESIDE_DEV = [
    """dagster job launch -w workspace.yaml -j user_processing --tags '{"dagster/partition": "2023-04-01"}'""",
    "dagster job backfill -w workspace.yaml -j user_processing --from 2023-04-02 --to 2023-04-03 --noprompt",
    "make backfill FROM=2023-04-05 TO=2023-04-08",
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    with checkout_in(tmp_path_factory.mktemp("checkout")) as checkout:
        yield checkout


def readme_commands() -> list[str]:
    """The command lines of the README, as they stand there."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for line in "".join(blocks).splitlines() if line and not line.startswith("#")]


def test_every_command_of_the_readme_is_run_here_or_by_ci_or_in_containers() -> None:
    run_by_ci = (ROOT / ".ci" / "run").read_text().splitlines()
    others = [command for command in readme_commands() if command not in run_by_ci]
    # Run by `make test-compose`, which needs a Docker engine.
    in_containers = ["deploy/secrets.sh", "docker compose up --build --detach --wait"]
    assert others == [*ONE_SHOT, *DEV, *BESIDE_DEV, *in_containers]


@pytest.mark.parametrize("command", ONE_SHOT)
def test_a_command_of_the_readme_stores_its_days(checkout: Checkout, command: str) -> None:
    first, last = (found := re.findall(r"\d{4}-\d\d-\d\d", command))[0], found[-1]
    said = checkout.run(command)
    count = dt.date.fromisoformat(last).toordinal() - dt.date.fromisoformat(first).toordinal() + 1
    assert checkout.query(
        "SELECT count(*), count(DISTINCT partition_date) FROM users "
        f"WHERE partition_date BETWEEN '{first}' AND '{last}'"
    ) == [(count, count)]
    # What is embedded is said once each, with the variable that changes it.
    assert len(re.findall(r"the embedded Postgres in .* Set USERS_POSTGRES_URL", said)) == 1
    assert len(re.findall(r"the embedded stand-in\. Set USER_API_URL", said)) == 1


@pytest.mark.parametrize(
    ("days", "said"),
    [
        ("--partition 2022-12-31", "2022-12-31"),
        ("", "partition"),
    ],
)
def test_days_that_cannot_be_are_refused(checkout: Checkout, days: str, said: str) -> None:
    before = checkout.days()
    finished = checkout.try_to(f"dagster asset materialize -m user_processing --select '*' {days}")
    assert finished.returncode != 0
    assert said in finished.stdout
    assert checkout.days() == before


def test_the_definitions_are_valid(checkout: Checkout) -> None:
    """`dg check defs` calls `dagster definitions validate`."""
    said = checkout.run("dg check defs", PYTHONWARNINGS="default::DeprecationWarning")
    assert "All definitions loaded successfully." in said
    assert "DeprecationWarning" not in "".join(line for line in said.splitlines() if "user_processing" in line)


def test_make_run_takes_the_days_it_is_told_and_shows_what_is_stored(checkout: Checkout) -> None:
    said = checkout.run("make -o .venv/installed run FROM=2023-03-01 TO=2023-03-03")
    assert {"2023-03-01", "2023-03-02", "2023-03-03"} <= set(checkout.days())
    assert "3 users of 3 days, stored in " in said
    assert re.search(r"^2023-03-03 +1\b", said, re.MULTILINE)
    assert "make dev" in said
    (password,) = checkout.query("SELECT password FROM users WHERE partition_date = '2023-03-03'")[0]
    assert password not in said.partition("users of")[2]


def test_make_run_is_one_run_also_where_backfills_are_several(checkout: Checkout) -> None:
    """Dagster refuses a range on its command line where the definitions say so many days a run."""
    with (checkout.folder / ".env").open("a") as settings:
        settings.write("USERS_DAYS_PER_RUN=2\n")
    refused = checkout.try_to(
        "dagster asset materialize -m user_processing --select '*' --partition-range 2023-03-04...2023-03-06"
    )
    assert refused.returncode != 0
    assert "single_run" in refused.stdout
    checkout.run("make -o .venv/installed run FROM=2023-03-04 TO=2023-03-06")
    assert {"2023-03-04", "2023-03-05", "2023-03-06"} <= set(checkout.days())
    (checkout.folder / ".env").unlink()
    checkout.run("make .env")


def test_the_table_is_made_by_itself(checkout: Checkout) -> None:
    checkout.run("dagster asset materialize -m user_processing --select users_table")
    assert checkout.query("SELECT to_regclass('users') IS NOT NULL") == [(True,)]


def test_make_psql_opens_the_users_database(checkout: Checkout) -> None:
    assert "(0 rows)" in checkout.run("echo 'SELECT 1 WHERE false' | make -o .venv/installed psql")


def test_make_help_lists_every_target(checkout: Checkout) -> None:
    said = checkout.run("make help")
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    assert [line.split()[0] for line in said.splitlines()] == targets[1].split()


def test_make_api_runs_the_stand_in_by_itself(checkout: Checkout) -> None:
    said = checkout.run("timeout --signal=INT 5 make -o .venv/installed api PORT=0 || true")
    assert re.search(r"^Users at http://127\.0\.0\.1:\d+/api/1\.4/$", said, re.MULTILINE)


@pytest.mark.xdist_group("serving")
def test_dev_says_last_where_the_ui_is_and_ends_on_sigterm_where_sigint_is_ignored(
    checkout: Checkout, tmp_path: Path
) -> None:
    """As a script starts it in the background."""
    log = tmp_path / "dev.log"
    command = """bash -c "trap '' INT; exec python -m user_processing dev --port {port}\""""
    with checkout.serving(command, log) as dev:
        wait_for(lambda: dev.url in log.read_text())
        said = log.read_text()
        assert said.splitlines()[-1] == f"The UI is on {dev.url}"
        assert "DEBUG" not in said
        assert "INFO" not in said
        nodes = dev.graphql("{ assetNodes { assetKey { path } } }")
        assert len(nodes["assetNodes"]) == 5
        assert dev.terminate() == 0

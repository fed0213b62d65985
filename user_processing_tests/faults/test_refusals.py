"""Days that cannot be are refused by every command: the wrong way round, in the future, before the first, none."""

import re
from collections.abc import Iterator

import pytest

from user_processing_tests.support.checkout import TOMORROW, Checkout, checkout_in

pytestmark = pytest.mark.xdist_group("refusals")

REVERSED, FUTURE, EARLY, NONE = "2023-02-05 2023-02-02", f"2026-01-01 {TOMORROW}", "2022-12-30 2023-01-02", "foo bar"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    with checkout_in(tmp_path_factory.mktemp("checkout")) as checkout:
        yield checkout


@pytest.mark.parametrize("days", [REVERSED, FUTURE, EARLY, NONE])
@pytest.mark.parametrize("command", ["backfill FROM={} TO={}", "run FROM={} TO={}"])
def test_the_project_s_own_commands_say_what_is_wrong(checkout: Checkout, command: str, days: str) -> None:
    first, last = days.split()
    finished = checkout.try_to(f"make -o .venv/installed {command.format(first, last)}")
    assert finished.returncode != 0
    assert first in finished.stdout
    assert re.search(r"earlier day first|not within the days|is not a day", finished.stdout)
    assert "Traceback" not in finished.stdout
    assert checkout.days() == []


@pytest.mark.parametrize("days", [REVERSED, FUTURE])
@pytest.mark.parametrize(
    "command",
    [
        "dagster asset materialize -m user_processing --select '*' --partition-range {}...{}",
        "dg launch --assets '*' --partition-range {}...{}",
        "dagster job backfill -w workspace.yaml -j user_processing --from {} --to {} --noprompt",
    ],
)
def test_dagster_s_commands_fail_and_store_nothing(checkout: Checkout, command: str, days: str) -> None:
    finished = checkout.try_to(command.format(*days.split()))
    assert finished.returncode != 0
    # A backfill of the job goes through Dagster's own partitions, which have other words.
    if days == REVERSED and not command.startswith("dagster job"):
        assert "Give the earlier day first" in finished.stdout
    assert checkout.days() == []

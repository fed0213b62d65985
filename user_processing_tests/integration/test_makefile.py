"""The Makefile in a checkout of its own: which variables it takes, and what it keeps right."""

import re
import shutil
import socket
from pathlib import Path

import pytest
from dotenv import dotenv_values

from user_processing_tests.support.checkout import ROOT, Checkout
from user_processing_tests.support.hostile_api import HostileApi, answers


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder = tmp_path / "one"
    folder.mkdir()
    return Checkout(folder)


@pytest.mark.parametrize(
    ("arguments", "unknown", "nearest"),
    [
        ("backfill FROM=2023-01-01 TO=2023-01-02 DRYRUN=1", "DRYRUN", "DRY_RUN"),
        ("backfill FROM=2023-01-01 TO=2023-01-02 BACKWARD=1", "BACKWARD", "BACKWARDS"),
        ("run Day=2023-01-01", "Day", "DAY"),
        ("run USERS_PER_DAYS=3", "USERS_PER_DAYS", "USERS_PER_DAY"),
        ("dev PORT=3001", "PORT", "UI_PORT"),
    ],
)
def test_a_variable_that_a_target_does_not_know_is_refused_with_the_nearest_name(
    checkout: Checkout, arguments: str, unknown: str, nearest: str
) -> None:
    finished = checkout.try_to(f"make {arguments}")
    assert finished.returncode == 2
    assert f"has no variable {unknown}. Did you mean {nearest}?" in finished.stdout
    # Before anything was built or run.
    assert finished.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ("run", "run"),
        ("run DAY=2023-01-01", "run --day '2023-01-01'"),
        ("run FROM=2023-01-01 TO=2023-01-02 FRESH=1", "run --from '2023-01-01' --to '2023-01-02' --fresh"),
        ("run FROM=2023-01-01", "run --from '2023-01-01'"),
        ("run USERS_PER_DAY=5", "run"),
        ("backfill", "backfill list"),
        ("backfill CANCEL=abc", "backfill cancel 'abc'"),
        ("backfill RESUME=abc DAYS_PER_RUN=3 BACKWARDS=0", "backfill resume 'abc' --days-per-run '3' --forwards"),
        (
            "backfill FROM=2023-01-01 TO=2023-01-31 MAX_ACTIVE_RUNS=2 BACKWARDS=1 DRY_RUN=1 REPROCESS=failed YES=1",
            (
                "backfill create --from '2023-01-01' --to '2023-01-31' --reprocess 'failed' --max-active-runs '2' "
                "--backwards --dry-run --yes"
            ),
        ),
        ("backfill FROM=2023-01-01 TO=2023-01-31 DRY_RUN=0", "backfill create --from '2023-01-01' --to '2023-01-31'"),
        ("dev UI_PORT=3001", "dev --port '3001'"),
        ("api PORT=0", "api --port '0'"),
        ("reset YES=1", "reset --yes"),
    ],
)
def test_a_target_is_one_command(checkout: Checkout, arguments: str, command: str) -> None:
    said = checkout.run(f"make -n -o .venv/installed -o .env {arguments}")
    (given,) = re.findall(r"-m user_processing (.*)", said)
    assert given.split() == command.split()


def test_the_env_file_names_this_folder_and_follows_it(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run("make .env")
    file = checkout.folder / ".env"
    assert dotenv_values(file)["DAGSTER_HOME"] == str(checkout.folder)
    assert file.stat().st_mode & 0o077 == 0
    with file.open("a") as lines:
        lines.write("USERS_PER_DAY=3\n")
    moved = tmp_path / "it's moved"
    checkout.folder.rename(moved)
    checkout.folder = moved
    checkout.run("make .env")
    assert dotenv_values(moved / ".env") == {"DAGSTER_HOME": str(moved), "USERS_PER_DAY": "3"}
    once = (moved / ".env").read_text()
    checkout.run("make .env")
    assert (moved / ".env").read_text() == once


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# mine\nDAGSTER_HOME=${PWD}\nUSERS_PER_DAY=3\n", {"DAGSTER_HOME": None, "USERS_PER_DAY": "3"}),
        ("DAGSTER_HOME=/srv/dagster\nUSERS_PER_DAY=3\n", {"DAGSTER_HOME": "/srv/dagster", "USERS_PER_DAY": "3"}),
        ("USERS_PER_DAY=3\n", {"DAGSTER_HOME": None, "USERS_PER_DAY": "3"}),
    ],
)
def test_lines_that_somebody_has_written_stay(checkout: Checkout, before: str, after: dict[str, str | None]) -> None:
    file = checkout.folder / ".env"
    file.write_text(before)
    checkout.run("make .env")
    wanted = {name: value or str(checkout.folder) for name, value in after.items()}
    assert dotenv_values(file) == wanted
    kept = [line for line in before.splitlines() if "${PWD}" not in line]
    assert [line for line in file.read_text().splitlines() if line in kept] == kept


def test_a_moved_folder_builds_its_environment_anew(checkout: Checkout, tmp_path: Path) -> None:
    (checkout.folder / ".venv").unlink()
    shutil.copy(ROOT / "requirements.lock", checkout.folder)
    stamp = checkout.folder / ".venv" / "installed"
    stamp.parent.mkdir()
    stamp.write_text(f"{checkout.folder}\n")
    assert "Building .venv" not in checkout.run("make -n .venv/installed")
    moved = tmp_path / "moved"
    checkout.folder.rename(moved)
    checkout.folder = moved
    said = checkout.run("make -n .venv/installed")
    assert "Building .venv" in said
    assert "-m venv --clear .venv" in said


@pytest.mark.parametrize("reached", [True, False])
def test_a_package_index_that_cannot_be_reached_is_told_and_only_then(checkout: Checkout, *, reached: bool) -> None:
    (checkout.folder / ".venv").unlink()
    digest = "0" * 64
    (checkout.folder / "requirements.lock").write_text(f"nothing-of-this-name==1.0 --hash=sha256:{digest}\n")
    with HostileApi() as index:
        index.always = answers("404 Not Found")  # it has no package
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = index.server_address[1] if reached else closed.getsockname()[1]
        finished = checkout.try_to(
            "make .venv/installed",
            PIP_INDEX_URL=f"http://127.0.0.1:{port}/simple",
            PIP_EXTRA_INDEX_URL="",
            PIP_CONFIG_FILE="/dev/null",
            PIP_RETRIES="1",
            NO_PROXY="127.0.0.1",
        )
    assert finished.returncode == 2
    assert "No matching distribution found for nothing-of-this-name" in finished.stdout
    assert ("The package index cannot be reached." in finished.stdout) is not reached


def test_clean_keeps_the_data(checkout: Checkout) -> None:
    (checkout.folder / ".venv").unlink()
    data = checkout.folder / ".local" / "postgres" / "data"
    data.mkdir(parents=True)
    (checkout.folder / ".ruff_cache").mkdir()
    checkout.run("make clean")
    assert data.is_dir()
    assert not (checkout.folder / ".ruff_cache").exists()

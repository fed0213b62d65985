"""What can be said of docker-compose.yml and its scripts without a Docker engine; `make test-compose` has the rest."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from user_processing.settings import Settings
from user_processing_tests.support.checkout import ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if name != "postgres"}


def test_one_service_builds_the_image_of_all() -> None:
    assert [name for name, service in SERVICES.items() if "build" in service] == ["code"]
    assert {service["image"] for service in OURS.values()} == {"user_processing:local"}
    assert {service["pull_policy"] for service in OURS.values()} == {"never"}


@pytest.mark.parametrize("name", ["code", "webserver", "daemon"])
def test_every_setting_reaches_the_containers(name: str) -> None:
    settings = {field.upper() for field in Settings.model_fields}
    # The image forbids what is embedded; the folder is the volume.
    assert SERVICES[name]["environment"].keys() - {"PGPASSFILE"} == settings - {"USERS_EMBEDDED", "USERS_DATA_DIR"}
    for variable, value in SERVICES[name]["environment"].items():
        assert variable == "PGPASSFILE" or value is None or value.startswith(f"${{{variable}:-"), variable


def test_no_variable_holds_a_password() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            assert "PASSWORD" not in variable or variable in {"USERS_PASSWORDS", "POSTGRES_PASSWORD_FILE"}, name
            assert "@" not in str(value) or "://postgres@postgres/" in str(value), name


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_is_bounded_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["mem_limit"]
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder with the script, which has made no secret yet."""
    (tmp_path / "deploy").mkdir()
    shutil.copy2(ROOT / "deploy" / "secrets.sh", tmp_path / "deploy")
    return tmp_path / ".secrets"


def write_secrets(folder: Path, *arguments: str, password: str = "", ok: bool = True) -> None:
    script = folder.parent / "deploy" / "secrets.sh"
    environment = {name: value for name, value in os.environ.items() if name != "SECRETS_FOLDER"}
    finished = subprocess.run(
        [script, *arguments], check=False, env=environment, input=password, text=True, stderr=subprocess.PIPE
    )
    assert (finished.returncode == 0) == ok, finished.stderr
    assert ok or finished.stderr == "The password is empty, so nothing was changed.\n"


def read(folder: Path) -> tuple[str, str]:
    return (folder / "postgres_password").read_text(), (folder / "pgpass").read_text()


def test_a_random_password_is_made_once_and_nobody_else_can_reach_it(secrets: Path) -> None:
    write_secrets(secrets)
    password, pgpass = read(secrets)
    assert len(password.strip()) == 48
    assert pgpass == f"postgres:*:*:postgres:{password}"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    # Whoever the users in the containers are, they can read it: Docker gives them the file without its folder.
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets.iterdir()} == {0o644}
    write_secrets(secrets)
    assert read(secrets) == (password, pgpass)


def test_a_password_is_given_and_lines_for_other_servers_stay(secrets: Path) -> None:
    write_secrets(secrets)
    with (secrets / "pgpass").open("a") as pgpass:
        pgpass.write("db.example.com:5432:*:loader:other\n")
    for ends in ("\n", ""):
        write_secrets(secrets, "-", password="a:b\\c %s'" + ends)
        password, lines = read(secrets)
        assert password == "a:b\\c %s'\n"
        assert lines == "postgres:*:*:postgres:a\\:b\\\\c %s'\ndb.example.com:5432:*:loader:other\n"


def test_an_empty_password_is_refused_and_the_old_one_stays(secrets: Path) -> None:
    write_secrets(secrets)
    before = read(secrets)
    write_secrets(secrets, "-", ok=False)
    assert read(secrets) == before


@pytest.mark.parametrize("value", ["elsewhere", "'elsewhere'", '"elsewhere"'])
def test_the_folder_of_the_secrets_may_be_named_where_compose_reads_it(secrets: Path, value: str) -> None:
    (secrets.parent / ".env").write_text(f"UI_PORT=3001\nSECRETS_FOLDER={value}\nUSERS_PER_DAY=2\n")
    write_secrets(secrets)
    assert (secrets.parent / "elsewhere" / "pgpass").exists()
    assert not secrets.exists()


def test_without_an_engine_the_containers_are_said_not_to_be_tested() -> None:
    finished = subprocess.run(
        ["make", "test-compose", "QUEUED_BACKFILL=1", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        env=os.environ | {"DOCKER_HOST": "unix:///nowhere"},
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert finished.returncode
    assert "not run: no Docker engine" in finished.stdout
    assert "passed" not in finished.stdout

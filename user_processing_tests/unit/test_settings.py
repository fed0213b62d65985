"""What the environment and `.env` set, what is refused, and what the documents say of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from user_processing import settings
from user_processing.cli import documents
from user_processing.cli.session import CommandError
from user_processing.definitions import defs
from user_processing.source.user_api import UserApi
from user_processing.store.postgres import Postgres

ROOT = Path(settings.__file__).parents[1]


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_API_URL", "")
    monkeypatch.setenv("USERS_PER_DAY", "")
    found = settings.load()
    assert (found.user_api_url, found.service("USER_API_URL"), found.users_per_day) == (None, None, 1)


def test_a_field_comes_before_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_PER_DAY", "7")
    monkeypatch.setenv("USER_API_URL", "http://variable.example/")
    monkeypatch.setenv("USERS_POSTGRES_URL", "host=variable.example dbname=users")
    assert (UserApi().users_requested, UserApi(users_per_day=3).users_requested) == (7, 3)
    assert UserApi().address == "http://variable.example/"
    assert UserApi(url="http://field.example/").address == "http://field.example/"
    assert Postgres().address == "variable.example:5432/users"
    assert Postgres(url="host=field.example dbname=users").address == "field.example:5432/users"


_REFUSED = [
    ("USERS_PER_DAY", "many", "USERS_PER_DAY is 'many'; it has to be a whole number from 1 to 50,000,000."),
    ("USERS_PER_DAY", "0", "USERS_PER_DAY is '0'; it has to be a whole number from 1 to 50,000,000."),
    ("USERS_DAYS_PER_RUN", "-1", "USERS_DAYS_PER_RUN is '-1'; it has to be a whole number, 1 or more."),
    ("USERS_MAX_REJECTED", "1%", "USERS_MAX_REJECTED is '1%'; it has to be a number from 0 to 1."),
    ("USERS_MAX_REJECTED", "2", "USERS_MAX_REJECTED is '2'; it has to be a number from 0 to 1."),
    ("USERS_PASSWORDS", "md5", "USERS_PASSWORDS is 'md5'; it has to be one of plain, sha256, drop."),
    ("USERS_CATCHUP", "maybe", "USERS_CATCHUP is 'maybe'; it has to be true or false."),
    ("USERS_UI_URL", "my-ui", "USERS_UI_URL is 'my-ui': it lacks http:// or https:// at the start."),
    ("USER_API_URL", "127.0.0.1:8102", "USER_API_URL cannot be used: it lacks http:// or https:// at the start."),
    ("USER_API_URL", "http://u:canary/1@host/", "USER_API_URL cannot be used: it is not a URL. Special characters in"),
    ("USERS_POSTGRES_URL", "postgresql://u:canary%@h@x/y", "USERS_POSTGRES_URL cannot be used: libpq cannot read it."),
    ("DAGSTER_POSTGRES_URL", "canary", "DAGSTER_POSTGRES_URL cannot be used: libpq cannot read it."),
]


@pytest.mark.parametrize(("name", "value", "said"), _REFUSED)
def test_what_a_variable_must_not_hold_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(settings.SettingsError) as caught:
        settings.load()
    assert str(caught.value.description).startswith(said)
    assert "canary" not in str(caught.value.description)


def test_an_invalid_variable_is_refused_when_the_definitions_are_loaded() -> None:
    """Not in the middle of a run."""
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "from user_processing.definitions import defs"],
        env={**os.environ, "USERS_MAX_ATTEMPTS": "often"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1
    assert "USERS_MAX_ATTEMPTS is 'often'; it has to be a whole number, 1 or more." in finished.stderr


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("USERS_PER_DAYS", "USERS_PER_DAY"), ("USER_PER_DAY", "USERS_PER_DAY"), ("USER_API_ULR", "USER_API_URL")],
)
def test_a_misspelt_variable_is_told_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, name: str, nearest: str
) -> None:
    monkeypatch.setenv(name, "3")
    assert list(settings.unknown_variables()) == [
        f"{name} is not a setting, and has no effect. Did you mean {nearest}?"
    ]


def test_what_stands_in_the_file_comes_before_the_environment_from_every_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in every command of Dagster, which reads `.env` of the folder that it runs in only."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".env").write_text("USERS_PER_DAY=5\nUSERS_PER_WEEK=1\n")
    monkeypatch.setattr(settings, "_CHECKOUT", tmp_path)
    monkeypatch.setenv("USERS_PER_DAY", "7")
    monkeypatch.chdir("/")
    assert settings.load().users_per_day == 5
    assert [said.split()[0] for said in settings.unknown_variables()] == ["USERS_PER_WEEK"]


@pytest.mark.parametrize("name", ["USER_API_URL", "USERS_POSTGRES_URL", "DAGSTER_POSTGRES_URL"])
def test_what_is_embedded_can_be_forbidden(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("USERS_EMBEDDED", "no")
    with pytest.raises(dg.Failure) as caught:
        settings.load().service(name)
    assert str(caught.value.description).startswith(f"{name} is not set, and USERS_EMBEDDED=no forbids")


def test_the_documents_list_the_settings_as_they_are() -> None:
    """`make docs` writes both."""
    assert (ROOT / ".env.example").read_text() == documents.example()
    assert documents.table_of_settings() in (ROOT / "README.md").read_text()


def test_the_documents_are_written_anew_and_the_rest_of_the_readme_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "checkout", lambda: tmp_path)
    readme = (ROOT / "README.md").read_text()
    outdated = re.sub(r"^\| `(USERS_|firstname).*\n", "", readme, flags=re.MULTILINE)
    assert outdated != readme
    (tmp_path / "README.md").write_text(outdated)
    documents.write()
    assert (tmp_path / "README.md").read_text() == readme
    assert (tmp_path / ".env.example").read_text() == (ROOT / ".env.example").read_text()
    (tmp_path / "README.md").write_text("no table")
    with pytest.raises(CommandError, match=r"README.md has no table that begins with `\| variable \|"):
        documents.write()


def test_changing_one_field_of_a_resource_for_a_run_leaves_the_variables_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a launchpad: the default configuration of a resource is replaced as a whole."""
    monkeypatch.setenv("USER_API_URL", "http://variable.example/")
    seen = []

    @dg.op
    def look(user_api: UserApi) -> None:
        seen.append((user_api.attempts, user_api.address))

    @dg.job(resource_defs={"user_api": defs.resources["user_api"]})  # type: ignore[index]
    def job() -> None:
        look()

    job.execute_in_process(run_config={"resources": {"user_api": {"config": {"attempts": 2}}}})
    assert seen == [(2, "http://variable.example/")]

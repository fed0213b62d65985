"""What the environment configures, and what happens when it does not."""

import dagster as dg
import pytest

from user_processing import variables
from user_processing.definitions import defs
from user_processing.resources.postgres import Postgres
from user_processing.resources.user_api import UserApi
from user_processing.resources.user_records import UserRecords


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_API_URL", "")
    assert variables.text("USER_API_URL") is None
    assert variables.service("USER_API_URL") is None


def test_a_field_comes_before_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_PER_DAY", "7")
    monkeypatch.setenv("USER_API_URL", "http://variable.example/")
    monkeypatch.setenv("USERS_POSTGRES_URL", "host=variable.example dbname=users")
    monkeypatch.setenv("USERS_PASSWORDS", "drop")
    monkeypatch.setenv("USERS_MAX_REJECTED", "0.5")
    assert (UserApi().users_asked, UserApi(users_per_day=3).users_asked) == (7, 3)
    assert UserApi().address == "http://variable.example/"
    assert UserApi(url="http://field.example/").address == "http://field.example/"
    assert Postgres().address == "variable.example:5432/users"
    assert Postgres(url="host=field.example dbname=users").address == "field.example:5432/users"
    assert (UserRecords().password_column, UserRecords(passwords="plain").password_column) == ("drop", "plain")
    assert (UserRecords().largest_rejected_share, UserRecords(max_rejected=0).largest_rejected_share) == (0.5, 0)


def test_without_variables_there_are_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERS_PER_DAY", "USERS_PASSWORDS", "USERS_MAX_REJECTED"):
        monkeypatch.delenv(name, raising=False)
    assert UserApi().users_asked == 1
    assert UserRecords().password_column == "plain"
    assert UserRecords().largest_rejected_share == 0.01


@pytest.mark.parametrize(("name", "value"), [("USERS_PER_DAY", "many"), ("USERS_MAX_REJECTED", "1%")])
def test_a_variable_that_is_no_number_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(dg.Failure) as caught:
        _ = UserApi().users_asked, UserRecords().largest_rejected_share
    assert f"{name} is {value!r}" in str(caught.value.description)


@pytest.mark.parametrize("name", ["USER_API_URL", "USERS_POSTGRES_URL", "DAGSTER_POSTGRES_URL"])
def test_what_is_embedded_can_be_forbidden(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("USERS_EMBEDDED", "no")
    with pytest.raises(dg.Failure) as caught:
        variables.service(name)
    assert (
        caught.value.description == f"{name} is not set, and USERS_EMBEDDED=no forbids to use what is embedded instead."
    )


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

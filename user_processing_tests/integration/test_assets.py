"""The four assets together, on a real Postgres and over real HTTP: with one day and with several, each twice."""

import json
import shutil
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from user_processing.assets import days
from user_processing.columns import COLUMNS, INCLUDED, NAMES, PATHS, Column
from user_processing.source.user_api import UserApi
from user_processing.store.postgres import Postgres
from user_processing_tests.support.checkout import TOMORROW
from user_processing_tests.support.hostile_api import HostileApi
from user_processing_tests.support.misbehaviours import MISBEHAVIOURS
from user_processing_tests.support.pipeline import Pipeline, use_columns
from user_processing_tests.support.recorded_api import RECORDED, RecordedApi, Row, stored
from user_processing_tests.support.tables import create

Query = Callable[..., list[Row]]
ALL = ", ".join(NAMES)
SIX = ", ".join(NAMES[:6])
DAYS = [None, "2023-01-03"]


@pytest.mark.parametrize("last", DAYS)
def test_every_user_of_the_api_is_stored_field_by_field(
    pipeline: Pipeline, recorded_api: RecordedApi, query: Query, last: str | None
) -> None:
    pipeline.ask(recorded_api)
    assert pipeline.run("2023-01-01", last, users_per_day=len(recorded_api.users)).success
    for day in ["2023-01-01", "2023-01-02", "2023-01-03"] if last else ["2023-01-01"]:
        rows = query(f"SELECT {ALL} FROM users WHERE partition_date = %s", [day])
        assert Counter(rows) == Counter(stored(user) for user in recorded_api.users)


@pytest.mark.parametrize("last", DAYS)
def test_a_day_that_runs_again_is_replaced(pipeline: Pipeline, query: Query, last: str | None) -> None:
    for users in (7, 5):
        assert pipeline.run("2023-01-01", last, users_per_day=users).success
    counts = query("SELECT partition_date::text, count(*) FROM users GROUP BY 1 ORDER BY 1")
    expected = ["2023-01-01", "2023-01-02", "2023-01-03"] if last else ["2023-01-01"]
    assert counts == [(day, 5) for day in expected]
    assert query("SELECT partition_date::text, rows, rejected FROM user_loads ORDER BY 1") == [
        (day, 5, 0) for day in expected
    ]


def test_a_day_is_the_same_whether_it_runs_alone_or_in_a_range(pipeline: Pipeline, query: Query) -> None:
    def rows() -> list[Row]:
        return query(f"SELECT {ALL} FROM users WHERE partition_date = '2023-01-02' ORDER BY 1, 2, 4")

    assert pipeline.run("2023-01-02", users_per_day=20).success
    alone = rows()
    assert pipeline.run("2023-01-01", "2023-01-03", users_per_day=20).success
    assert rows() == alone


def test_each_day_has_exactly_one_event_with_its_own_metadata(pipeline: Pipeline) -> None:
    assert pipeline.run("2023-01-01", "2023-01-03", users_per_day=2).success
    for asset in ("raw_user", "processed_user_csv", "stored_users"):
        events = pipeline.events(asset)
        assert sorted(day or "" for day, _ in events) == ["2023-01-01", "2023-01-02", "2023-01-03"]
        assert all(metadata["dagster/row_count"] == 2 for _, metadata in events)
        assert all(isinstance(metadata["seconds"], float) for _, metadata in events)
    sizes = {day: metadata["bytes"] for day, metadata in pipeline.events("raw_user")}
    assert sizes == {day: (pipeline.folder / str(day) / "pages" / "00001.json").stat().st_size for day in sizes}


def test_pages_are_kept_byte_for_byte(pipeline: Pipeline, recorded_api: RecordedApi) -> None:
    pipeline.ask(recorded_api)
    assert pipeline.run("2023-01-01", select=["users_table", "raw_user"], users_per_day=9).success
    (asked,) = recorded_api.asked
    assert asked == {"results": "9", "seed": "2023-01-01", "page": "1", "inc": INCLUDED}
    page = (pipeline.folder / "2023-01-01" / "pages" / "00001.json").read_bytes()
    assert page == json.dumps(recorded_api.answer(asked), ensure_ascii=False).encode()


def test_a_large_day_is_asked_for_in_pages_of_5000(pipeline: Pipeline, recorded_api: RecordedApi, query: Query) -> None:
    pipeline.ask(recorded_api)
    assert pipeline.run("2023-01-01", users_per_day=10_001).success
    assert sorted((int(asked["page"]), asked["results"]) for asked in recorded_api.asked) == [
        (1, "5000"),
        (2, "5000"),
        (3, "1"),
    ]
    assert query("SELECT count(*) FROM users") == [(10_001,)]


def test_files_of_a_day_can_be_read_by_their_owner_only(pipeline: Pipeline) -> None:
    assert pipeline.run("2023-01-01").success
    files = [path for path in pipeline.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"00001.json", "pages.json", "users.csv", "users.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("2023-01-05", "2023-01-02", "Give the earlier day first: 2023-01-02...2023-01-05."),
        # Dagster itself accepts it, and would ask for every day until then.
        ("2023-01-05", TOMORROW, f"2023-01-05...{TOMORROW} is not within the days that there are"),
    ],
)
def test_days_that_cannot_be_are_refused(pipeline: Pipeline, query: Query, first: str, last: str, said: str) -> None:
    result = pipeline.run(first, last)
    assert not result.success
    assert said in pipeline.error(result)
    assert pipeline.events("stored_users") == []
    assert query("SELECT count(*) FROM users") == [(0,)]


def test_a_run_that_names_no_day_is_refused(pipeline: Pipeline) -> None:
    result = pipeline.run_job("", tags={"some": "tag"})
    assert not result.success
    assert "The run names no day" in pipeline.error(result)


def test_days_that_are_done_are_recorded_when_another_fails(
    pipeline: Pipeline, recorded_api: RecordedApi, query: Query
) -> None:
    def another_seed_on_the_third(query: dict[str, str], page: dict[str, Any]) -> object:
        if query["seed"] == "2023-01-03":
            page["info"]["seed"] = "somebody else's"
        return page

    pipeline.ask(recorded_api)
    recorded_api.tamper = another_seed_on_the_third
    result = pipeline.run("2023-01-01", "2023-01-04", users_per_day=3)
    assert not result.success
    assert pipeline.error(result).startswith(
        "1 of 4 days are not done: 2023-01-03. What is stored for them did not change. 2023-01-03: GET http://"
    )
    assert [day for day, _ in pipeline.events("raw_user")] == ["2023-01-01", "2023-01-02", "2023-01-04"]
    assert {metadata["dagster/row_count"] for _, metadata in pipeline.events("raw_user")} == {3}
    assert query("SELECT count(*) FROM users") == [(0,)]


def test_a_range_stops_at_the_first_day_for_which_the_api_is_gone(
    pipeline: Pipeline, recorded_api: RecordedApi
) -> None:
    recorded_api.close()
    pipeline.ask(recorded_api, attempts=1)
    result = pipeline.run("2023-01-01", "2023-02-28")
    assert not result.success
    assert "59 of 59 days are not done: 2023-01-01 to 2023-02-28" in pipeline.error(result)


def test_too_many_users_for_one_seed_are_refused_before_anything_is_asked(
    pipeline: Pipeline, recorded_api: RecordedApi
) -> None:
    pipeline.ask(recorded_api, users_per_day=50_000_001)
    result = pipeline.run("2023-01-01")
    assert not result.success
    assert "users_per_day is 50,000,001; the API can give from 1 to 50,000,000" in pipeline.error(result)
    assert recorded_api.asked == []


def test_a_database_that_is_gone_stops_the_run_with_its_address(pipeline: Pipeline) -> None:
    pipeline.postgres = Postgres(url="host=/nowhere dbname=users password=canary")
    result = pipeline.run("2023-01-01")
    assert not result.success
    assert "Postgres cannot be reached" in pipeline.error(result)
    assert "canary" not in str(result.all_events)


@pytest.mark.parametrize(
    ("missing", "asset", "advice"),
    [
        ("pages.json", "processed_user_csv", "Materialize raw_user"),
        ("pages/00001.json", "processed_user_csv", "Materialize raw_user"),
        ("users.json", "stored_users", "Materialize processed_user_csv"),
        ("users.csv", "stored_users", "Materialize processed_user_csv"),
    ],
)
@pytest.mark.parametrize("what", ["gone", "cut short"])
def test_a_file_that_is_not_whole_fails_with_advice_and_leaves_the_rows(  # noqa: PLR0913, PLR0917
    pipeline: Pipeline, query: Query, missing: str, asset: str, advice: str, what: str
) -> None:
    assert pipeline.run("2023-01-01", users_per_day=4).success
    path: Path = pipeline.folder / "2023-01-01" / missing
    if what == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5])
    result = pipeline.run("2023-01-01", select=[asset])
    assert not result.success
    assert advice in pipeline.error(result)
    assert query("SELECT count(*) FROM users") == [(4,)]


@pytest.mark.parametrize(
    ("manifest", "asset", "change", "said"),
    [
        (
            "pages.json",
            "processed_user_csv",
            {"inc": "name,dob"},
            f"asked for with inc=name,dob, and the columns need inc={INCLUDED}. Materialize raw_user for this day",
        ),
        (
            "users.json",
            "stored_users",
            {"columns": {"firstname": "name.first", "age": "dob.age"}},
            "a CSV with the columns firstname (name.first), age (dob.age), and the table has firstname (name.first), ",
        ),
        # The same columns, and what is in two of them has changed places.
        ("users.json", "stored_users", {"columns": dict(reversed(PATHS.items()))}, "Materialize processed_user_csv"),
    ],
)
def test_files_of_other_columns_are_recognised_and_made_anew(  # noqa: PLR0913, PLR0917
    pipeline: Pipeline, query: Query, manifest: str, asset: str, change: dict[str, object], said: str
) -> None:
    assert pipeline.run("2023-01-01", users_per_day=4).success
    path: Path = pipeline.folder / "2023-01-01" / manifest
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    result = pipeline.run("2023-01-01", select=[asset])
    assert not result.success
    assert said in pipeline.error(result)
    assert query("SELECT count(*) FROM users") == [(4,)]
    assert pipeline.run("2023-01-01", users_per_day=3).success
    assert query("SELECT count(*) FROM users") == [(3,)]


def test_files_that_version_0_1_0_made_can_be_stored_and_processed(
    pipeline: Pipeline, database: str, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifests do not say what they were made for: it always was these six columns."""
    monkeypatch.setenv("USERS_MAX_REJECTED", "0.5")
    use_columns(monkeypatch, COLUMNS[:6])
    shutil.copytree(RECORDED / "day-0.1.0", pipeline.folder / "2023-01-03")
    csv = (pipeline.folder / "2023-01-03" / "users.csv").read_bytes()
    create(database)
    assert pipeline.run("2023-01-03", select=["stored_users"]).success
    rows = query(f"SELECT {SIX} FROM users")
    assert rows == [tuple(csv.decode().strip().split(","))]
    assert query("SELECT users_requested, rows, rejected FROM user_loads") == [(2, 1, 1)]
    assert pipeline.run("2023-01-03", select=["processed_user_csv", "stored_users"]).success
    assert query(f"SELECT {SIX} FROM users") == rows
    assert (pipeline.folder / "2023-01-03" / "users.csv").read_bytes() == csv


def test_another_column_comes_with_the_days_that_are_made_anew(
    pipeline: Pipeline, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pipeline.run("2023-01-01", "2023-01-02", users_per_day=3).success
    before = query(f"SELECT {ALL} FROM users ORDER BY partition_date, 1, 2")
    # What its migration would do.
    query("ALTER TABLE users ADD COLUMN nationality TEXT")
    use_columns(monkeypatch, (*COLUMNS, Column("nationality", "nat", "text", "Country code.", nullable=True)))
    for asset, again in (("stored_users", "processed_user_csv"), ("processed_user_csv", "raw_user")):
        result = pipeline.run("2023-01-01", select=[asset])
        assert not result.success
        assert f"Materialize {again} for this day, then this asset again." in pipeline.error(result)
    assert query(f"SELECT {ALL} FROM users ORDER BY partition_date, 1, 2") == before
    assert pipeline.run("2023-01-01", users_per_day=3).success
    assert query("SELECT partition_date::text, count(*), count(nationality) FROM users GROUP BY 1 ORDER BY 1") == [
        ("2023-01-01", 3, 3),
        ("2023-01-02", 3, 0),
    ]


def test_records_that_break_the_contract_are_set_aside_and_the_others_stored(
    pipeline: Pipeline, recorded_api: RecordedApi, query: Query
) -> None:
    def nul_in_one(query: dict[str, str], page: dict[str, Any]) -> object:
        del query
        page["results"][5] = {**page["results"][5], "email": "nul\0@example.com"}
        return page

    pipeline.ask(recorded_api)
    recorded_api.tamper = nul_in_one
    assert pipeline.run("2023-01-01", users_per_day=200).success
    assert query("SELECT count(*) FROM users") == [(199,)]
    assert query("SELECT page, position, reason FROM rejected_users") == [
        (1, 5, "NUL in email: Postgres cannot store it")
    ]
    assert query("SELECT rows, rejected, users_requested FROM user_loads") == [(199, 1, 200)]
    recorded_api.tamper = lambda _, page: page
    assert pipeline.run("2023-01-01", users_per_day=200).success
    assert query("SELECT count(*) FROM rejected_users") == [(0,)]


def test_a_page_that_comes_twice_fails_the_day_and_keeps_what_was_stored(
    pipeline: Pipeline, recorded_api: RecordedApi, query: Query
) -> None:
    pipeline.ask(recorded_api)
    assert pipeline.run("2023-01-01", users_per_day=5_001).success
    recorded_api.tamper = lambda _, page: {**page, "results": recorded_api.users[:1] + page["results"][1:]}
    result = pipeline.run("2023-01-01", users_per_day=10_000)
    assert not result.success
    assert "page 2 holds the users of page 1 again" in pipeline.error(result)
    assert query("SELECT count(*) FROM users") == [(5_001,)]


HOSTILE = [
    "resets within the body",
    "truncates the body of unknown length",
    "sends HTML",
    "sends an error as if it were none",
    "sends fewer users",
    "takes another seed",
    "404",
    "429",
    "503 for a day",
    "redirects to another host",
]


@pytest.mark.parametrize("misbehaviour", HOSTILE)
def test_a_hostile_api_costs_no_row_that_was_stored(pipeline: Pipeline, query: Query, misbehaviour: str) -> None:
    assert pipeline.run("2023-01-01", users_per_day=4).success
    before = query("SELECT * FROM users ORDER BY 1, 2")
    behaviour, _, said = MISBEHAVIOURS[misbehaviour]
    with HostileApi() as api:
        api.always = behaviour
        pipeline.user_api = UserApi(url=api.url(), attempts=1)
        result = pipeline.run("2023-01-01", users_per_day=3)
    assert not result.success
    assert said.partition(" page=2")[0] in pipeline.error(result)
    assert query("SELECT * FROM users ORDER BY 1, 2") == before
    assert query("SELECT rows FROM user_loads") == [(4,)]


def test_a_day_with_too_many_bad_records_fails_and_keeps_what_was_stored(
    pipeline: Pipeline, recorded_api: RecordedApi, query: Query
) -> None:
    def no_e_mail(query: dict[str, str], page: dict[str, Any]) -> object:
        del query
        return {**page, "results": [{**user, "email": None} for user in page["results"]]}

    pipeline.ask(recorded_api)
    assert pipeline.run("2023-01-01", users_per_day=3).success
    recorded_api.tamper = no_e_mail
    result = pipeline.run("2023-01-01", users_per_day=3)
    assert not result.success
    assert "3 of 3 records break the API's contract" in pipeline.error(result)
    assert query("SELECT count(*) FROM users") == [(3,)]


@pytest.mark.parametrize(
    ("max_rejected", "bad", "success"),
    [(0.5, 2, True), (0.5, 3, False), (1, 4, False), (0, 0, True), (0, 1, False)],
)
def test_how_many_bad_records_a_day_may_have_is_configured(  # noqa: PLR0913, PLR0917
    pipeline: Pipeline,
    recorded_api: RecordedApi,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
    max_rejected: float,
    bad: int,
    *,
    success: bool,
) -> None:
    """Of four; a day of which no record is left fails in any case."""

    def break_some(query: dict[str, str], page: dict[str, Any]) -> object:
        del query
        return {**page, "results": [{}] * bad + page["results"][bad:]}

    pipeline.ask(recorded_api)
    monkeypatch.setenv("USERS_MAX_REJECTED", str(max_rejected))
    recorded_api.tamper = break_some
    assert pipeline.run("2023-01-01", users_per_day=4).success is success
    assert query("SELECT count(*) FROM users") == [(4 - bad if success else 0,)]


@pytest.mark.parametrize("passwords", ["plain", "sha256", "drop"])
def test_the_password_column_holds_what_was_configured(
    pipeline: Pipeline, recorded_api: RecordedApi, query: Query, monkeypatch: pytest.MonkeyPatch, passwords: str
) -> None:
    pipeline.ask(recorded_api)
    monkeypatch.setenv("USERS_PASSWORDS", passwords)
    assert pipeline.run("2023-01-01").success
    login = recorded_api.users[0]["login"]
    assert query("SELECT password FROM users") == [
        ({"plain": login["password"], "sha256": login["sha256"], "drop": ""}[passwords],)
    ]


def test_a_table_that_is_somebody_elses_is_refused_and_left_alone(pipeline: Pipeline, query: Query) -> None:
    query("CREATE TABLE users (id INTEGER, name TEXT)")
    result = pipeline.run("2023-01-01")
    assert not result.success
    assert "The table users has the columns id, name; missing: firstname" in pipeline.error(result)
    assert query("SELECT attname FROM pg_attribute WHERE attrelid = 'users'::regclass AND attnum > 0") == [
        ("id",),
        ("name",),
    ]


def test_days_begin_on_2023_01_01_in_utc() -> None:
    assert days.get_first_partition_key() == "2023-01-01"
    assert days.timezone == "UTC"


def test_progress_is_reported_with_counts_and_rates(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("user_processing.days.work._SECONDS_BETWEEN_REPORTS", 0)
    result = pipeline.run("2023-01-01", "2023-01-02", users_per_day=10)
    log = [record.user_message for record in pipeline.instance.all_logs(result.run_id)]
    assert any("1 of 2 days done, 20 users, " in message and "a second" in message for message in log)

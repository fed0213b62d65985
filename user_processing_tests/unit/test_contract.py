"""The user record: what is a page, what becomes of each of its records, and what the CSV holds."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from user_processing import columns
from user_processing.cli import documents
from user_processing.columns import COLUMNS, Column, Rejection
from user_processing.source import contract
from user_processing_tests.support.checkout import ROOT
from user_processing_tests.support.pipeline import use_columns
from user_processing_tests.support.recorded_api import recorded_users, stored

RECORDS: list[dict[str, Any]] = recorded_users()


def page(records: list[Any], **info: object) -> bytes:
    """A page as the API sends it."""
    known = {"seed": "2023-01-01", "results": len(records), "page": 1, "version": "1.4"}
    return json.dumps({"results": records, "info": known | info}, ensure_ascii=False).encode(errors="surrogatepass")


def rows(parsed: contract.ParsedPage) -> list[tuple[str, ...]]:
    return [tuple(row) for row in csv.reader(io.StringIO(parsed.csv.decode(), newline=""))]


def in_csv(user: dict[str, Any]) -> tuple[str, ...]:
    """The line that a record of the API has to become."""
    return tuple(map(str, stored(user)))


def changed(path: str, value: object) -> dict[str, Any]:
    """The first recorded user with one value changed; None removes the field."""
    user = json.loads(json.dumps(RECORDS[0]))
    *parents, field = path.split(".")
    place = user
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[field]
    else:
        place[field] = value
    return dict(user)


def test_recorded_users_become_rows_field_by_field() -> None:
    parsed = contract.parse_page(page(RECORDS), page=1)
    assert rows(parsed) == [in_csv(user) for user in RECORDS]
    assert (parsed.rows, parsed.rejected) == (len(RECORDS), [])


@pytest.mark.parametrize(
    ("wanted", "sizes"),
    [(1, [1]), (4999, [4999]), (5000, [5000]), (5001, [5000, 1]), (12_000, [5000, 5000, 2000])],
)
def test_a_day_is_asked_for_in_pages_of_at_most_5000(wanted: int, sizes: list[int]) -> None:
    assert contract.page_sizes(wanted) == sizes


@pytest.mark.parametrize("wanted", [0, -1, 50_000_001])
def test_a_number_of_users_that_the_api_cannot_give_is_refused(wanted: int) -> None:
    with pytest.raises(ValueError, match=r"from 1 to 50,000,000"):
        contract.page_sizes(wanted)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (page(RECORDS[:2], seed="2023-01-02"), "info says seed=2023-01-02 page=1 results=2"),
        (page(RECORDS[:2], page=2), "info says seed=2023-01-01 page=2 results=2"),
        (page(RECORDS[:2], results=1), "results=1"),
        (page(RECORDS[:1], results=2), "asked for 2 users, and 1 came"),
        (page(RECORDS[:3], results=2), "asked for 2 users, and 3 came"),
        (b'{"results":[{},{}]}', "missing required field `info`"),
        (b'{"error":"Uh oh, something has gone wrong."}', "missing required field `results`"),
        (b"<html><body>502</body></html>", "JSON is malformed|Expecting value"),
        (b'{"results":[\xff\xfe],"info":{}}', "byte 12 is not UTF-8"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"first":"\\ud800"}', "no `results` or no `info`"),
    ],
)
def test_an_answer_to_another_question_is_no_page(body: bytes, said: str) -> None:
    with pytest.raises(contract.ContractError, match=said) as caught:
        contract.check_page(body, seed="2023-01-01", page=1, results=2)
    assert not isinstance(caught.value, contract.TruncatedError)


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_body_that_ends_early_may_be_asked_for_again(kept: int) -> None:
    with pytest.raises(contract.TruncatedError, match="ends early"):
        contract.check_page(page(RECORDS[:2])[:kept], seed="2023-01-01", page=1, results=2)


def test_a_page_with_a_lone_surrogate_is_still_a_page() -> None:
    body = json.dumps(
        {"results": [changed("email", "\ud800")], "info": {"seed": "d", "results": 1, "page": 1}}
    ).encode()
    contract.check_page(body, seed="d", page=1, results=1)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (changed("email", None), "Object missing required field `email`"),
        (changed("login.password", None), "Object missing required field `password` - at `$.login`"),
        (changed("name.first", 7), "Expected `str`, got `int` - at `$.name.first`"),
        (changed("location", "Norway"), "Expected `object`, got `str` - at `$.location`"),
        (changed("name.last", "NUL \0 inside"), "NUL in lastname: Postgres cannot store it"),
        (
            changed("login.username", "half \ud83d"),
            "lone surrogate in username: it is no character and has no UTF-8 form",
        ),
        ([], "Expected `object`, got `array`"),
    ],
)
def test_a_record_that_breaks_the_contract_is_rejected_by_itself(record: object, reason: str) -> None:
    body = json.dumps({"results": [RECORDS[1], record, RECORDS[2]], "info": {}}).encode()
    parsed = contract.parse_page(body, page=4)
    assert parsed.rejected == [Rejection(4, 1, reason)]
    assert rows(parsed) == [in_csv(RECORDS[1]), in_csv(RECORDS[2])]
    assert parsed.rows == 2


@pytest.mark.parametrize(
    ("fields", "included", "fits"),
    [
        (["name", "location", "login", "email"], "name,location,login,email", True),
        (["email", "login", "name", "location"], "name,location,login,email", True),
        (["name", "location", "login"], "name,location,login,email", False),
        (["name", "location", "login", "email", "dob"], "name,location,login,email", False),
    ],
)
@pytest.mark.parametrize("value", [{}, "\ud800"], ids=["any value", "a lone surrogate"])
def test_the_inc_of_a_page_shows_in_its_records(fields: list[str], included: str, value: object, *, fits: bool) -> None:
    body = json.dumps({"results": [dict.fromkeys(fields, value)], "info": {"seed": "d", "results": 1, "page": 1}})
    contract.check_page(body.encode(), seed="d", page=1, results=1)
    assert contract.has_fields(body.encode(), included) is fits


def test_a_user_name_that_looks_like_an_escaped_nul_is_kept() -> None:
    parsed = contract.parse_page(page([changed("login.username", r"\u0000")]), page=1)
    assert rows(parsed)[0][3] == r"\u0000"


@pytest.mark.parametrize(("passwords", "column"), [("plain", "password"), ("sha256", "sha256"), ("drop", None)])
def test_the_password_column_holds_what_was_chosen(passwords: columns.Passwords, column: str | None) -> None:
    parsed = contract.parse_page(page(RECORDS[:3]), page=1, passwords=passwords)
    assert [row[4] for row in rows(parsed)] == [user["login"][column] if column else "" for user in RECORDS[:3]]


def test_a_record_without_a_digest_is_rejected_where_digests_are_stored() -> None:
    parsed = contract.parse_page(page([changed("login.sha256", None), RECORDS[1]]), page=1, passwords="sha256")
    assert parsed.rejected == [Rejection(1, 0, "Object missing required field `sha256` - at `$.login`")]


@pytest.mark.parametrize(
    ("passwords", "path", "rejected"),
    [
        ("sha256", "login.sha256", ["NUL in password: Postgres cannot store it"]),
        ("sha256", "login.password", []),
        ("drop", "login.password", []),
        ("plain", "login.sha256", []),
    ],
)
def test_what_is_not_stored_need_not_be_storable(passwords: columns.Passwords, path: str, rejected: list[str]) -> None:
    parsed = contract.parse_page(page([changed(path, "\0")]), page=1, passwords=passwords)
    assert [rejection.reason for rejection in parsed.rejected] == rejected
    assert parsed.rows + len(rejected) == 1


VALUES = {
    "text": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    "integer": st.integers(-(2**31), 2**31 - 1),
}


@given(st.lists(st.tuples(*(VALUES[column.type] for column in COLUMNS))))
def test_whatever_the_api_can_send_comes_back_from_the_csv(values: list[tuple[Any, ...]]) -> None:
    records = []
    for row in values:
        record: dict[str, Any] = {}
        for column, value in zip(COLUMNS, row, strict=True):
            *parents, field = column.path.split(".")
            place = record
            for parent in parents:
                place = place.setdefault(parent, {})
            place[field] = value
        records.append(record)
    parsed = contract.parse_page(page(records), page=1)
    assert parsed.rejected == []
    assert rows(parsed) == [tuple(map(str, row)) for row in values]


@pytest.mark.parametrize("number", ["7", 7.5, None, 2**31, -(2**31) - 1, True])
def test_a_number_that_postgres_cannot_hold_is_set_aside_alone(monkeypatch: pytest.MonkeyPatch, number: object) -> None:
    use_columns(monkeypatch, (*COLUMNS, Column("number", "more.number", "integer", "A number.", nullable=True)))
    parsed = contract.parse_page(
        page([{**RECORDS[0], "more": {"number": 44}}, {**RECORDS[1], "more": {"number": number}}]), page=1
    )
    assert rows(parsed) == [(*in_csv(RECORDS[0]), "44")]
    assert [(rejection.position, rejection.reason[:14]) for rejection in parsed.rejected] == [(1, "Expected `int`")]


def test_the_readme_lists_the_columns_as_they_are() -> None:
    assert documents.table_of_columns() in (ROOT / "README.md").read_text()

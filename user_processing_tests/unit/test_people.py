"""The people the API stand-in draws: like the API's own, and always the same."""

# ruff: noqa: RUF001  (a Cyrillic, Persian or dotless letter is meant here)

import hashlib
import json
import os
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection
from typing import Any, TypeAlias

import pytest

from user_processing.columns import INCLUDED
from user_processing.embedded import people

User: TypeAlias = dict[str, Any]

ASKED_FOR_DAILY = tuple(INCLUDED.split(","))
NATIONALITIES_OF_THE_API = "AU BR CA CH DE DK ES FI FR GB IE IN IR MX NL NO NZ RS TR UA US"
IN_ANOTHER_PROCESS = """
import hashlib, json
from user_processing.embedded import people
page = people.draw(seed="2023-01-01", page=2, results=500, fields=set(people.FIELDS))
print(hashlib.sha256(json.dumps(page).encode()).hexdigest())
"""


def draw(
    *,
    seed: str = "2023-01-01",
    page: int = 1,
    results: int = 100,
    fields: Collection[str] = ASKED_FOR_DAILY,
    nationality: str | None = None,
) -> list[User]:
    """One page, of 2023-01-01 and with the daily fields unless told otherwise."""
    return people.draw(seed=seed, page=page, results=results, fields=fields, nationality=nationality)


@pytest.fixture(scope="module")
def a_day() -> list[User]:
    """20,000 users: enough for what is rare to happen."""
    return [user for page in range(1, 5) for user in draw(page=page, results=5000)]


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_draws_the_same_people(hash_seed: str) -> None:
    """Sets and hashes differ between processes; nothing of them may reach the page."""
    drawn_there = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    drawn_here = draw(page=2, results=500, fields=set(people.FIELDS))
    assert drawn_there == hashlib.sha256(json.dumps(drawn_here).encode()).hexdigest()


def test_what_is_not_taken_from_mimesis_is_the_same_in_every_version_of_it_and_of_python() -> None:
    page = draw(results=5000, fields=["login", "dob", "nat"])
    assert page[0]["login"]["uuid"] == "b7da6b27-27c4-4aa1-8ab4-81368ef45f9c"
    assert hashlib.sha256(json.dumps(page).encode()).hexdigest() == (
        "e7dc06490f267ef3ddbcafe73ede21f1aad3c550fc59a03d5424a4e2646a58cc"
    )


@pytest.mark.parametrize(
    "other",
    [{"seed": "2023-01-02"}, {"page": 2}, {"fields": ("login", "email")}, {"nationality": "04"}],
    ids=lambda other: next(iter(other)),
)
def test_another_question_draws_other_people(other: dict[str, Any]) -> None:
    here = {user["login"]["uuid"] for user in draw()}
    there = {user["login"]["uuid"] for user in draw(**other)}
    assert not here & there


def test_fewer_people_are_the_first_of_more() -> None:
    assert draw(results=10) == draw(results=100)[:10]


def test_a_record_holds_the_fields_asked_for_in_the_order_of_the_api() -> None:
    asked = ["nat", "shoe size", "email", "gender"]
    assert [tuple(user) for user in draw(results=2, fields=asked)] == [("gender", "email", "nat")] * 2


def test_people_of_all_nationalities_are_drawn_about_equally_often() -> None:
    counts = Counter(user["nat"] for user in draw(results=5000, fields=["nat"]))
    assert set(counts) == {nationality.code for nationality in people.NATIONALITIES.values()}
    assert len(counts) == 14
    assert min(counts.values()) > 5000 / 14 / 2


def test_a_nationality_has_the_number_that_it_has_in_the_api() -> None:
    for digits, nationality in people.NATIONALITIES.items():
        assert digits == f"{NATIONALITIES_OF_THE_API.split().index(nationality.code):02x}"


@pytest.mark.parametrize("nationality", people.NATIONALITIES.values(), ids=lambda nationality: nationality.code)
def test_names_are_written_in_the_script_of_their_country(nationality: people.Nationality) -> None:
    expected = {"IR": "ARABIC", "UA": "CYRILLIC"}.get(nationality.code, "LATIN")
    names = people.lists(nationality.locale)
    letters = {
        letter
        for kind in (*names.first.values(), *names.last.values(), names.cities)
        for name in kind
        for letter in name
        if unicodedata.category(letter).startswith("L") and letter != "ʼ"
    }
    assert letters
    assert {unicodedata.name(letter).split()[0] for letter in letters} == {expected}


@pytest.mark.parametrize("locale", ["pt-br", "de-ch", "de", "da", "es", "fi", "fr", "no", "tr"])
def test_names_keep_their_diacritics(locale: str) -> None:
    names = people.lists(locale)
    assert any(not name.isascii() for kind in (*names.first.values(), *names.last.values()) for name in kind)


def test_broken_entries_of_the_datasets_are_left_out() -> None:
    assert people._some(["Bena?", "MÃ¸ller", "Tronerin???", "T", "[edit]", " Zoe ", "D'Angelo"]) == [  # noqa: SLF001
        "Zoe",
        "D'Angelo",
    ]


@pytest.mark.parametrize("nationality", people.NATIONALITIES.values(), ids=lambda nationality: nationality.code)
def test_every_name_has_a_spelling_for_the_email_address(nationality: people.Nationality) -> None:
    names = people.lists(nationality.locale)
    spelled = {name: people.romanized(name) for kind in (*names.first.values(), *names.last.values()) for name in kind}
    assert {name for name, spelling in spelled.items() if not spelling} == set()
    assert all(spelling.isascii() and " " not in spelling for spelling in spelled.values())


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        ("Bjørnevik", "bjornevik"),
        ("da Costa", "dacosta"),
        ("Živković", "zivkovic"),
        ("Đorđe", "dorde"),
        ("Weiß", "weiss"),
        ("O'Neill ", "o'neill"),
        ("İnönü", "inonu"),
        ("Işıl", "isil"),
        ("Сергій", "serhii"),
        ("Лук'яненко", "luk'yanenko"),
        ("آذر", "azr"),
        ("خرم\u200cآبادی", "khrmabady"),
    ],
)
def test_a_name_is_spelled_for_the_email_address(name: str, spelling: str) -> None:
    assert people.romanized(name) == spelling


def test_an_email_address_is_made_of_both_names() -> None:
    user = draw(results=1)[0]
    first, last = (people.romanized(user["name"][part]) for part in ("first", "last"))
    assert user["email"] == f"{first}.{last}@example.com"


def test_user_names_and_email_addresses_repeat_about_as_often_as_in_the_api(a_day: list[User]) -> None:
    for page in range(4):
        users = a_day[page * 5000 : (page + 1) * 5000]
        for values in ([user["login"]["username"] for user in users], [user["email"] for user in users]):
            assert 10 <= len(values) - len(set(values)) <= 60


def test_no_two_users_share_a_uuid(a_day: list[User]) -> None:
    assert len({user["login"]["uuid"] for user in a_day}) == len(a_day)


def test_the_digests_are_of_password_and_salt(a_day: list[User]) -> None:
    for login in (user["login"] for user in a_day[:100]):
        salted = (login["password"] + login["salt"]).encode()
        for name in ("md5", "sha1", "sha256"):
            assert login[name] == hashlib.new(name, salted, usedforsecurity=False).hexdigest()


def test_a_password_is_empty_once_in_2_500_users_or_so(a_day: list[User]) -> None:
    assert 1 <= sum(user["login"]["password"] == "" for user in a_day) <= 30


def test_some_last_names_and_cities_end_in_a_space_or_hold_an_apostrophe(a_day: list[User]) -> None:
    for values in ([user["name"]["last"] for user in a_day], [user["location"]["city"] for user in a_day]):
        assert 0 < sum(value.endswith(" ") for value in values) < len(a_day) / 100
        assert 0 < sum("'" in value for value in values) < len(a_day) / 20


def test_postcodes_are_numbers_in_some_countries_and_text_in_others(a_day: list[User]) -> None:
    types: dict[str, set[type]] = {}
    for location in (user["location"] for user in a_day):
        types.setdefault(location["country"], set()).add(type(location["postcode"]))
    text = {country for country, found in types.items() if found == {str}}
    assert text == {"Norway", "United Kingdom"}
    assert all(found == {int} for country, found in types.items() if country not in text)


def test_nobody_is_a_child_and_ages_fit_the_dates() -> None:
    for birth in (user["dob"] for user in draw(results=1000, fields=["dob"])):
        assert birth["age"] == 2025 - int(birth["date"][:4])
        assert 21 <= birth["age"] <= 90


def test_a_nationality_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError, match="XX"):
        draw(nationality="XX")


def test_without_mimesis_the_error_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "find_spec", lambda _name: None)
    people.lists.cache_clear()  # read once per process
    with pytest.raises(ModuleNotFoundError, match="mimesis, which is not installed"):
        draw()

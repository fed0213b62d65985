"""The API stand-in, over real HTTP on loopback: the contract of randomuser 1.4."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from user_processing.embedded import api, people

DAILY = {"results": "50", "seed": "2023-01-01", "page": "1", "inc": "name,location,login,email"}

# What randomuser.me answered to ?results=1&seed=2023-01-01, its digests shortened.
RECORDED = json.loads(
    """
    {"results":[{"gender":"female","name":{"title":"Madame","first":"Rose","last":"Noel"},"location":{"street":
    {"number":274,"name":"Rue de la Gare"},"city":"Saint-Barthélemy (Vd)","state":"Valais","country":
    "Switzerland","postcode":7372,"coordinates":{"latitude":"-60.4506","longitude":"34.3148"},"timezone":
    {"offset":"-1:00","description":"Azores, Cape Verde Islands"}},"email":"rose.noel@example.com","login":
    {"uuid":"dc860ace-2d0a-4c53-b6fe-86014fb838d9","username":"tinylion467","password":"yeahbaby","salt":
    "2cNWtmTz","md5":"e674283d","sha1":"702ce7d4","sha256":"8ffb31bb"},"dob":{"date":
    "1945-03-06T02:23:41.930Z","age":81},"registered":{"date":"2004-04-04T19:23:06.078Z","age":22},"phone":
    "077 258 69 45","cell":"078 325 92 14","id":{"name":"AVS","value":"756.9910.9652.56"},"picture":{"large":
    "https://randomuser.me/api/portraits/women/29.jpg","medium":
    "https://randomuser.me/api/portraits/med/women/29.jpg","thumbnail":
    "https://randomuser.me/api/portraits/thumb/women/29.jpg"},"nat":"CH"}],"info":{"seed":"2023-01-01",
    "results":1,"page":1,"version":"1.4"}}
    """
)
LACKING = {"registered", "phone", "cell", "id", "picture"}
SWISS_SEED = "0123456789abcdef03"


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The address of a stand-in without a rate limit."""
    with api.serve() as url:
        yield url


def ask(url: str, **question: str) -> dict[str, Any]:
    """The decoded page that answers `question`."""
    answer = requests.get(url, params=question, timeout=30)
    answer.raise_for_status()
    page: dict[str, Any] = answer.json()
    return page


def shape(value: object) -> object:
    """`value` with its types in place of its contents; the order of keys counts."""
    if isinstance(value, dict):
        return [(key, shape(part)) for key, part in value.items()]
    return [shape(part) for part in value] if isinstance(value, list) else type(value)


def test_a_record_has_the_shape_of_a_recorded_one_but_for_the_fields_the_stand_in_lacks(base: str) -> None:
    [user], [recorded] = ask(base, seed=SWISS_SEED)["results"], RECORDED["results"]
    assert set(recorded) - set(user) == LACKING
    assert shape(user) == shape({field: value for field, value in recorded.items() if field not in LACKING})
    assert shape(ask(base)["info"]) == shape(RECORDED["info"])


def test_a_field_that_the_stand_in_lacks_is_ignored_like_an_unknown_one(base: str) -> None:
    assert ask(base, **DAILY | {"inc": ",".join([DAILY["inc"], *LACKING])}) == ask(base, **DAILY)


def test_one_user_with_every_field_of_the_stand_in_answers_no_question_at_all(base: str) -> None:
    page = ask(base)
    assert [tuple(user) for user in page["results"]] == [people.FIELDS]
    assert re.fullmatch("[0-9a-f]{16}", page["info"]["seed"])


def test_two_questions_without_a_seed_are_given_different_seeds(base: str) -> None:
    assert ask(base)["info"]["seed"] != ask(base)["info"]["seed"]


def test_the_seed_that_was_told_leads_back_to_the_same_page(base: str) -> None:
    page = ask(base, results="20")
    assert ask(base, results="20", seed=page["info"]["seed"]) == page


@pytest.mark.parametrize("path", ["/api/1.4/", "/api/1.4", "/api/", "/api"])
def test_every_path_of_the_api_gives_the_same_page(base: str, path: str) -> None:
    answer = requests.get(base.removesuffix("/api/1.4/") + path, params=DAILY, timeout=30, allow_redirects=False)
    assert answer.status_code == requests.codes.ok
    assert answer.json() == ask(base, **DAILY)


def test_the_same_question_gives_the_same_bytes_on_another_server(base: str) -> None:
    with api.serve() as other:
        there = requests.get(other, params=DAILY, timeout=30).content
    assert there == requests.get(base, params=DAILY, timeout=30).content


@pytest.mark.parametrize(
    "other",
    [{"seed": "2023-01-02"}, {"page": "2"}, {"inc": "name,location,login,email,nat"}],
    ids=["seed", "page", "inc"],
)
def test_another_seed_page_or_inc_gives_other_people(base: str, other: dict[str, str]) -> None:
    here = {user["login"]["uuid"] for user in ask(base, **DAILY)["results"]}
    there = {user["login"]["uuid"] for user in ask(base, **DAILY | other)["results"]}
    assert not here & there


def test_the_order_of_inc_its_spaces_capitals_and_unknown_names_make_no_difference(base: str) -> None:
    assert ask(base, **DAILY | {"inc": "shoes, Email,login,LOCATION ,name"}) == ask(base, **DAILY)


def test_only_the_fields_of_inc_are_sent_in_the_order_of_the_api(base: str) -> None:
    assert {tuple(user) for user in ask(base, **DAILY)["results"]} == {("name", "location", "email", "login")}


@pytest.mark.parametrize("results", ["0", "-1", "5001", "100000", "many", "", "1.5", "²", "1" * 5000, None], ids=repr)
def test_results_out_of_range_silently_become_1(base: str, results: str | None) -> None:
    page = ask(base, seed="x", **({} if results is None else {"results": results}))
    assert page["info"]["results"] == len(page["results"]) == 1


@pytest.mark.parametrize("results", [1, 2, 5000])
def test_results_in_range_are_given(base: str, results: int) -> None:
    page = ask(base, results=str(results), inc="nat")
    assert page["info"]["results"] == len(page["results"]) == results


@pytest.mark.parametrize("page", ["0", "-1", "10001", "last", ""])
def test_a_page_out_of_range_silently_becomes_the_first(base: str, page: str) -> None:
    assert ask(base, **DAILY | {"page": page}) == ask(base, **DAILY)


def test_the_last_page_is_told_back(base: str) -> None:
    assert ask(base, **DAILY | {"page": "10000"})["info"] == {
        "seed": "2023-01-01",
        "results": 50,
        "page": 10000,
        "version": "1.4",
    }


def test_a_seed_of_18_characters_chooses_the_nationality_of_all_users(base: str) -> None:
    page = ask(base, results="100", seed=SWISS_SEED, inc="nat")
    assert {user["nat"] for user in page["results"]} == {"CH"}


def test_a_seed_of_18_characters_is_not_told_back_as_it_was_sent(base: str) -> None:
    """As in the API: who compares the seeds notices."""
    assert ask(base, seed=SWISS_SEED)["info"]["seed"] == f"{SWISS_SEED}03"


@pytest.mark.parametrize(
    "seed", ["abcdefghijklmnopzz", "0123456789abcdef15", "0123456789abcdef-1", "0123456789abcdef00"]
)
def test_a_seed_of_18_characters_that_names_no_nationality_of_the_stand_in_is_a_server_error(
    base: str, seed: str
) -> None:
    answer = requests.get(base, params={"seed": seed}, timeout=30)
    assert answer.status_code == requests.codes.server_error
    assert answer.json() == {"error": "Uh oh, something has gone wrong."}


def test_the_body_is_compact_json_in_utf_8_results_before_info(base: str) -> None:
    answer = requests.get(base, params=DAILY | {"seed": "Ø ☃"}, timeout=30)
    text = answer.content.decode()
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert text.startswith('{"results":[{"name":{"title":')
    assert text.endswith('"info":{"seed":"Ø ☃","results":50,"page":1,"version":"1.4"}}')
    assert "\\u" not in text
    assert json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) == text


class Clock:
    """A clock that stands still until it is moved, and knows where it was read."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.read_in_an_event_loop: list[bool] = []

    def __call__(self) -> float:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.read_in_an_event_loop.append(False)
        else:
            self.read_in_an_event_loop.append(True)
        return self.now


@contextmanager
def limited(users: int) -> Iterator[tuple[Clock, Callable[[int], requests.Response]]]:
    """A stand-in with a rate limit: its clock, and how to ask it for a number of users."""
    clock = Clock()
    with api.serve(rate_limit=users, clock=clock) as url:

        def ask_for(results: int) -> requests.Response:
            return requests.get(url, params={"results": str(results), "inc": "nat"}, timeout=30)

        yield clock, ask_for


def test_who_reached_the_limit_is_refused_without_being_told_for_how_long() -> None:
    with limited(100) as (_, ask_for):
        assert [ask_for(60).status_code, ask_for(60).status_code] == [200, 200]
        refused = ask_for(1)
    assert refused.status_code == requests.codes.too_many_requests
    assert refused.json()["error"].startswith("Whoa, ease up there cowboy. You've requested 120 users")
    assert list(refused.json()) == ["error"]
    assert "retry-after" not in refused.headers


def test_who_was_refused_is_heard_again_after_five_minutes() -> None:
    with limited(100) as (clock, ask_for):
        assert ask_for(100).ok
        clock.now += 299
        assert not ask_for(1).ok
        clock.now += 1
        assert ask_for(100).ok
        assert not ask_for(1).ok


def test_one_address_does_not_use_up_the_limit_of_another() -> None:
    limit = api.RateLimit(10, lambda: 0.0)
    assert limit.charge("10.0.0.1", 10) is None
    assert limit.charge("10.0.0.2", 10) is None
    assert limit.charge("10.0.0.1", 1) == 10


def test_without_a_limit_nobody_is_refused(base: str) -> None:
    for _ in range(5):
        ask(base, results="5000", inc="nat")


def test_a_page_is_made_outside_the_event_loop() -> None:
    with limited(100) as (clock, ask_for):
        clock.read_in_an_event_loop.clear()
        ask_for(1)
    assert clock.read_in_an_event_loop == [False]


def test_a_closed_stand_in_leaves_its_port() -> None:
    with api.serve() as url:
        ask(url)
        port = int(url.split(":")[2].split("/")[0])
    with api.serve(port) as again:
        assert again == url
        ask(again)


def test_a_port_that_is_taken_is_the_callers_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        with api.serve(taken.getsockname()[1]):
            pass


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The stand-in by itself, in a process of its own that does not outlive the test."""
    with subprocess.Popen(
        [sys.executable, "-m", "user_processing", "api", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda stop: stop.name)
def test_the_command_says_where_it_is_answers_and_stops_cleanly(stop: signal.Signals) -> None:
    with command("--port", "0") as process:
        assert process.stdout is not None
        told = process.stdout.readline()
        assert ask(told.removeprefix("Users at ").strip(), **DAILY)["info"]["results"] == 50
        process.send_signal(stop)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 0


@pytest.mark.parametrize("limit", [[], ["--rate-limit", "0"]])
def test_the_command_has_no_rate_limit_unless_it_is_told_one(limit: list[str]) -> None:
    with command("--port", "0", *limit) as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("Users at ").strip()
        for page in range(1, 6):
            ask(url, results="5000", page=str(page), inc="nat")
        assert requests.get(url, timeout=30).status_code == requests.codes.ok


def test_the_command_says_that_it_has_a_rate_limit() -> None:
    with command("--port", "0", "--rate-limit", "10") as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("Users at ").strip()
        assert process.stdout.readline() == (
            "Each client gets 10 users in 5 minutes, then 429. Without --rate-limit there is no limit.\n"
        )
        ask(url, results="10")
        assert requests.get(url, timeout=30).status_code == requests.codes.too_many_requests


def test_the_command_listens_on_an_ipv6_address() -> None:
    with command("--host", "::1", "--port", "0") as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("Users at ").strip()
        assert url.startswith("http://[::1]:")
        assert ask(url, **DAILY)["info"]["results"] == 50


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("127.0.0.1", "taken", "another program listens there. Choose another --port, or 0 for any that is free."),
        ("192.0.2.1", "0", "this machine does not have that address. Correct --host."),
        ("host.invalid", "0", "nobody knows this name. Correct --host."),
    ],
)
def test_the_command_exits_with_1_and_says_why_when_it_cannot_have_the_port(host: str, port: str, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = str(taken.getsockname()[1]) if port == "taken" else port
        with command("--host", host, "--port", wanted) as process:
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert err == f"Cannot listen on {host}:{wanted}: {said}\n"


def test_the_command_refuses_a_port_that_is_none() -> None:
    with command("--port", "70000") as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert "Invalid value for '--port'" in err


def test_the_stand_in_starts_without_dagster_pandas_or_mimesis() -> None:
    """Each costs more to import than the stand-in itself."""
    program = (
        "import sys; from user_processing.embedded import api, people; people.lists('de');"
        "print(*sorted({'dagster', 'pandas', 'mimesis'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""

"""The API's client against a server that does whatever a server can do wrong, over real sockets.

What is bounded in time is bounded by `SECONDS` here, and drips and hangs would otherwise go on for ever.
"""

import contextlib
import gzip
import itertools
import json
import random
import re
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from user_processing.resources import user_api as user_api_module
from user_processing.resources.user_api import ApiContractError, ApiUnavailableError, UserApi
from user_processing_tests.resources import certificates, hostile_api
from user_processing_tests.resources.certificates import Certificates
from user_processing_tests.resources.hostile_api import (
    PATH,
    Behaviour,
    Exchange,
    HostileApi,
    answers,
    chunked,
    good,
    head,
    redirects,
    resets,
    sends,
    sends_and_closes,
    sends_and_drips,
    sends_and_floods,
    sends_and_hangs,
    sends_page,
)

DAY = "2023-01-01"
SECONDS = 0.2
LARGEST_BODY = 1_000_000
WITH_SECRETS = {"user": "alice:hunter2@", "query": "?key=s3cr3t%2Fkey"}
SECRETS = ["alice", "hunter2", "YWxpY2U6aHVudGVyMg==", "s3cr3t", hostile_api.PASSWORD_OF_A_USER]
SECRETS += [hostile_api.EMAIL_OF_A_USER]

# Not ready now, perhaps later: asked for again. SLOW: the same, known only after the time for an attempt.
TRANSIENT = "transient"
SLOW = "slow"
# The same request would get the same answer.
PERMANENT = "permanent"


def gzipped(body: bytes) -> bytes:
    return gzip.compress(body)


def wrong(**info: object) -> Behaviour:
    """A page whose `info` says something else."""
    return sends_page(lambda page: page["info"].update(info))


def error(status: str, **headers: object) -> Behaviour:
    return answers(status, b'{"error": "Whoa, ease up there cowboy."}', **headers)


def endless_redirects_with_a_body(exchange: Exchange) -> None:
    exchange.send(head("302 Found", Location="/elsewhere", Content_Length=10**12))
    exchange.flood(itertools.repeat(bytes(65536)))


def shows(shown: str) -> Behaviour:
    """An error page that tells of the request."""
    return answers("404 Not Found", f"Not found: {shown}".encode())


OK_BUT = head(Content_Length=5000)
CHUNKED = head(Transfer_Encoding="chunked")
GZIPPED = {"Content_Encoding": "gzip"}
GZIP_OF_ENDLESS_NAME = bytes([0x1F, 0x8B, 8, 8, 0, 0, 0, 0, 0, 3])

MISBEHAVIOURS: dict[str, tuple[Behaviour, str, str]] = {
    # The connection
    "closes without a word": (sends_and_closes(lambda _: b""), TRANSIENT, "closed connection without response"),
    "resets before the answer": (resets(), TRANSIENT, "reset by peer"),
    "resets within the body": (resets(lambda body: OK_BUT + body[:50]), TRANSIENT, "reset by peer"),
    "hangs before the headers": (sends_and_hangs(lambda _: b""), SLOW, "Read timed out"),
    "hangs within the headers": (sends_and_hangs(lambda _: b"HTTP/1.1 200 OK\r\nDate:"), SLOW, "Read timed out"),
    "hangs before the body": (sends_and_hangs(lambda _: OK_BUT), SLOW, "Read timed out"),
    "hangs before the last chunk": (sends_and_hangs(lambda body: CHUNKED + chunked(body)), SLOW, "Read timed out"),
    "drips the status line": (sends_and_drips(b"", [b"HTTP/1.1 200 ", *[b"O"] * 5000]), SLOW, "Read timed out"),
    "drips headers": (sends_and_drips(b"HTTP/1.1 200 OK\r\nX:", [b"x"]), SLOW, "Read timed out"),
    "drips the body": (sends_and_drips(OK_BUT, [b" "]), SLOW, "Read timed out"),
    "drips the body, its length unknown": (sends_and_drips(head(), [b" "]), SLOW, "Read timed out"),
    "drips chunks": (sends_and_drips(CHUNKED, [b"1\r\n \r\n"]), SLOW, "Read timed out"),
    "drips the size of a chunk": (sends_and_drips(CHUNKED, [b"0"]), SLOW, "Read timed out"),
    "drips trailers": (sends_and_drips(CHUNKED + b"0\r\n", [b"X: x\r\n"]), SLOW, "Read timed out"),
    "drips compressed bytes that are no data": (
        sends_and_drips(head(**GZIPPED) + GZIP_OF_ENDLESS_NAME, [b"x"]),
        SLOW,
        "Read timed out",
    ),
    "drips the body of a redirect": (
        sends_and_drips(head("302 Found", Location="/elsewhere", Content_Length=5000), [b" "]),
        SLOW,
        "Read timed out",
    ),
    "floods with 100 Continue": (
        sends_and_floods(b"", lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n")),
        SLOW,
        "Read timed out",
    ),
    "sends more headers than there can be": (
        sends_and_closes(lambda _: b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200),
        TRANSIENT,
        "got more than 100 headers",
    ),
    "sends a header without end": (
        sends_and_closes(lambda _: b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000),
        TRANSIENT,
        "got more than 65536 bytes when reading header line",
    ),
    "does not speak HTTP but sends users": (sends_and_closes(lambda body: body), TRANSIENT, "the answer is not HTTP"),
    "speaks a later HTTP": (
        sends_and_closes(lambda body: b"HTTP/" + body.replace(b" ", b"") + b" 200 OK\r\n\r\n"),
        TRANSIENT,
        "the answer is not HTTP",
    ),
    # The body as bytes
    "sends less than it said": (sends_and_closes(lambda body: OK_BUT + body), TRANSIENT, "IncompleteRead"),
    "sends more than it said": (
        lambda exchange: exchange.send(head(Content_Length=100) + exchange.body()),
        TRANSIENT,
        "the JSON ends early, after 100 bytes",
    ),
    "contradicts itself about the length": (
        lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + b"{}"),
        PERMANENT,
        "InvalidHeader",
    ),
    "truncates the body of unknown length": (
        sends_and_closes(lambda body: head() + body[:-9]),
        TRANSIENT,
        "ends early",
    ),
    "truncates within a character": (
        sends_and_closes(lambda body: head() + body[: body.index("ë".encode()) + 1]),
        TRANSIENT,
        "the body ends early, within a character",
    ),
    "truncates a chunk": (sends_and_closes(lambda body: CHUNKED + chunked(body)[:70]), TRANSIENT, "IncompleteRead"),
    "sends no last chunk": (sends_and_closes(lambda body: CHUNKED + chunked(body)), TRANSIENT, "IncompleteRead"),
    "sends a chunk of no size": (sends_and_closes(lambda body: CHUNKED + body), TRANSIENT, "IncompleteRead"),
    "truncates the compressed body": (
        sends(lambda body: gzipped(body)[:-20], **GZIPPED),
        TRANSIENT,
        "ends early",
    ),
    "says compressed and is not": (sends(lambda body: body, **GZIPPED), TRANSIENT, "incorrect header check"),
    "sends nothing": (answers("200 OK"), TRANSIENT, "the JSON ends early, after 0 bytes"),
    "sends a body without end": (
        sends_and_floods(head(), lambda: itertools.repeat(bytes(65536))),
        PERMANENT,
        "HTTP 200, the body is larger than 1,000,000 bytes",
    ),
    "sends chunks without end": (
        sends_and_floods(CHUNKED, lambda: itertools.repeat(chunked(bytes(65536), 65536))),
        PERMANENT,
        "the body is larger than 1,000,000 bytes",
    ),
    "sends an error without end": (
        sends_and_floods(head("500 Oops"), lambda: itertools.repeat(bytes(65536))),
        PERMANENT,
        "HTTP 500, the body is larger than 1,000,000 bytes",
    ),
    "sends a bomb, gzip": (
        sends(lambda _: hostile_api.bomb("gzip"), **GZIPPED),
        PERMANENT,
        "the body is larger than 1,000,000 bytes",
    ),
    "sends a bomb, deflate": (
        sends(lambda _: hostile_api.bomb("deflate"), Content_Encoding="deflate"),
        PERMANENT,
        "the body is larger than 1,000,000 bytes",
    ),
    "sends a bomb in a bomb": (
        sends(lambda _: gzip.compress(hostile_api.bomb("gzip")), Content_Encoding="gzip, gzip"),
        PERMANENT,
        "the body is larger than 1,000,000 bytes",
    ),
    # The body as text
    "sends what is not UTF-8": (
        sends(lambda body: body.replace("ë".encode(), "ë".encode("latin-1"))),
        PERMANENT,
        "is not UTF-8",
    ),
    "sends UTF-16": (sends(lambda body: body.decode().encode("utf-16")), PERMANENT, "is not UTF-8"),
    "sends what is not JSON": (answers("200 OK", b"<?php echo 1; ?>"), PERMANENT, "body: '<?php echo 1; ?>'"),
    "sends HTML": (answers("200 OK", b"<html>Log in</html>"), PERMANENT, "HTTP 200, body: '<html>Log in</html>'"),
    "sends JSON and more": (sends(lambda body: body + b"{}"), PERMANENT, "not a page of users: Extra data"),
    "sends an error as if it were none": (error("200 OK"), PERMANENT, 'HTTP 200, body: \'{"error": "Whoa'),
    "sends null": (answers("200 OK", b"null"), PERMANENT, "not a page of users: Expected `object`, got `null`"),
    "nests as deeply as it can": (answers("200 OK", b'{"x":' + b"[" * 100_000), PERMANENT, "nested too deeply"),
    # The page
    "sends fewer users": (sends_page(lambda page: page["results"].pop()), PERMANENT, "asked for 3 users, and 2 came"),
    "sends more users": (
        sends_page(lambda page: page["results"].append(page["results"][0])),
        PERMANENT,
        "asked for 3 users, and 4 came",
    ),
    "sends no user": (sends_page(lambda page: page["results"].clear()), PERMANENT, "asked for 3 users, and 0 came"),
    "takes the results for 1": (
        sends_page(lambda page: (page["results"].__delitem__(slice(1, None)), page["info"].update(results=1))),
        PERMANENT,
        "info says seed=2023-01-01 page=2 results=1",
    ),
    "takes the page for 1": (wrong(page=1), PERMANENT, "info says seed=2023-01-01 page=1 results=3"),
    "takes another seed": (wrong(seed="abc"), PERMANENT, "info says seed=abc page=2 results=3"),
    "takes another seed and knows no e-mail": (
        sends_page(lambda page: (page["info"].update(seed="abc"), [user.pop("email") for user in page["results"]])),
        PERMANENT,
        "HTTP 200, the body of ",
    ),
    "tells the seed as a number": (wrong(seed=2023), PERMANENT, "Expected `str`, got `int` - at `$.info.seed`"),
    "tells a page without bounds": (wrong(page=10**400), PERMANENT, "info says seed=2023-01-01 page=1000000"),
    "sends no info": (sends_page(lambda page: page.pop("info")), PERMANENT, "missing required field `info`"),
    "sends users only": (
        sends(lambda body: json.dumps(json.loads(body)["results"]).encode()),
        PERMANENT,
        "got `array`",
    ),
    "sends the users by name": (
        sends_page(lambda page: page.update(results=dict(enumerate(page["results"])))),
        PERMANENT,
        "Expected `array`, got `object` - at `$.results`",
    ),
    # The status
    "400": (error("400 Bad Request"), PERMANENT, 'HTTP 400, body: \'{"error": "Whoa'),
    "401": (error("401 Unauthorized", WWW_Authenticate="Basic"), PERMANENT, "HTTP 401, body: '{"),
    "403": (error("403 Forbidden"), PERMANENT, "HTTP 403, body: '{"),
    "404": (error("404 Not Found"), PERMANENT, "HTTP 404, body: '{"),
    "404 that shows the address": (shows("GET /?key=s3cr3t%2Fkey"), PERMANENT, "HTTP 404, the body of "),
    "404 that shows the query": (shows('{"key": "s3cr3t/key"}'), PERMANENT, "HTTP 404, the body of "),
    "404 that shows the user": (shows("Hello, alice"), PERMANENT, "HTTP 404, the body of "),
    "404 that shows the password": (shows("not hunter2"), PERMANENT, "HTTP 404, the body of "),
    "404 that shows the headers": (shows("Basic YWxpY2U6aHVudGVyMg=="), PERMANENT, "HTTP 404, the body of "),
    "204": (lambda exchange: exchange.send(head("204 No Content")), PERMANENT, "HTTP 204, body: ''"),
    "206 with the page": (
        lambda exchange: answers("206 Partial Content", exchange.body())(exchange),
        PERMANENT,
        "HTTP 206, the body of ",
    ),
    "429": (error("429 Too Many Requests"), TRANSIENT, 'HTTP 429, body: \'{"error": "Whoa'),
    "429 for a day": (error("429 Too Many Requests", Retry_After=86400), TRANSIENT, "HTTP 429, body: '{"),
    "500": (error("500 Internal Server Error"), TRANSIENT, "HTTP 500, body: '{"),
    "500 with a page": (
        lambda exchange: answers("500 Oops", exchange.body())(exchange),
        TRANSIENT,
        "HTTP 500, the body of ",
    ),
    "502 in HTML": (answers("502 Bad Gateway", b"<h1>502</h1>"), TRANSIENT, "HTTP 502, body: '<h1>502</h1>'"),
    "503 for a day": (error("503 Service Unavailable", Retry_After=86400), TRANSIENT, "HTTP 503, body: '{"),
    "504": (answers("504 Gateway Timeout"), TRANSIENT, "HTTP 504, body: ''"),
    # Redirects
    "redirects to another host": (
        redirects(lambda exchange: "http://127.0.0.2/api/?" + "&".join(exchange.query.values())),
        PERMANENT,
        "HTTP 301 redirects from http://127.0.0.1 to http://127.0.0.2; only the same host is followed",
    ),
    "redirects to another host for later": (
        lambda exchange: exchange.send(head("302 Found", Location="//127.0.0.2/", Retry_After=86400, Content_Length=0)),
        PERMANENT,
        "to http://127.0.0.2",
    ),
    "redirects to a file": (redirects(lambda _: "file://127.0.0.1/etc/passwd"), PERMANENT, "InvalidSchema"),
    "redirects nowhere": (redirects(lambda _: "http://[::1"), PERMANENT, "ValueError"),
    "redirects without saying where": (answers("301 Moved Permanently"), PERMANENT, "HTTP 301, body: ''"),
    "redirects in a circle": (redirects(lambda _: "/elsewhere"), PERMANENT, "TooManyRedirects"),
    "redirects in a circle with bodies without end": (endless_redirects_with_a_body, PERMANENT, "TooManyRedirects"),
}


@pytest.fixture(scope="module")
def context() -> dg.InitResourceContext:
    return dg.build_init_resource_context()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is reached directly, and no API is configured, whatever the machine's settings."""
    monkeypatch.delenv("USER_API_URL", raising=False)
    monkeypatch.delenv("USERS_EMBEDDED", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


Open = Callable[..., contextlib.AbstractContextManager[UserApi]]


@pytest.fixture
def client(context: dg.InitResourceContext) -> Open:
    """Opens a `UserApi` that has no patience."""

    def open_(url: str | None, **settings: Any) -> contextlib.AbstractContextManager[UserApi]:  # noqa: ANN401
        patience = {"concurrency": 1, "attempts": 3, "backoff_seconds": 0, "rate_limit_seconds": 0.01}
        return UserApi(url=url, **{**patience, **settings}).yield_for_execution(context)

    return open_


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@contextlib.contextmanager
def hostile(*args: Any, **kwargs: Any) -> Iterator[HostileApi]:  # noqa: ANN401
    """A server that must not fail in ways that were not asked for."""
    with HostileApi(*args, **kwargs) as api:
        yield api
    assert api.faults == []


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def ask(user_api: UserApi, stopping: threading.Event | None = None) -> bytes:
    return user_api.page(seed=DAY, page=2, results=3, stopping=stopping)


GOOD = hostile_api.page(DAY, 2, 3)  # what then comes


def rows(*kinds: str) -> pytest.MarkDecorator:
    """The misbehaviours of these kinds."""
    chosen = [pytest.param(*row, id=name) for name, row in MISBEHAVIOURS.items() if row[1] in kinds]
    return pytest.mark.parametrize(("misbehaviour", "kind", "text"), chosen)


@rows(TRANSIENT, SLOW, PERMANENT)
def test_what_goes_wrong_is_named_without_secrets_and_the_next_page_comes_all_the_same(  # noqa: PLR0913, PLR0917
    client: Open,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    misbehaviour: Behaviour,
    kind: str,
    text: str,
) -> None:
    seconds = SECONDS if kind == SLOW else 30
    with (
        hostile() as api,
        client(api.url(**WITH_SECRETS), attempts=2, attempt_seconds=seconds, largest_body=LARGEST_BODY) as user_api,
    ):
        api.always = misbehaviour
        error = ApiContractError if kind == PERMANENT else ApiUnavailableError
        with within(5), pytest.raises(error, match=re.escape(text)) as raised:
            ask(user_api)
        assert raised.value.allow_retries == (kind != PERMANENT)
        assert [exchange.path for exchange in api.asked].count(PATH) == (1 if kind == PERMANENT else 2)
        api.always = good
        assert ask(user_api) == GOOD
    assert str(raised.value).startswith(f"GET {api.url()}?…&results=3&seed={DAY}&page=2&inc=name,location,login,email")
    said = str(raised.value) + caplog.text + "".join(capfd.readouterr())
    assert [secret for secret in SECRETS if secret in said] == []


@rows(TRANSIENT)
def test_what_may_go_better_is_asked_for_again(
    client: Open, capfd: pytest.CaptureFixture[str], misbehaviour: Behaviour, kind: str, text: str
) -> None:
    with hostile() as api, client(api.url()) as user_api:
        api.plan(misbehaviour)
        assert ask(user_api) == GOOD, kind
        assert len(api.asked) == 2
    said = f"GET {re.escape(api.url())}.*{re.escape(text)}.* Attempt 1 of 3; again in 0.0 s."
    assert re.search(said, capfd.readouterr().err)


def coded(body: bytes, coding: str) -> bytes:
    """The body in a content coding."""
    return {
        "identity": lambda: body,
        "gzip": lambda: gzip.compress(body),
        "gzip in two members": lambda: gzip.compress(body[:100]) + gzip.compress(body[100:]),
        "deflate": lambda: zlib.compress(body),
    }[coding]()


@pytest.mark.parametrize("results", [1, 1000])
@pytest.mark.parametrize("coding", ["identity", "gzip", "gzip in two members", "deflate"])
@pytest.mark.parametrize("mode", ["length", "chunks", "small chunks", "until closed"])
def test_a_page_comes_byte_for_byte_in_every_transfer_mode(client: Open, mode: str, coding: str, results: int) -> None:
    def behave(exchange: Exchange) -> None:
        body = coded(exchange.body(), coding)
        headers = {"Content_Encoding": coding.split(maxsplit=1)[0]}
        if mode == "length":
            exchange.send(head(Content_Length=len(body), **headers) + body)
        elif mode == "until closed":
            exchange.send(head(**headers) + body)
            exchange.close()
        else:
            size = 50_000 if mode == "chunks" else 7
            exchange.send(
                head(Transfer_Encoding="chunked", **headers) + chunked(body, size) + b"0\r\nX: trailer\r\n\r\n"
            )

    with hostile() as api, client(api.url()) as user_api:
        api.always = behave
        for _ in range(2):
            assert user_api.page(seed=DAY, page=1, results=results) == hostile_api.page(DAY, 1, results)
        assert api.connections == (2 if mode == "until closed" else 1)


def test_a_page_may_drip_as_long_as_it_is_whole_in_time(client: Open) -> None:
    with hostile() as api, client(api.url(), attempt_seconds=30) as user_api:
        api.plan(
            lambda exchange: exchange.drip(
                [head(Content_Length=len(GOOD))[:9], head(Content_Length=len(GOOD))[9:], GOOD[:9], GOOD[9:]]
            )
        )
        assert ask(user_api) == GOOD
        assert len(api.asked) == 1


def test_100_continue_comes_before_a_page(client: Open) -> None:
    with hostile() as api, client(api.url()) as user_api:
        api.plan(
            lambda exchange: exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n" + head(Content_Length=len(GOOD)) + GOOD)
        )
        assert ask(user_api) == GOOD


def test_a_malformed_header_spoils_no_page_and_brings_no_secret_into_the_log(
    client: Open, caplog: pytest.LogCaptureFixture
) -> None:
    with hostile() as api, client(api.url(**WITH_SECRETS)) as user_api:
        api.plan(lambda exchange: exchange.send(head(Content_Length=len(GOOD))[:-2] + b"no header\r\n\r\n" + GOOD))
        assert ask(user_api) == GOOD
    assert caplog.text == ""


def test_lone_surrogates_are_the_business_of_whoever_reads_the_records(client: Open) -> None:
    body = GOOD.replace("Zoë 1".encode(), b"\\ud800")
    with hostile() as api, client(api.url()) as user_api:
        api.plan(sends(lambda _: body))
        assert ask(user_api) == body


@pytest.mark.parametrize("wrappings", [1, 2])
def test_a_bomb_takes_no_more_memory_than_a_body_may_have(client: Open, wrappings: int) -> None:
    bomb = hostile_api.bomb("gzip")
    if wrappings == 2:
        bomb = gzip.compress(bomb)
    with hostile() as api, client(api.url(), largest_body=4_000_000) as user_api:
        api.plan(sends(lambda _: bomb, Content_Encoding=", ".join(["gzip"] * wrappings)))
        tracemalloc.start()
        try:
            with pytest.raises(ApiContractError, match="larger than 4,000,000 bytes"):
                ask(user_api)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 8_000_000


# Pauses and bounds


@pytest.mark.parametrize(
    ("header", "limit", "pause"),
    [
        pytest.param({}, 0.1, "0.1", id="none"),
        pytest.param({"Retry_After": "0"}, 0.1, "0.0", id="none at all"),
        pytest.param({"Retry_After": "1"}, 60, "1.0", id="seconds"),
        pytest.param({"Retry_After": "86400"}, 0.1, "0.1", id="a day"),
        pytest.param({"Retry_After": "9" * 400}, 0.1, "0.1", id="ages"),
        pytest.param({"Retry_After": "-5"}, 0.1, "0.1", id="a negative number"),
        pytest.param({"Retry_After": "soon"}, 0.1, "0.1", id="nonsense"),
        pytest.param({"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.1, "0.0", id="a date in the past"),
        pytest.param({"Retry_After": "Fri, 31 Dec 9999 23:59:59 GMT"}, 0.1, "0.1", id="a date far away"),
    ],
)
def test_the_api_is_left_alone_for_as_long_as_it_says_within_bounds(
    client: Open, capfd: pytest.CaptureFixture[str], header: dict[str, str], limit: float, pause: str
) -> None:
    with hostile() as api, client(api.url(), rate_limit_seconds=limit) as user_api, within(float(pause) + 1):
        api.plan(error("429 Too Many Requests", **header))
        assert ask(user_api) == GOOD
    assert f"again in {pause} s." in capfd.readouterr().err


@pytest.mark.parametrize(("header", "pause"), [({}, "0.0"), ({"Retry_After": "86400"}, "0.2")], ids=["no", "yes"])
def test_a_server_in_trouble_may_also_say_for_how_long(
    client: Open, capfd: pytest.CaptureFixture[str], header: dict[str, str], pause: str
) -> None:
    with hostile() as api, client(api.url(), rate_limit_seconds=0.2) as user_api:
        api.plan(error("503 Service Unavailable", **header))
        assert ask(user_api) == GOOD
    assert f"again in {pause} s." in capfd.readouterr().err


def test_a_date_says_for_how_long_the_api_is_left_alone(client: Open, capfd: pytest.CaptureFixture[str]) -> None:
    with hostile() as api, client(api.url(), rate_limit_seconds=60) as user_api:
        api.plan(error("429 Too Many Requests", Retry_After=formatdate(time.time() + 1.5, usegmt=True)))
        assert ask(user_api) == GOOD
    pause = re.search(r"again in (\d\.\d) s", capfd.readouterr().err)
    assert pause
    assert 0 < float(pause[1]) <= 1.5


def test_pauses_double_and_have_jitter(client: Open, capfd: pytest.CaptureFixture[str]) -> None:
    random.seed(5)
    jitter = [random.uniform(0, 0.1) for _ in range(3)]
    assert min(jitter) > 0.05
    random.seed(5)
    with hostile() as api, client(api.url(), attempts=4, backoff_seconds=0.1) as user_api:
        api.plan(*[error("503 Service Unavailable")] * 3)
        assert ask(user_api) == GOOD
    pauses = re.findall(r"again in (\S+) s", capfd.readouterr().err)
    assert pauses == [f"{backoff + more:.1f}" for backoff, more in zip([0.1, 0.2, 0.4], jitter, strict=True)]


@pytest.mark.parametrize(
    "misbehaviour", [error("503 Service Unavailable"), sends_and_hangs(lambda _: b"")], ids=["answers", "hangs"]
)
def test_all_attempts_together_have_their_time(client: Open, misbehaviour: Behaviour) -> None:
    settings = {"attempts": 1000, "backoff_seconds": 0.02, "total_seconds": 0.5, "attempt_seconds": 60}
    with hostile() as api, client(api.url(), **settings) as user_api:
        api.always = misbehaviour
        with within(1.5), pytest.raises(ApiUnavailableError, match=r"failed \d+ times in [01] s, the last time: "):
            ask(user_api)


def test_a_run_that_is_stopping_asks_for_nothing(client: Open) -> None:
    stopping = threading.Event()
    stopping.set()
    with hostile() as api, client(api.url()) as user_api:
        with pytest.raises(ApiUnavailableError, match="the run is stopping"):
            ask(user_api, stopping)
        assert api.asked == []


def test_a_run_that_is_stopping_does_not_ask_again(client: Open) -> None:
    stopping = threading.Event()

    def refuse(exchange: Exchange) -> None:
        stopping.set()
        error("429 Too Many Requests")(exchange)

    with hostile() as api, client(api.url(), rate_limit_seconds=60) as user_api:
        api.always = refuse
        with within(5), pytest.raises(ApiUnavailableError, match="failed 1 times in 0 s, the last time: HTTP 429"):
            ask(user_api, stopping)
        assert len(api.asked) == 1


def test_a_run_that_is_stopping_ends_the_pause(client: Open) -> None:
    stopping = threading.Event()
    with hostile() as api, client(api.url(), rate_limit_seconds=60) as user_api:
        api.always = error("429 Too Many Requests")
        soon = threading.Timer(0.2, stopping.set)
        soon.start()
        with within(5), pytest.raises(ApiUnavailableError, match="the run is stopping"):
            ask(user_api, stopping)
        soon.join()
        assert len(api.asked) == 1


# Redirects and addresses


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
def test_a_redirect_on_the_same_host_is_followed_with_the_credentials(
    client: Open, status: str, *, absolute: bool
) -> None:
    """The missing slash at the end of the address."""

    def add_the_slash(exchange: Exchange) -> str:
        query = "&".join(f"{name}={value}" for name, value in exchange.query.items())
        return f"{api.url() if absolute else PATH}?{query}"

    with hostile() as api, client(api.url(path=PATH.rstrip("/"), **WITH_SECRETS)) as user_api:
        for _ in range(3):
            api.plan(redirects(add_the_slash, status))
            assert ask(user_api) == GOOD
            assert [exchange.path for exchange in api.asked] == [PATH.rstrip("/"), PATH]
            assert api.asked[1].headers["authorization"] == "Basic YWxpY2U6aHVudGVyMg=="
        assert api.connections == 1


def test_a_circle_of_redirects_is_left_after_five(client: Open) -> None:
    with hostile() as api, client(api.url()) as user_api:
        api.always = redirects(lambda _: "/elsewhere")
        with pytest.raises(ApiContractError, match="TooManyRedirects"):
            ask(user_api)
        assert len(api.asked) == 6


def test_a_redirect_that_forgets_the_question_is_noticed(client: Open) -> None:
    with hostile() as api, client(api.url()) as user_api:
        api.plan(redirects(lambda _: PATH), answers("200 OK", hostile_api.page("f00", 1, 1)))
        with pytest.raises(ApiContractError, match="info says seed=f00 page=1 results=1"):
            ask(user_api)


def test_a_question_is_added_to_that_of_the_address(client: Open) -> None:
    with hostile() as api, client(api.url(path="/api", **WITH_SECRETS)) as user_api:
        assert ask(user_api) == GOOD
        assert api.asked[0].path == "/api"
        assert api.asked[0].query == {
            "key": "s3cr3t/key",
            "results": "3",
            "seed": DAY,
            "page": "2",
            "inc": "name,location,login,email",
        }
        assert api.asked[0].headers["authorization"] == "Basic YWxpY2U6aHVudGVyMg=="


def test_an_ipv6_address_is_an_address(client: Open) -> None:
    with hostile("::1") as api, client(api.url()) as user_api:
        assert ask(user_api) == GOOD
        assert user_api.address == f"http://[::1]:{api.server_address[1]}{PATH}"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://randomuser.me/api/1.4/", "https://randomuser.me/api/1.4/"),
        ("https://alice:hunter2@randomuser.me:8443/api?key=s3cr3t#s3cr3t", "https://randomuser.me:8443/api?…"),
        ("https://randomuser.me/api?s3cr3t", "https://randomuser.me/api?…"),
        ("alice:hunter2@randomuser.me/api", "(not the address of an HTTP API)"),
        ("ftp://alice:hunter2@randomuser.me/api", "(not the address of an HTTP API)"),
        ("https://alice:hun/ter2@randomuser.me/api", "(not the address of an HTTP API)"),
        ("https://alice:77/ter2@randomuser.me/api", "(not the address of an HTTP API)"),
        ("https://[::1/api?key=s3cr3t", "(not the address of an HTTP API)"),
        ("", "the embedded stand-in. Set USER_API_URL to use another."),
        (None, "the embedded stand-in. Set USER_API_URL to use another."),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str | None, address: str) -> None:
    assert UserApi(url=url).address == address


@pytest.mark.parametrize(
    "url",
    [
        "alice:hunter2@randomuser.me/api",
        "ftp://alice:hunter2@randomuser.me/api?key=s3cr3t",
        "http://alice:hunter2@randomuser.me:port/api?key=s3cr3t",
        "http://alice:hunter2@[::1/api?key=s3cr3t",
        "http://alice:hunter2@/api?key=s3cr3t",
        "http://alice:hunter2@" + "a" * 70 + ".me/?key=s3cr3t",
        "//alice:hunter2@randomuser.me/?key=s3cr3t",
    ],
)
def test_an_address_of_no_use_is_told_at_once_without_its_secrets(client: Open, url: str) -> None:
    with client(url) as user_api:
        with pytest.raises(ApiContractError) as raised:
            ask(user_api)
        said = str(raised.value) + str(user_api.probe(seed=DAY))
    assert [secret for secret in SECRETS if secret in said] == []


def test_nobody_listens(client: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        client(f"http://127.0.0.1:{port}/") as user_api,
        pytest.raises(ApiUnavailableError, match=f"3 times.*127.0.0.1:{port}: .*Connection refused"),
    ):
        ask(user_api)


def test_a_name_that_nobody_knows_may_be_known_later(client: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    asked = []

    def forgetful(host: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        asked.append(host)
        if len(asked) < 3:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", forgetful)
    with hostile() as api, client(api.url().replace("127.0.0.1", "api.invalid")) as user_api:
        assert user_api.probe(seed=DAY) == (
            f"NameResolutionError: api.invalid:{api.server_address[1]}: "
            "Failed to resolve 'api.invalid' ([Errno -2] Name or service not known)"
        )
        assert ask(user_api) == GOOD
    assert set(asked) == {"api.invalid"}


@contextlib.contextmanager
def deaf() -> Iterator[int]:
    """A port of this machine where connecting neither succeeds nor fails: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        while True:
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.05)
            try:
                waiting.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]


def test_the_time_for_connecting_is_for_all_addresses_of_a_host(client: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *args, **kwargs: real("127.0.0.1", *args, **kwargs) * 5)
    with (
        deaf() as port,
        client(f"http://api.invalid:{port}/", attempts=1, connect_seconds=0.3) as user_api,
        within(1),
        pytest.raises(ApiUnavailableError, match="ConnectTimeoutError"),
    ):
        ask(user_api)


def test_the_time_for_the_handshake_is_not_shared_among_addresses(
    client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: real(*args, **kwargs) * 100)
    with (
        hostile(greeting=Exchange.hang) as api,
        client(api.url(scheme="https"), attempts=1, connect_seconds=0.2) as user_api,
    ):
        started = time.monotonic()
        with pytest.raises(ApiUnavailableError, match="timed out"):
            ask(user_api)
        assert time.monotonic() - started > 0.2


# Connections


def test_pages_share_connections(client: Open) -> None:
    with hostile() as api, client(api.url(), concurrency=3) as user_api, ThreadPoolExecutor(8) as pool:
        pages = pool.map(lambda page: user_api.page(seed=DAY, page=page, results=3), range(1, 41))
        assert list(pages) == [hostile_api.page(DAY, page, 3) for page in range(1, 41)]
        assert api.connections <= 3


def test_a_connection_that_the_server_closed_meanwhile_is_made_again(client: Open) -> None:
    def answer_and_close(exchange: Exchange) -> None:
        good(exchange)
        exchange.close()

    with hostile() as api, client(api.url()) as user_api:
        api.always = answer_and_close
        for _ in range(3):
            assert ask(user_api) == GOOD


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("url", [None, ""])
def test_the_stand_in_knows_neither_proxy_nor_netrc(
    client: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, url: str | None
) -> None:
    (tmp_path / "netrc").write_text("default login alice password hunter2")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with hostile() as proxy, client(url) as user_api:
        monkeypatch.setenv(variable, proxy.url(path=""))
        assert json.loads(ask(user_api))["info"]["seed"] == DAY
        assert user_api.probe(seed=DAY) is None
        assert proxy.connections == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_drips_has_no_more_time_than_an_api_that_does(
    client: Open, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with hostile() as proxy, client(f"{scheme}://api.invalid/", attempts=1, attempt_seconds=SECONDS) as user_api:
        proxy.always = sends_and_drips(b"HTTP/1.1 200 OK\r\nX:", [b"x"])
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url(path=""))
        with within(3), pytest.raises(ApiUnavailableError, match="timed out"):
            ask(user_api)
        assert len(proxy.asked) == 1


def test_a_slow_proxy_leaves_no_more_time_for_the_handshake_behind_it(
    client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def consent_late(exchange: Exchange) -> None:
        exchange.over.wait(0.8 * SECONDS)
        exchange.send(head("200 Connection established"))
        exchange.hang()

    with hostile() as proxy, client("https://api.invalid/", attempts=1, attempt_seconds=SECONDS) as user_api:
        proxy.always = consent_late
        monkeypatch.setenv("https_proxy", proxy.url(path=""))
        with within(1.5 * SECONDS), pytest.raises(ApiUnavailableError, match="timed out"):
            ask(user_api)


# TLS


@pytest.fixture
def trusting(tls: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client trusts the authority of the tests."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.authority))


@pytest.mark.usefixtures("trusting")
def test_pages_come_over_tls(client: Open, tls: Certificates) -> None:
    with hostile(tls=tls.good) as api, client(api.url()) as user_api:
        for _ in range(3):
            assert ask(user_api) == GOOD
        assert api.connections == 1


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    ("server", "text"),
    [
        ("expired", "certificate has expired"),
        ("not_yet_valid", "certificate is not yet valid"),
        ("of_another_host", "IP address mismatch"),
        ("self_signed", "self-signed certificate"),
    ],
)
def test_a_bad_certificate_is_not_asked_again(client: Open, tls: Certificates, server: str, text: str) -> None:
    with hostile(tls=getattr(tls, server)) as api, client(api.url(**WITH_SECRETS)) as user_api:
        with pytest.raises(ApiContractError, match=f"SSLCertVerificationError: .*{text}") as raised:
            ask(user_api)
        assert raised.value.allow_retries is False
        assert (api.connections, api.asked) == (1, [])


def test_a_certificate_of_an_unknown_authority_is_not_asked_again(client: Open, tls: Certificates) -> None:
    with hostile(tls=tls.good) as api, client(api.url()) as user_api:
        with pytest.raises(ApiContractError, match="unable to get local issuer certificate"):
            ask(user_api)
        assert api.connections == 1


def test_a_server_without_tls_is_not_asked_again(client: Open) -> None:
    with (
        hostile(greeting=lambda exchange: exchange.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as api,
        client(api.url(scheme="https")) as user_api,
    ):
        with pytest.raises(ApiContractError, match="SSLError"):
            ask(user_api)
        assert api.connections == 1


@pytest.mark.usefixtures("trusting")
def test_https_is_not_given_up_for_a_redirect(client: Open, tls: Certificates) -> None:
    with hostile(tls=tls.good) as api, client(api.url()) as user_api:
        api.plan(redirects(lambda _: api.url(scheme="http")))
        with pytest.raises(ApiContractError, match=r"redirects from https://127.0.0.1 to http://127.0.0.1"):
            ask(user_api)
        assert api.connections == 1


@pytest.mark.usefixtures("trusting")
def test_http_is_given_up_for_https_on_the_same_host(client: Open, tls: Certificates) -> None:
    with hostile(tls=tls.good) as secure, hostile() as api, client(api.url()) as user_api:
        api.plan(redirects(lambda _: f"{secure.url()}?seed={DAY}&page=2&results=3"))
        assert ask(user_api) == GOOD


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    "misbehaviour",
    [
        sends_and_closes(lambda _: b""),
        sends_and_closes(lambda body: OK_BUT + body),
        sends_and_closes(lambda body: CHUNKED + chunked(body)),
        sends_and_closes(lambda body: head() + body[:-1]),
        resets(lambda body: OK_BUT + body),
        sends_and_drips(OK_BUT, [b" "]),
        sends_and_drips(b"HTTP/1.1 200 OK\r\nX:", [b"x"]),
    ],
    ids=["closes", "truncates", "sends no last chunk", "truncates unknown length", "resets", "drips", "drips headers"],
)
def test_what_may_go_better_is_asked_for_again_over_tls(
    client: Open, tls: Certificates, misbehaviour: Behaviour
) -> None:
    with hostile(tls=tls.good) as api, client(api.url(), attempt_seconds=3 * SECONDS) as user_api:
        api.plan(misbehaviour)
        with within(5):
            assert ask(user_api) == GOOD


IN_THE_HANDSHAKE: dict[str, Behaviour] = {
    "hangs": Exchange.hang,
    "drips": lambda exchange: exchange.drip([b"\x16\x03\x03\x40\x00", *[b"\x02"] * 5000]),
    "closes": Exchange.close,
}


@pytest.mark.parametrize("greeting", IN_THE_HANDSHAKE.values(), ids=IN_THE_HANDSHAKE)
def test_a_handshake_that_does_not_end_may_go_better_later(client: Open, greeting: Behaviour) -> None:
    with (
        hostile(greeting=greeting) as api,
        client(api.url(scheme="https"), attempts=2, attempt_seconds=SECONDS) as user_api,
    ):
        with within(3), pytest.raises(ApiUnavailableError, match="failed 2 times"):
            ask(user_api)
        assert api.connections == 2


# The probe


def test_a_probe_finds_an_api_that_answers(client: Open) -> None:
    with hostile() as api, client(api.url()) as user_api:
        assert user_api.probe(seed=DAY) is None
        assert {name: api.asked[0].query[name] for name in ("seed", "page", "results")} == {
            "seed": DAY,
            "page": "1",
            "results": "1",
        }


@pytest.mark.parametrize(
    ("misbehaviour", "seen"),
    [
        (error("503 Service Unavailable", Retry_After=86400), "HTTP 503, body: "),
        (error("429 Too Many Requests"), "HTTP 429, body: "),
        (wrong(seed="abc"), "info says seed=abc"),
        (sends_and_closes(lambda body: OK_BUT + body), "IncompleteRead"),
    ],
    ids=["503", "429", "another seed", "truncated"],
)
def test_a_probe_says_what_it_saw_and_does_not_ask_again(client: Open, misbehaviour: Behaviour, seen: str) -> None:
    with hostile() as api, client(api.url(), rate_limit_seconds=60) as user_api:
        api.always = misbehaviour
        assert seen in str(user_api.probe(seed=DAY))
        assert len(api.asked) == 1


def test_a_probe_has_10_seconds() -> None:
    """Because a sensor's tick has 60, and looks at other things too."""
    assert user_api_module._PROBE_SECONDS == 10  # noqa: SLF001


@pytest.fixture
def hasty_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_api_module, "_PROBE_SECONDS", SECONDS)


@pytest.mark.usefixtures("hasty_probe")
@pytest.mark.parametrize(
    "name",
    ["hangs before the headers", "drips headers", "drips the body", "drips chunks", "drips the body of a redirect"],
)
def test_a_probe_ends_in_time(client: Open, name: str) -> None:
    with hostile() as api, client(api.url()) as user_api, within(2):
        api.always = MISBEHAVIOURS[name][0]
        assert "Read timed out" in str(user_api.probe(seed=DAY))
        assert len(api.asked) == 1


@pytest.mark.usefixtures("hasty_probe")
@pytest.mark.parametrize("greeting", IN_THE_HANDSHAKE.values(), ids=IN_THE_HANDSHAKE)
def test_a_probe_ends_in_time_in_the_handshake(client: Open, greeting: Behaviour) -> None:
    with hostile(greeting=greeting) as api, client(api.url(scheme="https")) as user_api, within(2):
        assert user_api.probe(seed=DAY) is not None
        assert api.connections == 1


@pytest.mark.usefixtures("hasty_probe")
def test_a_probe_ends_in_time_before_it_is_connected(client: Open) -> None:
    with deaf() as port, client(f"http://127.0.0.1:{port}/") as user_api, within(2):
        assert "ConnectTimeoutError" in str(user_api.probe(seed=DAY))

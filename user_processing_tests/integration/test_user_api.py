"""The API's client against a server that does whatever a server can do wrong, over real sockets.

What is bounded in time is bounded by `SECONDS` here, and drips and hangs would otherwise go on for ever.
"""

import contextlib
import gzip
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
from urllib.parse import urlencode

import dagster as dg
import pytest

from user_processing.columns import INCLUDED
from user_processing.settings import SettingsError
from user_processing.source import user_api as user_api_module
from user_processing.source.user_api import ApiContractError, ApiUnavailableError, UserApi
from user_processing_tests.support import certificates, hostile_api
from user_processing_tests.support.certificates import Certificates
from user_processing_tests.support.hostile_api import (
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
    sends_and_hangs,
)
from user_processing_tests.support.misbehaviours import (
    CHUNKED,
    CONTINUE,
    MISBEHAVIOURS,
    OK_BUT,
    PERMANENT,
    SLOW,
    TRANSIENT,
    error,
    wrong,
)

DAY = "2023-01-01"
SECONDS = 0.2
LARGEST_BODY = 1_000_000
WITH_SECRETS = {"user": "alice:hunter2@", "query": "?key=s3cr3t%2Fkey"}
SECRETS = ["alice", "hunter2", "YWxpY2U6aHVudGVyMg==", "s3cr3t", hostile_api.PASSWORD_OF_A_USER]
SECRETS += [hostile_api.EMAIL_OF_A_USER]


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
    assert str(raised.value).startswith(f"GET {api.url()}?…&results=3&seed={DAY}&page=2&inc={INCLUDED}")
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


@pytest.mark.parametrize("times", [1, 20])
def test_100_continue_comes_before_a_page(client: Open, times: int) -> None:
    with hostile() as api, client(api.url()) as user_api:
        api.plan(lambda exchange: exchange.send(CONTINUE * times + head(Content_Length=len(GOOD)) + GOOD))
        assert ask(user_api) == GOOD
        assert len(api.asked) == 1


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
            "inc": INCLUDED,
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
        ("", "the embedded stand-in. Set USER_API_URL to use another."),
        (None, "the embedded stand-in. Set USER_API_URL to use another."),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str | None, address: str) -> None:
    assert UserApi(url=url).address == address


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("127.0.0.1:8102", "it lacks http:// or https://"),
        ("alice:hunter2@randomuser.me/api", "it lacks http:// or https://"),
        ("ftp://alice:hunter2@randomuser.me/api?key=s3cr3t", "it lacks http:// or https://"),
        ("//alice:hunter2@randomuser.me/?key=s3cr3t", "it lacks http:// or https://"),
        ("http://alice:hunter2@randomuser.me:port/api?key=s3cr3t", "it is not a URL"),
        ("http://alice:hunter2@[::1/api?key=s3cr3t", "it is not a URL"),
        ("http://alice:hunter2@/api?key=s3cr3t", "it is not a URL"),
        ("https://alice:hun/ter2@randomuser.me/api", "it is not a URL"),
        ("https://alice:77/ter2@randomuser.me/api", "it is not a URL"),
    ],
)
def test_an_address_of_no_use_is_refused_at_once_without_its_secrets(client: Open, url: str, text: str) -> None:
    """In a launchpad: a variable is refused before."""
    with pytest.raises(
        SettingsError, match=f"^The field url of the resource user_api cannot be used: {text}"
    ) as raised:
        with client(url):
            pass
    assert [secret for secret in SECRETS if secret in str(raised.value)] == []


def test_a_host_that_cannot_be_one_is_told_without_secrets(client: Open) -> None:
    with client("http://alice:hunter2@" + "a" * 70 + ".me/?key=s3cr3t") as user_api:
        with pytest.raises(ApiContractError) as raised:
            ask(user_api)
        said = str(raised.value) + str(user_api.probe(seed=DAY).problem)
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
        assert user_api.probe(seed=DAY).problem == (
            f"NameResolutionError: api.invalid:{api.server_address[1]}: "
            "Failed to resolve 'api.invalid' ([Errno -2] Name or service not known). "
            "Correct the host in USER_API_URL, or mend the look-up of names."
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
        assert user_api.probe(seed=DAY).up
        assert proxy.connections == 0


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_is_reached_without_a_proxy(
    client: Open, monkeypatch: pytest.MonkeyPatch, variable: str, host: str
) -> None:
    with hostile() as proxy, hostile("::1" if host == "::1" else "127.0.0.1") as api:
        monkeypatch.setenv(variable, proxy.url(path=""))
        with client(api.url().replace("127.0.0.1", host)) as user_api:
            api.plan(redirects(lambda exchange: f"{PATH}?{urlencode(exchange.query)}"))
            assert ask(user_api) == GOOD
        assert proxy.connections == 0


NOT_A_PROXY = "it is not the URL of an HTTP proxy"


@pytest.mark.parametrize(
    ("variable", "url", "kind", "text"),
    [
        ("http_proxy", "http://alice:hunter2@127.0.0.1:1", TRANSIENT, "the proxy http://127.0.0.1:1 that {} names"),
        ("HTTPS_PROXY", "http://alice:hunter2@127.0.0.1:1", TRANSIENT, "the proxy http://127.0.0.1:1 that {} names"),
        ("all_proxy", "127.0.0.1:1", TRANSIENT, "the proxy http://127.0.0.1:1 that {} names cannot be used: NewConn"),
        (
            "HTTP_PROXY",
            "http://proxy.invalid:3128",
            TRANSIENT,
            "proxy.invalid:3128 that {} names cannot be used: NameR",
        ),
        (
            "HTTPS_PROXY",
            "htp://127.0.0.1:1",
            PERMANENT,
            f"htp://127.0.0.1:1 that {{}} names cannot be used: {NOT_A_PROXY}",
        ),
        ("HTTPS_PROXY", "http://", PERMANENT, f"that {{}} names cannot be used: {NOT_A_PROXY}"),
        ("ALL_PROXY", "http://[::1", PERMANENT, f"the proxy that {{}} names cannot be used: {NOT_A_PROXY}"),
        ("http_proxy", "socks5://127.0.0.1:1", PERMANENT, f"that {{}} names cannot be used: {NOT_A_PROXY}"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_with_its_variable(  # noqa: PLR0913, PLR0917
    client: Open, monkeypatch: pytest.MonkeyPatch, variable: str, url: str, kind: str, text: str
) -> None:
    monkeypatch.setenv(variable, url)
    scheme = "https" if "https" in variable.lower() else "http"
    with client(f"{scheme}://api.example/") as user_api:
        error = ApiContractError if kind == PERMANENT else ApiUnavailableError
        with pytest.raises(error, match=re.escape(text.format(variable))) as raised:
            ask(user_api)
    assert str(raised.value).endswith(f"Correct {variable}, or put api.example into NO_PROXY")
    assert [secret for secret in SECRETS if secret in str(raised.value)] == []


def test_a_proxy_that_wants_a_password_is_named(client: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile() as proxy, client("http://api.example/") as user_api:
        proxy.always = answers("407 Proxy Authentication Required")
        monkeypatch.setenv("HTTP_PROXY", proxy.url(path=""))
        with pytest.raises(
            ApiContractError, match=r"This is the proxy, which wants a user and a password\. Add them to"
        ):
            ask(user_api)


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
        assert user_api.probe(seed=DAY).up
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
        assert seen in str(user_api.probe(seed=DAY).problem)
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
        assert "Read timed out" in str(user_api.probe(seed=DAY).problem)
        assert len(api.asked) == 1


@pytest.mark.usefixtures("hasty_probe")
@pytest.mark.parametrize("greeting", IN_THE_HANDSHAKE.values(), ids=IN_THE_HANDSHAKE)
def test_a_probe_ends_in_time_in_the_handshake(client: Open, greeting: Behaviour) -> None:
    with hostile(greeting=greeting) as api, client(api.url(scheme="https")) as user_api, within(2):
        assert not user_api.probe(seed=DAY).up
        assert api.connections == 1


@pytest.mark.usefixtures("hasty_probe")
def test_a_probe_ends_in_time_before_it_is_connected(client: Open) -> None:
    with deaf() as port, client(f"http://127.0.0.1:{port}/") as user_api, within(2):
        assert "ConnectTimeoutError" in str(user_api.probe(seed=DAY).problem)

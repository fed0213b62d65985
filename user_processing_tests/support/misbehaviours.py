"""All that a server does wrong in one answer, and what a client says of it."""

import gzip
import itertools
import json

from user_processing_tests.support import hostile_api
from user_processing_tests.support.hostile_api import (
    Behaviour,
    Exchange,
    answers,
    chunked,
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
CONTINUE = head("100 Continue")
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
        sends_and_floods(b"", lambda: itertools.repeat(CONTINUE)),
        TRANSIENT,
        "got more than 20 interim responses",
    ),
    "floods with trailers": (
        sends_and_floods(CHUNKED + b"0\r\n", lambda: itertools.repeat(b"X: x\r\n")),
        TRANSIENT,
        "got more than 100 headers",
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

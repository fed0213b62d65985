"""What may be said of a request and of its failure: nothing of a URL's user, password and query, nothing of a page.

Says also what to do, where the failure has a usual cause.
"""

import base64
import http.client
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import requests

_LONGEST = 300  # characters
_CONNECTION = re.compile(r"^\w+\(host='(.*?)', port=(\d+)\)")  # how urllib3's errors begin
_HOST_AND_PORT = r"\1:\2"
_NO_TLS = "No TLS is spoken on this port. Correct the port, or write http:// in USER_API_URL."
_NO_AUTHORITY = "Let REQUESTS_CA_BUNDLE name a file with the certificate of the API's authority."

# What the failure says, and what to do about it.
_ADVICE = {
    "Failed to resolve": "Correct the host in USER_API_URL, or mend the look-up of names.",
    "Connection refused": "Start the API, or correct host and port in USER_API_URL.",
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "record layer failure": _NO_TLS,  # the same, in OpenSSL 3.2 and later
    "unable to get local issuer certificate": _NO_AUTHORITY,
    "self-signed certificate": _NO_AUTHORITY,
    "Remote end closed connection": "Is it the API that listens there? Correct scheme, host and port in USER_API_URL.",
    "the answer is not HTTP": "Correct the port, or write https:// in USER_API_URL.",
}


def without_secrets(url: str, query: Mapping[str, str]) -> str:
    """The URL as an error may show it: no user, no password, and nothing of a query of its own."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    own = ["…"] if parts.query else []
    asked = [urlencode(query, safe=",")] if query else []
    place = f"[{host}]{port}" if ":" in host else f"{host}{port}"
    return urlunsplit((parts.scheme, place, parts.path, "&".join(own + asked), ""))


def secrets_of(url: str) -> set[bytes]:
    """What must not be told of a URL, as the server may repeat it: user, password, and the values of its query."""
    parts = urlsplit(url)
    texts = {value or name for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    user, password = requests.utils.get_auth_from_url(url)
    texts |= {user, password, base64.b64encode(f"{user}:{password}".encode()).decode()}
    return {form.encode() for text in texts for form in (text, quote(text, safe=""))} - {b""}


def innermost(error: BaseException) -> BaseException:
    """What lies under the wrappings of requests and urllib3, whose texts hold the query."""
    while True:
        inner = [part for part in (getattr(error, "reason", None), *error.args) if isinstance(part, BaseException)]
        if not inner:
            return error
        error = inner[0]


def describe_error(error: BaseException) -> str:
    """A cause for people to read, and what to do about it where that is known."""
    cause = describe_cause(error)
    advice = next((todo for said, todo in _ADVICE.items() if said in cause), "")
    return f"{cause}. {advice}" if advice else cause


def describe_cause(error: BaseException) -> str:
    """A cause for people to read."""
    name = type(error).__name__
    if isinstance(error, (http.client.BadStatusLine, http.client.UnknownProtocol)) and not isinstance(error, OSError):
        # They quote what came, which is part of a page when two answers got mixed up.
        return f"{name}: the answer is not HTTP"
    return f"{name}: {_CONNECTION.sub(_HOST_AND_PORT, str(error))}"[:_LONGEST]

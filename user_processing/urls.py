"""What can be the address of an HTTP API, or of a database; and what is wrong with what cannot, without its secrets."""

from urllib.parse import urlsplit

import psycopg2
from psycopg2.extensions import parse_dsn


def check_http_url(url: str) -> None:
    """Make sure that a text can be the address of an HTTP API.

    Raises:
        ValueError: it cannot; says why, without the text.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError("it lacks http:// or https:// at the start")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    # An @ in the path: the password holds a / that is not escaped.
    if not host or "@" in parts.path:
        raise ValueError(
            "it is not a URL. Special characters in user and password have to be escaped, such as @ as %40; "
            "an IPv6 host stands in brackets"
        )


def check_postgres_url(url: str) -> None:
    """Make sure that libpq can read a connection string.

    Raises:
        ValueError: it cannot; says what it takes, without the text.
    """
    try:
        parts = parse_dsn(url)
    except psycopg2.ProgrammingError:
        raise ValueError(
            "libpq cannot read it. It takes postgresql://user:password@host:port/database?sslmode=… "
            "(special characters percent-encoded) or host=… dbname=… user=…"
        ) from None
    # The rest of a password with an @ or a / in it. What begins with a / or an @ is a Unix socket, and may hold them.
    host, ports = parts.get("host", ""), parts.get("port", "").replace(",", "")
    rest_of_password = "@" in host and not host.startswith(("/", "@"))
    if rest_of_password or "@" in parts.get("dbname", "") or (ports and not ports.isdecimal()):
        raise ValueError("its password has to be percent-encoded, an @ as %40 and a / as %2F")

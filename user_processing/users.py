"""The user record: one page of the API in, lines of CSV out.

Pure functions of bytes: no file, no network, no Dagster, no database. What a valid answer of the API is, and what
becomes of a record that breaks the contract, is decided here and nowhere else.
"""

import csv
import io
import json
from collections.abc import Iterable
from typing import Literal

import msgspec

COLUMNS = ("firstname", "lastname", "country", "username", "password", "email")
INCLUDED = "name,location,login,email"
"""The API's `inc`. It takes part in the API's draw: another value gives other people, so it never changes."""

LARGEST_PAGE = 5_000
LAST_PAGE = 10_000

Passwords = Literal["plain", "sha256", "drop"]


class ContractError(ValueError):
    """What the API sent is not what its contract promises; asking again would not help."""


class TruncatedError(ContractError):
    """The body ends in the middle of the JSON; the rest may come when it is asked for again."""


class Info(msgspec.Struct, gc=False):
    """The API's account of what it sent: the query as it understood it."""

    seed: str
    results: int
    page: int


class Name(msgspec.Struct, gc=False):
    """The part of `name` that is stored."""

    first: str
    last: str


class Location(msgspec.Struct, gc=False):
    """The part of `location` that is stored."""

    country: str


class Login(msgspec.Struct, gc=False):
    """The part of `login` that is stored, and what tells users apart.

    `sha256` is the API's own digest of the password and its salt. `uuid` is the one value that does not repeat.
    """

    username: str
    password: str
    sha256: str = ""
    uuid: str = ""


class User(msgspec.Struct, gc=False):
    """One record of the API, reduced to what is stored. Other fields are passed over undecoded."""

    name: Name
    location: Location
    login: Login
    email: str


class Rejection(msgspec.Struct, frozen=True):
    """A record that cannot be stored: where it stands on its page (from 0), and why, without any of its values."""

    page: int
    position: int
    reason: str


class ParsedPage(msgspec.Struct):
    """The lines of one page: CSV without header, LF at line ends, in the API's order."""

    csv: bytes
    rows: int
    rejected: list[Rejection]
    first_uuid: str = ""
    """Of the first user that is kept: a page that comes twice shows in it."""


class _Envelope(msgspec.Struct):
    results: list[msgspec.Raw]
    info: Info


class _Records(msgspec.Struct):
    results: list[User]


_envelope = msgspec.json.Decoder(_Envelope)
_records = msgspec.json.Decoder(_Records)


def page_sizes(users: int) -> list[int]:
    """How many users to ask for on page 1, 2, … so that `users` come, at most 5,000 a page.

    Raises:
        ValueError: fewer than one user, or more than the API's 10,000 pages hold.
    """
    if not 1 <= users <= LARGEST_PAGE * LAST_PAGE:
        message = f"users_per_day is {users:,}; the API can give from 1 to {LARGEST_PAGE * LAST_PAGE:,} for one seed."
        raise ValueError(message)
    full, rest = divmod(users, LARGEST_PAGE)
    return [LARGEST_PAGE] * full + [rest] * bool(rest)


def check_page(body: bytes, *, seed: str, page: int, results: int) -> None:
    """Make sure that `body` answers the query it was asked with.

    The API turns values that it does not like into 1 without a word, so its `info` and the number of
    records are compared with what was asked.

    Raises:
        TruncatedError: the JSON ends early.
        ContractError: anything else that is not a page of `results` users of this seed and page.
    """
    try:
        str(body, "utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            message = f"the body ends early, within a character, after {len(body):,} bytes"
            raise TruncatedError(message) from None
        message = f"byte {error.start:,} is not UTF-8"
        raise ContractError(message) from None
    try:
        info, records = _opened(body)
    except RecursionError:
        message = "not a page of users: nested too deeply"
        raise ContractError(message) from None
    if (info.seed, info.page, info.results) != (seed, page, results):
        message = (
            f"asked for seed={seed} page={page} results={results}, "
            f"and info says seed={info.seed[:40]} page={info.page} results={info.results}"
        )
        raise ContractError(message)
    if records != results:
        message = f"asked for {results:,} users, and {records:,} came"
        raise ContractError(message)


def _opened(body: bytes) -> tuple[Info, int]:
    """The page's `info` and its number of records."""
    try:
        envelope = _envelope.decode(body)
    except msgspec.ValidationError as error:
        message = f"not a page of users: {error}"
        raise ContractError(message) from None
    except msgspec.DecodeError as error:
        truncated = "truncated" in str(error)
    else:
        return envelope.info, len(envelope.results)
    # msgspec takes no lone surrogate, which JSON may hold and Python's own parser reads.
    try:
        page = json.loads(body)
        return msgspec.convert(page["info"], Info), len(page["results"])
    except json.JSONDecodeError as error:
        if truncated:
            message = f"the JSON ends early, after {len(body):,} bytes"
            raise TruncatedError(message) from None
        message = f"not a page of users: {error}"
    except (ValueError, KeyError, TypeError):
        message = "not a page of users: no `results` or no `info`"
    raise ContractError(message)


def parse_page(body: bytes, *, page: int, passwords: Passwords = "plain") -> ParsedPage:
    """Turn a page that `check_page` has accepted into lines of CSV.

    A record that lacks a field, has one of another type, or holds what Postgres cannot store (NUL, a lone
    surrogate) is rejected by itself; the others are kept.

    Args:
        body: the page, UTF-8 JSON.
        page: its number, from 1, for the rejections.
        passwords: what the password column gets: the password, the API's salted digest of it, or nothing.
    """
    try:
        users = _records.decode(body).results
    except ValueError:
        users = None
    # A NUL can only stand in JSON escaped.
    if users is not None and b"\\u0000" not in body and (passwords != "sha256" or all(u.login.sha256 for u in users)):
        return ParsedPage(_csv(users, passwords), len(users), [], _first_uuid(users))
    kept: list[User] = []
    rejected: list[Rejection] = []
    for position, record in enumerate(json.loads(body)["results"]):
        try:
            kept.append(_storable(record, passwords))
        except ContractError as error:
            rejected.append(Rejection(page, position, str(error)))
    return ParsedPage(_csv(kept, passwords), len(kept), rejected, _first_uuid(kept))


def _first_uuid(users: list[User]) -> str:
    return users[0].login.uuid if users else ""


def _storable(record: object, passwords: Passwords) -> User:
    try:
        user = msgspec.convert(record, User)
    except msgspec.ValidationError as error:
        raise ContractError(str(error)) from None
    if passwords == "sha256" and not user.login.sha256:
        message = "Object missing required field `sha256` - at `$.login`"
        raise ContractError(message)
    for column, value in zip(COLUMNS, _row(user, "plain"), strict=True):
        if "\0" in value:
            message = f"NUL in {column}: Postgres cannot store it"
            raise ContractError(message)
        try:
            value.encode()
        except UnicodeEncodeError:
            message = f"lone surrogate in {column}: it is no character and has no UTF-8 form"
            raise ContractError(message) from None
    return user


def _row(user: User, passwords: Passwords) -> tuple[str, ...]:
    password = user.login.password if passwords == "plain" else user.login.sha256 if passwords == "sha256" else ""
    return (user.name.first, user.name.last, user.location.country, user.login.username, password, user.email)


def _csv(users: Iterable[User], passwords: Passwords) -> bytes:
    rows = [_row(user, passwords) for user in users]
    text = _written(rows, csv.QUOTE_MINIMAL)
    if "\r" in text:
        # Before Python 3.13 csv leaves a field with a bare CR unquoted, and Postgres takes that CR for a line end.
        text = _written(rows, csv.QUOTE_ALL)
    return text.encode()


def _written(rows: list[tuple[str, ...]], quoting: Literal[0, 1]) -> str:
    lines = io.StringIO(newline="")
    csv.writer(lines, quoting=quoting, lineterminator="\n").writerows(rows)
    return lines.getvalue()

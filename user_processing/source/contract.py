"""The user record: one page of the API in, lines of CSV out.

Pure functions of bytes: no file, no network, no Dagster, no database. What a valid answer of the API is, and what
becomes of a record that breaks the contract, is decided here and nowhere else.
"""

import csv
import functools
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from types import GenericAlias
from typing import Annotated, Any, Literal

import msgspec

from user_processing.columns import COLUMNS, JSON_TYPES, NAMES, PATHS, Passwords, Rejection

LARGEST_PAGE = 5_000
LAST_PAGE = 10_000

_DIGEST = "login.sha256"
"""The API's own digest of the password and its salt."""
_UUID = "login.uuid"
"""The one value that does not repeat."""


class ContractError(ValueError):
    """What the API sent is not what its contract promises; asking again would not help."""


class TruncatedError(ContractError):
    """The body ends in the middle of the JSON; the rest may come when it is asked for again."""


class Info(msgspec.Struct, gc=False):
    """The query as the API understood it."""

    seed: str
    results: int
    page: int


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


_envelope = msgspec.json.Decoder(_Envelope)


def page_sizes(users: int) -> list[int]:
    """How many users to ask for on page 1, 2, … so that `users` come, at most 5,000 a page.

    Raises:
        ValueError: fewer than one user, or more than the API's 10,000 pages hold.
    """
    if not 1 <= users <= LARGEST_PAGE * LAST_PAGE:
        raise ValueError(
            f"users_per_day is {users:,}; the API can give from 1 to {LARGEST_PAGE * LAST_PAGE:,} for one seed."
        )
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
            raise TruncatedError(f"the body ends early, within a character, after {len(body):,} bytes") from None
        raise ContractError(f"byte {error.start:,} is not UTF-8") from None
    try:
        info, records = _open_envelope(body)
    except RecursionError:
        raise ContractError("not a page of users: nested too deeply") from None
    if (info.seed, info.page, info.results) != (seed, page, results):
        raise ContractError(
            f"asked for seed={seed} page={page} results={results}, "
            f"and info says seed={info.seed[:40]} page={info.page} results={info.results}"
        )
    if len(records) != results:
        raise ContractError(f"asked for {results:,} users, and {len(records):,} came")


def has_fields(body: bytes, included: str) -> bool:
    """Whether a page that `check_page` has accepted was asked for with this `inc`.

    Its `info` does not say, but its records have the fields that were asked for and no others. An API that sends more
    than that gives no page that is known again.
    """
    first = _open_envelope(body)[1][0]
    if isinstance(first, msgspec.Raw):
        first = msgspec.json.decode(first)
    return isinstance(first, dict) and first.keys() == set(included.split(","))


def _open_envelope(body: bytes) -> tuple[Info, Sequence[object]]:
    """The page's `info`, and its records as they are."""
    try:
        envelope = _envelope.decode(body)
    except msgspec.ValidationError as error:
        raise ContractError(f"not a page of users: {error}") from None
    except msgspec.DecodeError as error:
        truncated = "truncated" in str(error)
    else:
        return envelope.info, envelope.results
    # msgspec takes no lone surrogate, which JSON may hold and Python's own parser reads.
    try:
        page = json.loads(body)
        return msgspec.convert(page["info"], Info), list(page["results"])
    except json.JSONDecodeError as error:
        if truncated:
            raise TruncatedError(f"the JSON ends early, after {len(body):,} bytes") from None
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
    shape = _shape(passwords)
    try:
        records = shape.page.decode(body).results
    except ValueError:
        records = None
    # A NUL can only stand in JSON escaped.
    if records is not None and b"\\u0000" not in body:
        return ParsedPage(write_rows(shape.rows(records)), len(records), [], _first_uuid(records))
    kept: list[Any] = []
    rejected: list[Rejection] = []
    for position, record in enumerate(json.loads(body)["results"]):
        try:
            kept.append(_to_record(record, shape))
        except ContractError as error:
            rejected.append(Rejection(page, position, str(error)))
    return ParsedPage(write_rows(shape.rows(kept)), len(kept), rejected, _first_uuid(kept))


class _Shape:
    """What a record is with one choice of passwords: the struct that it is decoded into, and its row.

    The struct is made of the paths of the columns. Other fields of the record are passed over undecoded.
    """

    def __init__(self, passwords: Passwords) -> None:
        fields: dict[str, tuple[Any, ...]] = {column.path: (JSON_TYPES[column.type],) for column in COLUMNS}
        fields[_UUID] = (str, "")
        paths = PATHS
        if passwords == "sha256":
            fields[_DIGEST] = (Annotated[str, msgspec.Meta(min_length=1)],)
            paths = {**PATHS, "password": _DIGEST}
        self.record = _struct("User", fields)
        self.page: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            msgspec.defstruct("Page", [("results", GenericAlias(list, self.record))])
        )
        self._values = attrgetter(*paths.values())
        self._emptied = NAMES.index("password") if passwords == "drop" else None

    def rows(self, records: Iterable[Any]) -> list[tuple[str | int, ...]]:
        """The values of each record, in the order of the columns."""
        rows = map(self._values, records)
        if self._emptied is None:
            return list(rows)
        return [(*row[: self._emptied], "", *row[self._emptied + 1 :]) for row in rows]


_shape = functools.cache(_Shape)


def _struct(name: str, fields: Mapping[str, tuple[Any, ...]]) -> type[msgspec.Struct]:
    """A struct with a value at each of these paths: its type, and its default where it may be missing."""
    inner: dict[str, dict[str, tuple[Any, ...]]] = {}
    for path, field in fields.items():
        first, _, rest = path.partition(".")
        inner.setdefault(first, {})[rest] = field
    return msgspec.defstruct(
        name,
        [(first, *rest[""]) if "" in rest else (first, _struct(first, rest)) for first, rest in inner.items()],
        gc=False,
        kw_only=True,
    )


def _first_uuid(records: Sequence[Any]) -> str:
    return str(records[0].login.uuid) if records else ""


def _to_record(value: object, shape: _Shape) -> msgspec.Struct:
    try:
        record = msgspec.convert(value, shape.record)
    except msgspec.ValidationError as error:
        raise ContractError(str(error)) from None
    for column, text in zip(NAMES, *shape.rows([record]), strict=True):
        if not isinstance(text, str):
            continue
        if "\0" in text:
            raise ContractError(f"NUL in {column}: Postgres cannot store it")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ContractError(f"lone surrogate in {column}: it is no character and has no UTF-8 form") from None
    return record


def write_rows(rows: Sequence[tuple[str | int, ...]]) -> bytes:
    """The rows as lines of CSV: no header, LF at line ends."""
    text = _quoted(rows, csv.QUOTE_MINIMAL)
    if "\r" in text:
        # Before Python 3.13 csv leaves a field with a bare CR unquoted, and Postgres takes that CR for a line end.
        text = _quoted(rows, csv.QUOTE_ALL)
    return text.encode()


def _quoted(rows: Iterable[tuple[str | int, ...]], quoting: Literal[0, 1]) -> str:
    lines = io.StringIO(newline="")
    csv.writer(lines, quoting=quoting, lineterminator="\n").writerows(rows)
    return lines.getvalue()

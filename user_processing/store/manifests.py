"""What the JSON files of a day say: which pages make it up, and what its CSV holds.

Each names what it was made for, the `inc` or the columns, so that files of other columns are recognised. Those that
version 0.1.0 wrote can be read as well.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from user_processing.columns import INCLUDED, PATHS, Rejection

Manifest = TypeVar("Manifest", "PagesManifest", "CsvManifest")

# Version 0.1.0 did not note what it always asked for and wrote.
_INCLUDED_BEFORE = "name,location,login,email"
_PATHS_BEFORE = {
    "firstname": "name.first",
    "lastname": "name.last",
    "country": "location.country",
    "username": "login.username",
    "password": "login.password",
    "email": "email",
}
_FORMER_NAMES = {"users_asked": "users_requested"}


class PageFile(msgspec.Struct):
    """One page of a day, as it lies in the day's files."""

    page: int
    results: int
    bytes: int
    sha256: str


class PagesManifest(msgspec.Struct):
    """The manifest of `raw_user`: which pages make up the day, and with which `inc` they were asked for."""

    users_requested: int
    pages: Sequence[PageFile]
    inc: str = _INCLUDED_BEFORE

    def outdated(self) -> str | None:
        """What is wrong with the pages for the columns of today, if anything."""
        if self.inc == INCLUDED:
            return None
        return f"lists pages that were asked for with inc={self.inc}, and the columns need inc={INCLUDED}"


class CsvManifest(msgspec.Struct, frozen=True):
    """The manifest of `processed_user_csv`: what its CSV holds, and what was set aside."""

    users_requested: int
    rows: int
    csv_sha256: str
    rejected: Sequence[Rejection] = ()
    columns: Mapping[str, str] = msgspec.field(default_factory=_PATHS_BEFORE.copy)
    """Each column of the CSV, in order, with the place in the API's record that it comes from."""

    def outdated(self) -> str | None:
        """What is wrong with the CSV for the columns of today, if anything."""
        if list(self.columns.items()) == list(PATHS.items()):
            return None
        made, wanted = (
            ", ".join(f"{name} ({path})" for name, path in columns.items()) for columns in (self.columns, PATHS)
        )
        return f"is of a CSV with the columns {made}, and the table has {wanted}"


def decode(text: bytes, kind: type[Manifest]) -> Manifest:
    """Read a manifest, of this version or of an earlier one.

    Raises:
        msgspec.DecodeError: it is none.
    """
    fields = msgspec.json.decode(text, type=dict[str, Any])
    return msgspec.convert({_FORMER_NAMES.get(name, name): value for name, value in fields.items()}, kind)

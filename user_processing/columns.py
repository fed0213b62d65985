"""The columns of `users`, each written once; and why a record does not fit them.

What is decoded of the JSON, the `inc` of the query, the CSV, COPY, the schemas that the UI shows and the documents
follow from this list. A migration brings a new column into the table: a test says so while it is missing.

It stands above `source`, which makes records of pages, and `store`, which keeps them, so that neither needs the other.
Nothing here does I/O.
"""

from typing import Annotated, Any, Literal

import msgspec

ColumnType = Literal["text", "integer"]

Passwords = Literal["plain", "sha256", "drop"]
"""What the column `password` holds: the password, the API's salted digest of it, or nothing."""

JSON_TYPES: dict[ColumnType, Any] = {
    "text": str,
    # What an INTEGER of Postgres holds: a greater number is set aside alone, where COPY would refuse the whole day.
    "integer": Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)],
}
"""What a value has to be in the API's JSON. Postgres knows the types by the same names."""


class Column(msgspec.Struct, frozen=True):
    """One column: its name, where the API has the value, its type, and what it means.

    A record that has no such value there is set aside. `nullable` is for rows that were stored before there was such a
    column: it is empty in them.
    """

    name: str
    path: str
    type: ColumnType
    meaning: str
    nullable: bool = False

    @property
    def description(self) -> str:
        """What the UI shows of it."""
        return f"{self.path} of the API's record. {self.meaning}"


COLUMNS = (
    Column("firstname", "name.first", "text", "First name."),
    Column("lastname", "name.last", "text", "Last name."),
    Column("country", "location.country", "text", "Country, in English."),
    Column("username", "login.username", "text", "User name; not unique."),
    Column("password", "login.password", "text", "Password, or what USERS_PASSWORDS makes of it; can be empty."),
    Column("email", "email", "text", "E-mail address; not unique."),
)
"""In the order of the CSV. A new one goes to the end, with `nullable=True`: CONTRIBUTING.md has all the steps."""

NAMES = tuple(column.name for column in COLUMNS)

PATHS = {column.name: column.path for column in COLUMNS}
"""Where each column comes from. The manifest of a day's CSV holds it: a CSV of other columns shows in it."""

INCLUDED = ",".join(dict.fromkeys(column.path.partition(".")[0] for column in COLUMNS))
"""The API's `inc`. It takes part in the API's draw: another value gives other people for the same day."""


class Rejection(msgspec.Struct, frozen=True):
    """A record that cannot be stored: where it stands on its page (from 0), and why, without any of its values."""

    page: int
    position: int
    reason: str

"""The files of a day: the API's pages as they came, the CSV made of them, and a short account of each.

They lie under one root, a local folder or an object store, a folder a day:

    2023-01-01/pages/00001.json    the API's answers, byte for byte
    2023-01-01/pages.json          which pages make up the day; written when all of them are there
    2023-01-01/users.csv           six columns, no header, no index
    2023-01-01/users.json          rows, rejections and digest of the CSV; written after it

What is in them is not known here. A file is written aside and renamed: whoever finds it finds all of it.
Local files are readable by their owner only, since they hold passwords.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import dagster as dg
import msgspec
from pydantic import Field, PrivateAttr
from upath import UPath

from user_processing import variables

Account = TypeVar("Account")


class MissingFileError(dg.Failure):
    """A file of the day that an earlier asset should have written is not there, or is not whole."""

    def __init__(self, day: str, path: object, detail: str, asset: str) -> None:
        super().__init__(
            f"Day {day}: {path} {detail}. Materialize {asset} for this day, then this asset again.", allow_retries=False
        )


class DayFiles(dg.ConfigurableResource[Any]):
    """Where the files of each day are kept between the assets."""

    url: str | None = Field(
        default=None,
        description="Root of the files: a local path or a URL that fsspec knows, such as s3://bucket/users. "
        "Without it: USERS_FILES_URL, or else the folder `days` in the instance's storage.",
    )
    _root: UPath = PrivateAttr()

    @contextlib.contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["DayFiles"]:
        """Find the root; nothing is opened or created yet."""
        if url := self.url or variables.text("USERS_FILES_URL"):
            self._root = UPath(url)
        elif context.instance is not None and not context.instance.is_ephemeral:
            self._root = UPath(context.instance.storage_directory(), "days").absolute()
        else:
            with tempfile.TemporaryDirectory(prefix="user_processing-") as folder:
                self._root = UPath(folder)
                yield self
            return
        yield self

    def page(self, day: str, page: int) -> UPath:
        """Where page number `page` of the day is kept, as the API sent it."""
        return self._root / day / "pages" / f"{page:05}.json"

    def pages(self, day: str) -> UPath:
        """The account of the day's pages."""
        return self._root / day / "pages.json"

    def csv(self, day: str) -> UPath:
        """The day's users as CSV."""
        return self._root / day / "users.csv"

    def users(self, day: str) -> UPath:
        """The account of the day's CSV."""
        return self._root / day / "users.json"

    @contextlib.contextmanager
    def writing(self, path: UPath) -> Iterator[BinaryIO]:
        """Open a file for writing that takes the place of `path` if the block ends without an error."""
        if not isinstance(path, Path):
            # An object store shows an object when its upload is complete, and not before.
            with path.open("wb") as file:
                yield file
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_name(f".{path.name}.part")
        with _alone(part) as file:
            file.truncate()
            yield file
            file.flush()
            part.replace(path)

    def write(self, path: UPath, account: bytes) -> None:
        """Write a whole small file."""
        with self.writing(path) as file:
            file.write(account)

    @contextlib.contextmanager
    def reading(self, path: UPath, *, day: str, asset: str) -> Iterator[BinaryIO]:
        """Open a file that `asset` wrote.

        Raises:
            MissingFileError: it is not there.
        """
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise MissingFileError(day, path, "is not there", asset) from None
        with file:
            yield file

    def written_since(self, path: UPath, moment: float) -> bytes | None:
        """What is in the file, if there is one and it was written after `moment` (Unix seconds)."""
        try:
            return path.read_bytes() if path.stat().st_mtime >= moment else None
        except FileNotFoundError:
            return None

    def account(self, path: UPath, kind: type[Account], *, day: str, asset: str) -> Account:
        """Read an account that `asset` wrote.

        Raises:
            MissingFileError: there is none, or it is not of this kind.
        """
        with self.reading(path, day=day, asset=asset) as file:
            text = file.read()
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.DecodeError:
            raise MissingFileError(day, path, "is not whole", asset) from None


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """Open a file that one process at a time may have.

    Its name is fixed, so that what a killed process left is overwritten by the next one, not gathered.
    """
    while True:
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            mine = False
            with contextlib.suppress(FileNotFoundError):
                mine = os.path.samestat(part.stat(), os.fstat(file.fileno()))
            if mine:
                yield file
                return
            # The process waited for has renamed it: what is locked now is the finished file.

"""The files of a day: the API's pages as they came, the CSV made of them, and a manifest of each.

They lie under one root, a local folder or an object store, a folder a day:

    2023-01-01/pages/00001.json    the API's answers, byte for byte
    2023-01-01/pages.json          which pages make up the day; written when all of them are there
    2023-01-01/users.csv           the columns of `users`, no header, no index
    2023-01-01/users.json          columns, rows, rejections and digest of the CSV; written after it

What the manifests say is in `manifests`; what is in the other files is not known here. A file is written aside and
renamed: whoever finds it finds all of it.
Local files and their folders are open to their owner only, since they hold passwords.
"""

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import dagster as dg
import msgspec
from pydantic import Field, PrivateAttr
from upath import UPath

from user_processing import settings
from user_processing.days.work import OutageError, PermanentError
from user_processing.paths import data_dir, local_path, make_private_folder
from user_processing.store import manifests
from user_processing.store.manifests import Manifest


class MissingFileError(PermanentError):
    """A file of the day that an earlier asset should have written is not there, or is not whole."""

    def __init__(self, day: str, path: object, detail: str, asset: str) -> None:
        super().__init__(f"Day {day}: {path} {detail}. Materialize {asset} for this day, then this asset again.")


class FilesUnavailableError(OutageError):
    """The folder of the files cannot be read or written: the disk is full, or not there, or somebody else's."""

    def __init__(self, day: str, path: object, error: OSError, *, writing: bool) -> None:
        cause = error.strerror or type(error).__name__
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        todo = "Free some space there" if full else "Let your user read and write there"
        super().__init__(
            f"Day {day}: {path} cannot be {'written' if writing else 'read'}: {cause}. {todo}, or let USERS_FILES_URL "
            "name another folder; then run the day again. What is stored was left as it is."
        )


class DayFiles(dg.ConfigurableResource[Any]):
    """Where the files of each day are kept between the assets."""

    url: str | None = Field(
        default=None,
        description="Root of the files: a local path or a URL that fsspec knows, such as s3://bucket/users. "
        "Without it: USERS_FILES_URL, or else `storage/days` in the data folder.",
    )
    _root: UPath = PrivateAttr()

    @contextlib.contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["DayFiles"]:
        """Find the root; nothing is opened or created yet."""
        with contextlib.ExitStack() as stack:
            if url := self.url or settings.load().users_files_url:
                self._root = _root_of(url)
            elif context.instance is not None and not context.instance.is_ephemeral:
                self._root = UPath(data_dir(), "storage", "days")
            else:
                self._root = UPath(stack.enter_context(tempfile.TemporaryDirectory(prefix="user_processing-")))
            yield self

    def page(self, day: str, page: int) -> UPath:
        """Where page number `page` of the day is kept, as the API sent it."""
        return self._root / day / "pages" / f"{page:05}.json"

    def pages(self, day: str) -> UPath:
        """The manifest of the day's pages."""
        return self._root / day / "pages.json"

    def csv(self, day: str) -> UPath:
        """The day's users as CSV."""
        return self._root / day / "users.csv"

    def users(self, day: str) -> UPath:
        """The manifest of the day's CSV."""
        return self._root / day / "users.json"

    @contextlib.contextmanager
    def writing(self, path: UPath) -> Iterator[BinaryIO]:
        """Open a file for writing that takes the place of `path` if the block ends without an error.

        Raises:
            FilesUnavailableError: it cannot be written; what was at `path` is still there.
        """
        with self._explained(path, writing=True):
            if not isinstance(path, Path):
                # An object store shows an object when its upload is complete, and not before.
                with path.open("wb") as file:
                    yield file
                return
            make_private_folder(path.parent)
            part = path.with_name(f".{path.name}.part")
            with exclusive_part_file(part) as file:
                file.truncate()
                yield file
                file.flush()
                part.replace(path)

    def write(self, path: UPath, content: bytes) -> None:
        """Write a whole small file.

        Raises:
            FilesUnavailableError: it cannot be written.
        """
        with self.writing(path) as file:
            file.write(content)

    @contextlib.contextmanager
    def reading(self, path: UPath, *, day: str, asset: str) -> Iterator[BinaryIO]:
        """Open a file that `asset` wrote.

        Raises:
            MissingFileError: it is not there.
            FilesUnavailableError: it cannot be read.
        """
        with self._explained(path, writing=False):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                raise MissingFileError(day, path, "is not there", asset) from None
            with file:
                yield file

    @contextlib.contextmanager
    def _explained(self, path: UPath, *, writing: bool) -> Iterator[None]:
        """Say of an error of the operating system which day and file it concerns, and what to do."""
        try:
            yield
        except OSError as error:
            day = path.relative_to(self._root).parts[0]
            raise FilesUnavailableError(day, path, error, writing=writing) from None

    def written_since(self, path: UPath, moment: float) -> bytes | None:
        """What is in the file, if there is one and it was written after `moment` (Unix seconds)."""
        with self._explained(path, writing=False):
            try:
                return path.read_bytes() if path.stat().st_mtime >= moment else None
            except FileNotFoundError:
                return None

    def manifest(self, path: UPath, kind: type[Manifest], *, day: str, asset: str) -> Manifest:
        """Read a manifest that `asset` wrote.

        Raises:
            MissingFileError: there is none, or it is not of this kind, or of files that were made for other columns.
        """
        with self.reading(path, day=day, asset=asset) as file:
            text = file.read()
        try:
            manifest = manifests.decode(text, kind)
        except msgspec.DecodeError:
            raise MissingFileError(day, path, "is not whole", asset) from None
        if outdated := manifest.outdated():
            raise MissingFileError(day, path, outdated, asset)
        return manifest


def _root_of(url: str) -> UPath:
    """The root that a setting names. A relative path starts in the folder of `.env`.

    Raises:
        SettingsError: fsspec does not know such a URL, or lacks a package for it.
    """
    try:
        root = UPath(url)
        # What opens files there, with the packages that it needs.
        protocol, _ = root.protocol, root.fs
    except (ImportError, ValueError) as error:
        raise settings.SettingsError(
            f"The files of the days cannot be kept in {url.partition('://')[0]}://…: {error}. Install what is missing, "
            "or let USERS_FILES_URL name a folder or another URL."
        ) from None
    if protocol not in {"", "file", "local"}:
        return root
    # Not through fsspec, which neither renames nor keeps files to their owner.
    return UPath(local_path(Path(root.path if protocol else url), "USERS_FILES_URL"))


@contextlib.contextmanager
def exclusive_part_file(part: Path) -> Iterator[BinaryIO]:
    """Open a file that one process at a time may have; removed if the block raises.

    Its name is fixed, so that what a killed process left is overwritten by the next one, not gathered.
    """
    while True:
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            mine = False
            with contextlib.suppress(FileNotFoundError):
                mine = os.path.samestat(part.stat(), os.fstat(file.fileno()))
            if mine:
                try:
                    yield file
                except BaseException:
                    # On a full disk, half a file is in the way of all others.
                    part.unlink(missing_ok=True)
                    raise
                return
            # The process waited for has renamed it: what is locked now is the finished file.

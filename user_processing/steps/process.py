"""Process: the CSV of a day, from the pages of the day; records that cannot be stored are set aside."""

import hashlib
from collections.abc import Sequence

import msgspec

from user_processing.columns import PATHS, Passwords, Rejection
from user_processing.days.work import CountRows, Metadata, PermanentError
from user_processing.source import contract
from user_processing.store.day_files import DayFiles, MissingFileError
from user_processing.store.manifests import CsvManifest, PageFile, PagesManifest


def process_day(
    day: str, progress: CountRows, *, day_files: DayFiles, passwords: Passwords, max_rejected: float
) -> Metadata:
    """Write the CSV of a day and its manifest; returns the day's metadata.

    Args:
        day: YYYY-MM-DD.
        progress: is told the rows of each page.
        day_files: where the pages are, and where the CSV goes.
        passwords: what is made of the column `password`.
        max_rejected: the share of records, from 0 to 1, that may be set aside.

    Raises:
        dagster.Failure: a page is missing or is there twice, or more records break the API's contract than that.
    """
    pages = day_files.manifest(day_files.pages(day), PagesManifest, day=day, asset="raw_user")
    digest = hashlib.sha256()
    rows = size = 0
    rejected: list[Rejection] = []
    page_of: dict[str, int] = {}
    with day_files.writing(day_files.csv(day)) as csv:
        for file in pages.pages:
            parsed = contract.parse_page(_page_bytes(day_files, day, file), page=file.page, passwords=passwords)
            if parsed.first_uuid and page_of.setdefault(parsed.first_uuid, file.page) != file.page:
                raise PermanentError(
                    f"Day {day}: page {file.page} holds the users of page {page_of[parsed.first_uuid]} again. "
                    "Materialize raw_user for this day. What is stored was left as it is."
                )
            csv.write(parsed.csv)
            digest.update(parsed.csv)
            rows += parsed.rows
            size += len(parsed.csv)
            rejected += parsed.rejected
            progress(parsed.rows)
        _accept(day, rows, rejected, max_rejected)
    manifest = CsvManifest(pages.users_requested, rows, digest.hexdigest(), rejected, PATHS)
    day_files.write(day_files.users(day), msgspec.json.encode(manifest))
    return {"dagster/row_count": rows, "rejected": len(rejected), "bytes": size}


def _page_bytes(day_files: DayFiles, day: str, file: PageFile) -> bytes:
    path = day_files.page(day, file.page)
    with day_files.reading(path, day=day, asset="raw_user") as page:
        body = page.read()
    if hashlib.sha256(body).hexdigest() != file.sha256:
        raise MissingFileError(day, path, "is not the page that was fetched", "raw_user")
    return body


def _accept(day: str, rows: int, rejected: Sequence[Rejection], max_rejected: float) -> None:
    """Let the day pass if few of its records were rejected.

    Raises:
        dagster.Failure: so many were that it is the API's contract that has changed.
    """
    share = len(rejected) / (rows + len(rejected))
    if rejected and (share > max_rejected or not rows):
        first = rejected[0]
        raise PermanentError(
            f"Day {day}: {len(rejected):,} of {rows + len(rejected):,} records break the API's contract; "
            f"the first, on page {first.page} at position {first.position}: {first.reason}. "
            f"What is stored was left as it is. USERS_MAX_REJECTED allows a share of {max_rejected:g}."
        )

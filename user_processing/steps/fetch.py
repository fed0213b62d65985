"""Fetch: the pages of a day, from the API to the files of the day."""

import contextlib
import hashlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from user_processing.columns import INCLUDED
from user_processing.days.work import CountRows, Metadata, PermanentError, Work
from user_processing.source import contract
from user_processing.source.rate_limit import RateLimit
from user_processing.source.user_api import UserApi
from user_processing.store.day_files import DayFiles
from user_processing.store.manifests import PageFile, PagesManifest


@contextlib.contextmanager
def fetching(  # noqa: PLR0913 - where from, where to, what
    user_api: UserApi,
    day_files: DayFiles,
    *,
    days: Sequence[str],
    users_per_day: int,
    limit: RateLimit | None = None,
    reuse_since: float | None = None,
) -> Iterator[Work]:
    """Fetch days, as many pages at once as the API is asked for; yields the work of one day.

    The pages of the next days are asked for while those of one are waited for: with one page a day, the connections
    would wait for each other otherwise.

    Args:
        user_api: where the pages come from.
        day_files: where they are kept.
        days: all that will be asked for, in this order.
        users_per_day: users of each day.
        limit: the rate limit of the API, if there is one.
        reuse_since: Unix seconds. A valid page that was written after this is not asked for again.

    Raises:
        dagster.Failure: there cannot be as many users of a day.
    """
    try:
        sizes = list(enumerate(contract.page_sizes(users_per_day), start=1))
    except ValueError as error:
        raise PermanentError(str(error)) from None
    stopping = threading.Event()

    def fetch_page(day: str, page: int, results: int) -> PageFile:
        path = day_files.page(day, page)
        body = day_files.written_since(path, reuse_since) if reuse_since else None
        if body is None or not _is_page(body, seed=day, page=page, results=results):
            body = user_api.page(seed=day, page=page, results=results, limit=limit, stopping=stopping)
            day_files.write(path, body)
        return PageFile(page, results, len(body), hashlib.sha256(body).hexdigest())

    with ThreadPoolExecutor(user_api.concurrency, thread_name_prefix="page") as pool:
        asked: dict[str, list[Future[PageFile]]] = {}
        coming = iter(days)

        def fetch_day(day: str, progress: CountRows) -> Metadata:
            for ahead in itertools.islice(coming, user_api.concurrency + 1 - len(asked)):
                asked[ahead] = [pool.submit(fetch_page, ahead, page, size) for page, size in sizes]
            pages = []
            for future in asked.pop(day):
                pages.append(future.result())
                progress(pages[-1].results)
            manifest = PagesManifest(users_per_day, pages, INCLUDED)
            day_files.write(day_files.pages(day), msgspec.json.encode(manifest))
            return {
                "dagster/row_count": users_per_day,
                "pages": len(pages),
                "bytes": sum(page.bytes for page in pages),
            }

        try:
            yield fetch_day
        finally:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _is_page(body: bytes, *, seed: str, page: int, results: int) -> bool:
    try:
        contract.check_page(body, seed=seed, page=page, results=results)
    except contract.ContractError:
        return False
    return contract.has_fields(body, INCLUDED)

"""What must hold of the stored users, checked after every run for its days, and for all days every morning.

The statements are in `tables`. A check reads; it never mends.
"""

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from user_processing import tables
from user_processing.assets import day_ranges, stored_users
from user_processing.cadence import CADENCE
from user_processing.resources.day_files import DayFiles
from user_processing.resources.postgres import Postgres

DEADLINE_HOURS = 6
"""Hours after a day is due at which it has to be stored."""

_FAILS = dg.AssetCheckSeverity.ERROR
_WARNS = dg.AssetCheckSeverity.WARN

_CHUNK = 1024 * 1024  # bytes

_CHECKS: Mapping[str, tuple[dg.AssetCheckSeverity, str]] = {
    "rows_match_ledger": (_FAILS, "Each day has as many rows as the ledger says."),
    "files_match_ledger": (
        _FAILS,
        "The CSV of each day, where it is still there, has the digest and as many lines as the ledger says.",
    ),
    "newest_day_stored": (
        _FAILS,
        f"The newest day that was due {DEADLINE_HOURS} hours ago is stored; older days do not count.",
    ),
    "days_without_gaps": (_WARNS, "No day is missing between the first and the last one stored."),
    "nothing_rejected": (_WARNS, "No record is in quarantine."),
    "emails_well_formed": (_WARNS, "Every e-mail address has a part before and a domain after its @."),
    "usernames_well_formed": (_WARNS, "No user name is empty or holds white space."),
}


@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec(name, asset=stored_users, description=text) for name, (_, text) in _CHECKS.items()],
)
def reconciliation(
    context: dg.AssetCheckExecutionContext, postgres: Postgres, day_files: DayFiles
) -> Iterator[dg.AssetCheckResult]:
    """Rows, ledger, quarantine and files of the days against each other."""
    chosen = _days_of_run(context.run.tags)
    with postgres.transaction() as connection:
        counts = tables.count(connection, chosen)
        loads = tables.ledger(connection)
    every = sorted(loads)
    ledger = loads if chosen is None else {day: loads[day] for day in chosen if day in loads}

    rows = {day: count.rows for day, count in counts.items()}
    announced = {day: load.rows for day, load in ledger.items()}
    yield _result(
        "rows_match_ledger",
        [day for day in sorted({*rows, *announced}) if rows.get(day, 0) != announced.get(day, 0)],
        rows=sum(rows.values()),
        ledger=sum(announced.values()),
    )
    found = {day: file for day in ledger if (file := _digest_and_lines(day_files, day))}
    yield _result(
        "files_match_ledger",
        [day for day, file in found.items() if file != (ledger[day].csv_sha256, ledger[day].rows)],
        files=len(found),
        lines=sum(lines for _, lines in found.values()),
    )
    due = _newest_due_day(dt.datetime.now(dt.UTC))
    yield _result("newest_day_stored", [due] if due and due not in every else [], stored=len(every))
    yield _result("days_without_gaps", _gaps(every), stored=len(every))
    for name, field in (
        ("nothing_rejected", "rejected"),
        ("emails_well_formed", "bad_emails"),
        ("usernames_well_formed", "bad_usernames"),
    ):
        bad = {day: getattr(count, field) for day, count in counts.items() if getattr(count, field)}
        yield _result(name, sorted(bad), records=sum(bad.values()))


def _result(name: str, failing: Sequence[dt.date], **numbers: int) -> dg.AssetCheckResult:
    severity, text = _CHECKS[name]
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=stored_users.key,
        passed=not failing,
        severity=severity,
        description=f"{text} Not so for {day_ranges(failing)}." if failing else None,
        metadata={"days": len(failing), **numbers},
    )


def _days_of_run(tags: Mapping[str, str]) -> list[dt.date] | None:
    """The days of the run that the checks belong to; None, all of them, for a run of the checks alone."""
    first = tags.get("dagster/partition") or tags.get("dagster/asset_partition_range_start")
    last = tags.get("dagster/partition") or tags.get("dagster/asset_partition_range_end")
    if not first or not last:
        return None
    start, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    return [start + dt.timedelta(days=number) for number in range((end - start).days + 1)]


def _newest_due_day(now: dt.datetime) -> dt.date | None:
    due = CADENCE.due(now, hours_later=DEADLINE_HOURS)
    return dt.date.fromisoformat(due[-1]) if due else None


def _gaps(stored: Sequence[dt.date]) -> list[dt.date]:
    if not stored:
        return []
    there = set(stored)
    span = (stored[0] + dt.timedelta(days=number) for number in range((stored[-1] - stored[0]).days))
    return [day for day in span if day not in there]


def _digest_and_lines(day_files: DayFiles, day: dt.date) -> tuple[str, int] | None:
    """SHA-256 and number of records of the day's CSV, or None where it has been cleared away."""
    try:
        file = day_files.csv(day.isoformat()).open("rb")
    except FileNotFoundError:
        return None
    digest, lines, quoted = hashlib.sha256(), 0, False
    with file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            # A line ends where a newline stands outside quotes; a quote within quotes is written twice.
            for part in chunk.split(b'"'):
                lines += 0 if quoted else part.count(b"\n")
                quoted = not quoted
            quoted = not quoted
    return digest.hexdigest(), lines

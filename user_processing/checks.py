"""What must hold of the stored users, checked after every run for its days, and for all days every morning.

The statements are in `tables`. A check reads; it never mends.
"""

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import dagster as dg

from user_processing.assets import stored_users
from user_processing.days.cadence import CADENCE, Cadence
from user_processing.days.runs import RunDays, command_to_run, days_of_tag, format_days, tag_of_days
from user_processing.store import tables
from user_processing.store.day_files import DayFiles
from user_processing.store.postgres import Postgres

DEADLINE_HOURS = 6
"""Hours after a day is due at which it has to be stored."""

_CHUNK = 1024 * 1024  # bytes
_ALL = "all"

_AGAIN = "Run them again: {command}"


class Stored(NamedTuple):
    """What is known of the days that are checked."""

    counts: Mapping[str, tables.Counts]
    ledger: Mapping[str, tables.LedgerEntry]
    every: Sequence[str]
    """All days of the ledger, oldest first."""

    newest_due: str | None
    """The newest day that has to be stored, None before there is one."""

    day_files: DayFiles


Finding: TypeAlias = tuple[Sequence[str], Mapping[str, int]]
"""The days that fail, oldest first, and numbers for the check's page."""


def _rows(stored: Stored) -> Finding:
    rows = {day: count.rows for day, count in stored.counts.items()}
    announced = {day: load.rows for day, load in stored.ledger.items()}
    failing = [day for day in sorted({*rows, *announced}) if rows.get(day, 0) != announced.get(day, 0)]
    return failing, {"rows": sum(rows.values()), "ledger": sum(announced.values())}


def _files(stored: Stored) -> Finding:
    found = {day: file for day in stored.ledger if (file := _digest_and_lines(stored.day_files, day))}
    failing = [day for day, file in found.items() if file != (stored.ledger[day].csv_sha256, stored.ledger[day].rows)]
    return sorted(failing), {"files": len(found), "lines": sum(lines for _, lines in found.values())}


def _newest(stored: Stored) -> Finding:
    newest = stored.newest_due
    # A day that came early, in the hours that it may take, is as good: a first run before the deadline stores that one.
    return [newest] if newest and max(stored.every, default="") < newest else [], {"stored": len(stored.every)}


def _gaps(stored: Stored) -> Finding:
    days = RunDays(stored.every[0], stored.every[-1]) if stored.every else ()
    return sorted({*days}.difference(stored.every)), {"stored": len(stored.every)}


def _bad_records(field: str) -> Callable[[Stored], Finding]:
    def look(stored: Stored) -> Finding:
        bad = {day: number for day, count in stored.counts.items() if (number := getattr(count, field))}
        return sorted(bad), {"records": sum(bad.values())}

    return look


def _digest_and_lines(day_files: DayFiles, day: str) -> tuple[str, int] | None:
    """SHA-256 and number of records of the day's CSV, or None where it has been cleared away."""
    try:
        file = day_files.csv(day).open("rb")
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


class Check(NamedTuple):
    """A check: what holds, and what is said of the days for which it does not."""

    look: Callable[[Stored], Finding]
    severity: dg.AssetCheckSeverity
    holds: str
    broken: str
    """With `count`, such as 3 days, `are` and `days`."""

    remedy: str
    """With `command`, which runs the days."""

    of_all_days: bool = False
    """It looks at all days, also in a run of some."""


CHECKS: Mapping[str, Check] = {
    "rows_match_ledger": Check(
        _rows,
        dg.AssetCheckSeverity.ERROR,
        "Each day has as many rows in the table as its entry in the ledger says.",
        "The table does not hold as many rows as the ledger says, for {count}: {days}. Something else has changed it.",
        _AGAIN,
    ),
    "files_match_ledger": Check(
        _files,
        dg.AssetCheckSeverity.ERROR,
        "The CSV of each day, where it is still there, has the digest and as many lines as the ledger says.",
        "The CSV is not the one that was stored, for {count}: {days}. Something else has changed it.",
        _AGAIN,
    ),
    "newest_day_stored": Check(
        _newest,
        dg.AssetCheckSeverity.ERROR,
        f"The newest day that was due {DEADLINE_HOURS} hours ago is stored, or one after it; older days do not count.",
        f"The newest day is not stored, though it was due {DEADLINE_HOURS} hours ago: {{days}}.",
        "The last tick of the sensor api_availability says why. To run the day now: {command}",
        of_all_days=True,
    ),
    "days_without_gaps": Check(
        _gaps,
        dg.AssetCheckSeverity.WARN,
        "No day is missing between the first and the last one stored.",
        "{count} {are} missing: {days}.",
        "Run what is missing: {command}",
        of_all_days=True,
    ),
    "nothing_rejected": Check(
        _bad_records("rejected"),
        dg.AssetCheckSeverity.WARN,
        "No record is in quarantine.",
        "Records of {count} are in quarantine: {days}.",
        "The reasons are in the table rejected_users: make psql",
    ),
    "emails_well_formed": Check(
        _bad_records("bad_emails"),
        dg.AssetCheckSeverity.WARN,
        "Every e-mail address has a part before and a domain after its @.",
        "Some e-mail addresses lack a part before or a domain after their @, for {count}: {days}.",
        f"The API has sent them, or something else has changed the table. {_AGAIN}",
    ),
    "usernames_well_formed": Check(
        _bad_records("bad_usernames"),
        dg.AssetCheckSeverity.WARN,
        "No user name is empty or holds white space.",
        "Some user names are empty or hold white space, for {count}: {days}.",
        f"The API has sent them, or something else has changed the table. {_AGAIN}",
    ),
}


def reconciliation_by(clock: Callable[[], dt.datetime], cadence: Cadence = CADENCE) -> dg.AssetChecksDefinition:
    """The checks, which take the time from this clock, and what is due then from this cadence."""

    @dg.multi_asset_check(
        specs=[dg.AssetCheckSpec(name, asset=stored_users, description=check.holds) for name, check in CHECKS.items()],
        # So that one of them can be executed by itself.
        can_subset=True,
    )
    def reconciliation(
        context: dg.AssetCheckExecutionContext, postgres: Postgres, day_files: DayFiles
    ) -> Iterator[dg.AssetCheckResult]:
        """Rows, ledger, quarantine and files of the days against each other."""
        span = RunDays.of(context.run.tags)
        with postgres.transaction() as connection:
            counts = tables.count(connection, span)
            loads = tables.ledger(connection)
        ledger = {day: loads[day] for day in span if day in loads} if span else loads
        due = cadence.due(clock(), hours_later=DEADLINE_HOURS)
        stored = Stored(counts, ledger, sorted(loads), due[-1] if due else None, day_files)
        selected = {key.name for key in context.selected_asset_check_keys}
        for name, check in CHECKS.items():
            if name in selected:
                failing, numbers = check.look(stored)
                yield _result(name, failing, span.key if span and not check.of_all_days else _ALL, numbers)

    return reconciliation


reconciliation = reconciliation_by(lambda: dt.datetime.now(dt.UTC))


def describe(name: str, failing: Sequence[str], most: int | None = None) -> str:
    """What is wrong with the days for which a check fails, oldest first, and what to type.

    With `most`, no more than so many spans of days are written out.
    """
    check, number = CHECKS[name], len(failing)
    broken = check.broken.format(
        count=f"{number:,} day{'' if number == 1 else 's'}",
        are="is" if number == 1 else "are",
        days=format_days(failing, most),
    )
    return f"{broken} {check.remedy.format(command=command_to_run(failing))}"


def days_found(evaluation: dg.AssetCheckEvaluation) -> tuple[RunDays | None, Sequence[str]]:
    """Which days an evaluation has looked at, None if at all of them, and for which of them the check fails."""
    values = {name: str(value.value) for name, value in evaluation.metadata.items()}
    looked_at = values.get("looked at", _ALL)
    return None if looked_at == _ALL else RunDays.parse(looked_at), days_of_tag(values.get("failing", ""))


def _result(name: str, failing: Sequence[str], looked_at: str, numbers: Mapping[str, int]) -> dg.AssetCheckResult:
    metadata: dict[str, int | str] = {"days": len(failing), **numbers, "looked at": looked_at}
    if failing:
        metadata["failing"] = tag_of_days(failing)
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=stored_users.key,
        passed=not failing,
        severity=CHECKS[name].severity,
        description=describe(name, failing) if failing else None,
        metadata=metadata,
    )

"""Which days to ask for: decided from facts, without a look at Dagster, a database or the clock.

`facts` gathers what this module is told, `automation` and `backfill` act on what it says.
"""

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

FIRST_PAUSE = dt.timedelta(minutes=5)
"""After the first failure; doubles with each further one."""

LONGEST_PAUSE = dt.timedelta(hours=6)

_STOPS_TO_BE_ALONE = 2


class Settings(msgspec.Struct, frozen=True):
    """What the environment says."""

    catchup: bool = False
    """Ask for every day that is due, not for the newest alone."""

    max_active_runs: int = 16
    days_per_run: int | None = None
    """None: as many as follow each other."""

    max_attempts: int = 8
    """Times that a day may fail by itself."""


class Attempt(msgspec.Struct, frozen=True):
    """A run that ended without having stored all of its days; Dagster's own retries of it count as one with it."""

    run_id: str
    created: dt.datetime
    ended: dt.datetime
    days: frozenset[str]
    failed: frozenset[str] = frozenset()
    """Days that failed by themselves: the API broke its contract, too many records are bad, a file is gone."""

    stopped_at: str | None = None
    """The day at which the API or the database was found to be gone."""

    cancelled: bool = False


class Facts(msgspec.Struct, frozen=True):
    """What is known of the days at one moment."""

    now: dt.datetime
    due: Sequence[str]
    """Oldest first."""

    stored: Collection[str]
    busy: Mapping[str, str]
    """Day → the run or the backfill that is at work on it, or waits to be."""

    active_runs: int = 0
    attempts: Sequence[Attempt] = ()
    """Oldest first."""

    stored_before: Mapping[str, int] = {}
    """Day → event of its last materialization, also where its users are gone again."""

    stored_at: Mapping[str, dt.datetime] = {}
    """Day → when it was materialized last, of those whose users are gone again."""

    api_up_since: dt.datetime | None = None
    """When the API was seen to come back, if it was seen to be down before."""


class Request(msgspec.Struct, frozen=True):
    """One run to ask for, over the days from the first to the last."""

    days: Sequence[str]
    run_key: str
    pages_since: str | None = None
    """The earliest attempt whose pages may be used; None: all are fetched anew."""


class Plan(msgspec.Struct, frozen=True):
    """What to do now, and what not yet."""

    requests: Sequence[Request] = ()
    missing: Sequence[str] = ()
    busy: Sequence[str] = ()
    pausing: Mapping[str, dt.datetime] = {}
    """Day → when it may be tried again."""

    given_up: Mapping[str, str] = {}
    """Day → the attempt after which nobody but a person asks for it."""

    cancelled: Mapping[str, str] = {}
    queued: int = 0
    """Runs that have to wait until others are done."""


class _History(msgspec.Struct):
    """What the attempts say of one day."""

    attempts: int = 0
    own: int = 0
    stops: int = 0
    again: dt.datetime | None = None
    cancelled: bool = False
    first: Attempt | None = None
    last: str = ""


def plan(facts: Facts, settings: Settings) -> Plan:
    """Decide which of the missing days to ask for now.

    A day that failed by itself gets a run of its own from then on, so that it does not keep others from being stored.
    """
    wanted = facts.due if settings.catchup else facts.due[-1:]
    absent = [day for day in wanted if day not in facts.stored]
    missing = [day for day in absent if day not in facts.busy]
    histories = {day: _history(day, facts) for day in missing} if facts.attempts else {}
    pausing: dict[str, dt.datetime] = {}
    given_up: dict[str, str] = {}
    cancelled: dict[str, str] = {}
    ready: list[str] = []
    for day in missing:
        history = histories.get(day, _History())
        if history.cancelled:
            cancelled[day] = history.last
        elif history.own >= settings.max_attempts:
            given_up[day] = history.last
        elif history.again and history.again > facts.now:
            pausing[day] = history.again
        else:
            ready.append(day)
    alone = {day for day in ready if (found := histories.get(day)) and (found.own or found.stops >= _STOPS_TO_BE_ALONE)}
    requests = [
        _request(days, histories, facts, fetch_anew=days[0] in alone)
        for days in chunks(ready, settings.days_per_run, alone)
    ]
    room = max(settings.max_active_runs - facts.active_runs, 0)
    return Plan(
        requests=requests[:room],
        missing=missing,
        busy=[day for day in absent if day in facts.busy],
        pausing=pausing,
        given_up=given_up,
        cancelled=cancelled,
        queued=len(requests[room:]),
    )


def chunks(days: Sequence[str], days_per_run: int | None, alone: Collection[str] = ()) -> Iterator[Sequence[str]]:
    """Cut days, oldest first, where they do not follow each other, after `days_per_run`, and around those alone."""
    chunk: list[str] = []
    for day in days:
        follows = chunk and dt.date.fromisoformat(day) - dt.date.fromisoformat(chunk[-1]) == dt.timedelta(days=1)
        if chunk and (not follows or len(chunk) == days_per_run or day in alone or chunk[-1] in alone):
            yield chunk
            chunk = []
        chunk.append(day)
    if chunk:
        yield chunk


def _request(days: Sequence[str], histories: Mapping[str, _History], facts: Facts, *, fetch_anew: bool) -> Request:
    known = [history for day in days if (history := histories.get(day))]
    attempt = 1 + max((history.attempts for history in known), default=0)
    # Dagster takes a run key once and for ever: each attempt has its own, whichever runs are deleted meanwhile, and so
    # has a day that was stored and is gone.
    after = [max(known, key=lambda history: history.attempts).last[:8]] if attempt > 1 else []
    lost = max((facts.stored_before.get(day, 0) for day in days), default=0)
    after += [f"event {lost}"] if lost else []
    first = min((history.first for history in known if history.first), key=lambda a: a.created, default=None)
    return Request(
        days=days,
        run_key=f"{span(days)}#{attempt}" + (f" after {', '.join(after)}" if after else ""),
        pages_since=first.run_id if first and not fetch_anew else None,
    )


def span(days: Sequence[str]) -> str:
    """Days that follow each other, as `--partition-range` takes them."""
    return days[0] if len(days) == 1 else f"{days[0]}...{days[-1]}"


def _history(day: str, facts: Facts) -> _History:
    history = _History()
    pauses = 0
    for attempt in facts.attempts:
        if day not in attempt.days:
            continue
        history.attempts += 1
        history.last = attempt.run_id
        if day in facts.stored_at and attempt.ended <= facts.stored_at[day]:
            # It was stored since. What was the matter before is over.
            continue
        history.cancelled = attempt.cancelled
        history.first = history.first or attempt
        own = day in attempt.failed
        history.own += own
        history.stops += attempt.stopped_at == day
        # What another day of the same run broke is not held against this one.
        if not own and attempt.failed and not attempt.stopped_at:
            continue
        pauses += 1
        # Whatever an outage broke need not wait once the API has come back.
        if own or facts.api_up_since is None or attempt.ended >= facts.api_up_since:
            pause = min(FIRST_PAUSE * 2 ** min(pauses - 1, 16), LONGEST_PAUSE)
            history.again = max(attempt.ended + pause, history.again or attempt.ended)
    return history

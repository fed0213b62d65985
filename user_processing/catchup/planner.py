"""Which days to ask for: decided from facts, without a look at Dagster, a database or the clock.

`facts` gathers what this module is told, `automation` and `backfill` act on what it says.
"""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence

import msgspec

from user_processing.days.runs import RunDays, spans

FIRST_PAUSE = dt.timedelta(minutes=5)
"""After the first failure; doubles with each further one."""

LONGEST_PAUSE = dt.timedelta(hours=6)

_ISOLATE_AFTER_STOPS = 2


class Settings(msgspec.Struct, frozen=True):
    """What the environment says."""

    catchup: bool = False
    """Ask for every day that is due. Without it: for the newest, and for those that a run was launched for in vain."""

    max_active_runs: int = 16
    days_per_run: int | None = None
    """None: as many as follow each other."""

    max_attempts: int = 8
    """Times that a day may fail by itself."""


class Launch(msgspec.Struct, frozen=True):
    """What a run was launched with, and another run of its days is given as well."""

    run_config: str = "{}"
    """JSON."""

    tags: tuple[tuple[str, str], ...] = ()


class Attempt(msgspec.Struct, frozen=True):
    """A run that ended without having stored all of its days; Dagster's own retries of it count as one with it.

    A backfill of Dagster's that failed before it launched runs for some of its days is one of these days.
    """

    run_id: str
    created: dt.datetime
    ended: dt.datetime
    days: frozenset[str]
    failed: frozenset[str] = frozenset()
    """Days that failed by themselves: the API broke its contract, too many records are bad, a file is gone."""

    stopped_at: str | None = None
    """The day at which the API or the database was found to be gone."""

    cancelled: bool = False

    launch: Launch | None = None
    """None: a command line ran it, and whoever typed it has seen how it ended."""


class Facts(msgspec.Struct, frozen=True):
    """What is known of the days at one moment."""

    now: dt.datetime
    due: Sequence[str]
    """Oldest first."""

    stored: Collection[str]
    busy: Mapping[str, str]
    """Day → the run or the backfill that is in progress on it, or waits to be."""

    active_runs: int = 0
    attempts: Sequence[Attempt] = ()
    """Oldest first."""

    stored_before: Mapping[str, int] = {}
    """Day → event of its last materialization, also where its users are gone again."""

    stored_at: Mapping[str, dt.datetime] = {}
    """Day → when it was stored last, also where its users are gone again."""

    api_up_since: dt.datetime | None = None
    """When the API was seen to come back, if it was seen to be down before."""


class Request(msgspec.Struct, frozen=True):
    """One run to ask for."""

    days: RunDays
    run_key: str
    pages_since: str | None = None
    """The earliest attempt whose pages may be used; None: all are fetched anew."""

    launch: Launch = Launch()


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
    """What the attempts say of one day. All but the number and the last of them begin anew when the day is stored."""

    attempts: int = 0
    last: str = ""
    own_failures: int = 0
    outage_stops: int = 0
    pauses: int = 0
    retry_at: dt.datetime | None = None
    cancelled: bool = False
    first: Attempt | None = None
    launch: Launch | None = None
    """Of the last run that was launched for the day, and has not stored it."""


def plan(facts: Facts, settings: Settings) -> Plan:
    """Decide which of the wanted days to ask for now.

    Wanted are the days that are due, and those that a run was launched for in vain: they were not stored since it was
    created. A day that failed by itself gets a run of its own from then on, so that it does not keep others from being
    stored.
    """
    histories = _histories(facts)
    due = [day for day in days_to_keep_up(facts.due, settings) if day not in facts.stored]
    wanted = sorted({*due, *(day for day, history in histories.items() if history.launch)})
    missing = [day for day in wanted if day not in facts.busy]
    pausing: dict[str, dt.datetime] = {}
    given_up: dict[str, str] = {}
    cancelled: dict[str, str] = {}
    ready: dict[Launch, list[str]] = {}
    for day in missing:
        history = histories.get(day, _History())
        if history.cancelled:
            cancelled[day] = history.last
        elif history.own_failures >= settings.max_attempts:
            given_up[day] = history.last
        elif history.retry_at and history.retry_at > facts.now:
            pausing[day] = history.retry_at
        else:
            ready.setdefault(history.launch or Launch(), []).append(day)
    alone = {
        day
        for day, history in histories.items()
        if history.own_failures or history.outage_stops >= _ISOLATE_AFTER_STOPS
    }
    requests = [
        _request(days, histories, facts, launch, fetch_anew=days.first in alone)
        for launch, chosen in ready.items()
        for days in spans(chosen, settings.days_per_run, alone)
    ]
    requests.sort(key=lambda request: request.days.first)
    room = max(settings.max_active_runs - facts.active_runs, 0)
    return Plan(
        requests=requests[:room],
        missing=missing,
        busy=[day for day in wanted if day in facts.busy],
        pausing=pausing,
        given_up=given_up,
        cancelled=cancelled,
        queued=len(requests[room:]),
    )


def days_to_keep_up(due: Sequence[str], settings: Settings) -> Sequence[str]:
    """Those of the days that are due which are asked for though nobody has asked for them yet."""
    return due if settings.catchup else due[-1:]


def _request(
    days: RunDays, histories: Mapping[str, _History], facts: Facts, launch: Launch, *, fetch_anew: bool
) -> Request:
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
        run_key=f"{days.key}#{attempt}" + (f" after {', '.join(after)}" if after else ""),
        pages_since=first.run_id if first and not fetch_anew else None,
        launch=launch,
    )


def _histories(facts: Facts) -> dict[str, _History]:
    histories: dict[str, _History] = {}
    for attempt in facts.attempts:
        for day in attempt.days:
            history = histories.setdefault(day, _History())
            history.attempts += 1
            history.last = attempt.run_id
            # Stored since: what was the matter before is over.
            if day not in facts.stored_at or attempt.created > facts.stored_at[day]:
                _add(history, attempt, day, facts.api_up_since)
    return histories


def _add(history: _History, attempt: Attempt, day: str, api_up_since: dt.datetime | None) -> None:
    history.cancelled = attempt.cancelled
    history.first = history.first or attempt
    history.launch = None if attempt.cancelled else attempt.launch or history.launch
    own = day in attempt.failed
    history.own_failures += own
    history.outage_stops += attempt.stopped_at == day
    # What another day of the same run broke is not held against this one.
    if not own and attempt.failed and not attempt.stopped_at:
        return
    history.pauses += 1
    # Whatever an outage broke need not wait once the API has come back.
    if own or api_up_since is None or attempt.ended >= api_up_since:
        pause = min(FIRST_PAUSE * 2 ** min(history.pauses - 1, 16), LONGEST_PAUSE)
        history.retry_at = max(attempt.ended + pause, history.retry_at or attempt.ended)

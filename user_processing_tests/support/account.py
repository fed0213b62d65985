"""The account that a server keeps of what it was asked, and when."""

from typing import NamedTuple


class Span(NamedTuple):
    """A request, as seen from the server: it counted the users at some moment of it."""

    began: float
    ended: float
    users: int


def most_users(spans: list[Span], seconds: float) -> int:
    """The most users that any window of this length can have counted."""
    return max(
        sum(span.users for span in spans if span.began <= first.ended + seconds and span.ended >= first.ended)
        for first in spans
    )


def most_at_once(spans: list[Span]) -> int:
    return max(sum(span.began <= first.began < span.ended for span in spans) for first in spans)

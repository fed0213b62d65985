"""One URL of `USERS_ALERT_URL`, as Apprise takes it.

Run as a program, this tells one URL of one alert. Apprise and what it builds on write URLs and tokens to their logs,
and few of their waits have an end: the output of a program can be thrown away, and a program can be killed. It
imports nothing of this package.
"""

import bisect
import json
import logging
import re
import signal
import sys
from html import escape
from urllib.parse import quote, unquote, urlsplit

from apprise import Apprise, AppriseAsset, NotifyBase, NotifyFormat, NotifyType
from apprise.conversion import convert_between
from apprise.plugins.custom_json import NotifyJSON

MAX_ALERT_LENGTH = 2000
"""Characters of an alert, where the channel does not take fewer."""

TOLD = "told"
"""The last line of the program, where the URL has accepted the alert."""

_NAME = "user_processing"
_LOG = logging.getLogger("apprise")
_LOG.setLevel(logging.CRITICAL + 1)
_ASSET = AppriseAsset(
    app_id=_NAME,
    app_desc=_NAME,
    http_redirects=False,
    default_service_retry=2,
    service_timeout=0,  # it would leave a thread behind; the program is killed
)


class Webhook(NotifyJSON):
    """A plain http(s) URL: gets `{"text": "…"}`, as Slack's incoming webhooks and compatible endpoints take it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        super().__init__(
            asset=_ASSET,
            secure=parts.scheme == "https",
            host=parts.netloc.rpartition("@")[2],
            # As UTF-8: requests sends Latin-1.
            user=quote(unquote(parts.username or "", "latin-1")),
            password=quote(unquote(parts.password or "", "latin-1")),
            # With the query, so that both arrive as they are written.
            fullpath=parts._replace(scheme="", netloc="", fragment="").geturl(),
            payload={"message": "text", "title": "", "version": "", "attachments": "", "type": ""},
        )

    def dialect_convert(self, body: str, *_: object, **__: object) -> str:
        """Without the three characters that mean something to Slack, such as in `<!channel>`."""
        return escape(body, quote=False)


def open_channel(url: str) -> NotifyBase:
    """What Apprise makes of a URL.

    Raises:
        ValueError: it makes nothing of it.
    """
    channel = Webhook(url) if url.startswith(("http://", "https://")) else Apprise.instantiate(url, asset=_ASSET)
    if channel is None:
        message = (
            "Apprise does not know this kind of URL, or it lacks a part. It takes those that "
            "https://appriseit.com/services lists, such as slack://… and mailto://…, and https:// of a webhook that "
            'takes {"text": "…"}'
        )
        raise ValueError(message)
    return channel


def render(channel: NotifyBase, text: str, end: str) -> str:
    """Text and last lines, of which the text is cut where the channel's own way to write both would be too long."""
    kind = channel.resolve_format(NotifyFormat.TEXT)

    def cut(kept: int) -> str:
        return f"{text[:kept]}{'…' if kept < len(text) else ''}\n{end}"

    def length(kept: int) -> int:
        return len(channel.dialect_convert(convert_between(NotifyFormat.TEXT, kind, cut(kept)), kind))

    longest = min(MAX_ALERT_LENGTH, channel.body_maxlen)
    return cut(max(0, bisect.bisect_right(range(len(text) + 1), longest, key=length) - 1))


def tell(url: str, text: str, end: str) -> str:
    """Tell a URL; returns what became of it: `TOLD`, or what came instead, with nothing of the URL."""
    channel = open_channel(url)
    problem = "it was not accepted"

    def note(entry: object, of: NotifyBase | None) -> None:
        """Called for each warning in the log of Apprise, within the `except` of the error that it is about."""
        nonlocal problem
        if of and (status := re.search(r"\berror=(\d{3})\b", str(entry))):
            problem = f"HTTP {status[1]}"
        elif of and (error := sys.exc_info()[1]):
            problem = _describe(error)
        # Now, as this may be killed before there is a result.
        print(problem, flush=True)  # noqa: T201 - who has started the program reads it

    told = Apprise(channel).notify(
        # A character that is half of one, as in a broken text, could not be put into a mail.
        render(channel, text, end).encode(errors="replace"),
        # Others have no place for a title but the text.
        title=f"Alert of {_NAME}" if channel.title_maxlen > 0 and not channel.overflow_amalgamate_title else "",
        notify_type=NotifyType.FAILURE,
        body_format=NotifyFormat.TEXT,
        log_callback=note,
        log_level=logging.WARNING,
    )
    return TOLD if told else problem


def _describe(error: BaseException) -> str:
    """An error without its text, which may quote the URL or the answer."""
    while inner := [
        it for it in (getattr(error, "reason", None), *error.args, error.__cause__) if isinstance(it, BaseException)
    ]:
        error = inner[0]
    said = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


if __name__ == "__main__":
    task = json.load(sys.stdin)
    # For when nobody is left who kills it.
    signal.alarm(int(task["seconds"]) + 2)
    _LOG.setLevel(logging.WARNING)
    # A channel that is slow has got the alert, and is not asked again.
    _ASSET.default_service_wait = task["seconds"] / 10
    NotifyBase.socket_connect_timeout = NotifyBase.socket_read_timeout = task["seconds"]
    print(tell(task["url"], task["text"], task["end"]))  # noqa: T201

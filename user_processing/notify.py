"""Who is told of an alert, and for how long: every URL of `USERS_ALERT_URL`, each by a program of its own.

What is said is for `alerts`, and how a URL is told for `channel`, of which the import takes up to a second.
The URLs are secrets: no log, reason or command line shows more of them than scheme and host.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

ALERT_TIMEOUT = 10.0
"""Seconds for one alert, with all its attempts and pauses. Dagster gives a tick 60 s."""

_CHANNEL = Path(__file__).with_name("channel.py")


class Alert(NamedTuple):
    """What somebody is told."""

    text: str
    end: str
    """The last lines, which are never cut: what happens next, and where to look."""


def split(urls: str) -> list[str]:
    """The URLs of a text that has white space, commas or semicolons between them, as Apprise parses it."""
    return list(dict.fromkeys(re.split(r"[\s,;]+(?=\w+://)", urls.strip(" \t\r\n,;"))))


def tell(alerts: Mapping[str, Alert]) -> dict[str, str]:
    """Tell each URL its alert, all at once, in `ALERT_TIMEOUT` at most.

    Returns:
        What came instead, for each URL that has not accepted it.
    """
    with ThreadPoolExecutor(len(alerts)) as pool:
        problems = pool.map(_tell, alerts, alerts.values())
        return {url: problem for url, problem in zip(alerts, problems, strict=True) if problem}


def _tell(url: str, alert: Alert) -> str | None:
    task = {"url": url, "seconds": ALERT_TIMEOUT, **alert._asdict()}
    problem = "Apprise has failed"
    try:
        said = subprocess.run(
            [sys.executable, "-P", _CHANNEL],
            input=json.dumps(task).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ALERT_TIMEOUT,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired as late:
        said, problem = late.stdout or b"", f"no answer in {ALERT_TIMEOUT:g} s"
    *_, last = [problem, *said.decode().splitlines()]
    return None if last == "told" else f"{_shown(url)}: {last}."


def _shown(url: str) -> str:
    """What may be seen of a URL. Of those of Apprise that is the scheme: in the place of a host they have tokens."""
    parts = urlsplit(url)
    # An @ further on: the password held a ? or a # that was not escaped, and what looks like the host is the user.
    known = parts.scheme in {"http", "https"} and "@" not in parts.path + parts.query + parts.fragment
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2] if known else '…'}"

"""How far a run is: bars where a terminal is, lines where none is."""

import logging
import sys
import time
from types import TracebackType
from typing import Any, Self

from rich import progress as bars

from user_processing.cli.output import console, count, original
from user_processing.days.work import Progress

_SECONDS_BETWEEN_LINES = 10.0


class Display(logging.Handler):
    """Shows the days, users and rate of each asset, and the warnings and errors that a run logs.

    Printed to where stdout went when it was made: Dagster leads the output of a step to a file meanwhile.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: dict[str, Progress] = {}
        """Of each asset, how far it came."""
        self._stream = original()
        self._console = console(self._stream)
        self._bars = _bars(self._console) if self._console.is_terminal else None
        self._tasks: dict[str, bars.TaskID] = {}
        self._said: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()
        if self._stream is not sys.stdout:
            self._stream.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Print what an asset warns of. Dagster's own events tell with a trace what the end of the command tells."""
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        if meta.get("dagster_event") is None:
            self._console.print(meta.get("orig_message", record.getMessage()))

    def show(self, progress: Progress) -> None:
        """Bring the line of this asset up to date."""
        self.last[progress.asset] = progress
        if self._bars:
            if progress.asset not in self._tasks:
                self._tasks[progress.asset] = self._bars.add_task(progress.asset, total=progress.days)
            task = self._tasks[progress.asset]
            self._bars.update(task, completed=progress.days_done, total=progress.days, users=_users(progress))
            return
        now = time.monotonic()
        first = self._said.setdefault(progress.asset, now)
        if progress.days_done == progress.days or now - first >= _SECONDS_BETWEEN_LINES:
            self._said[progress.asset] = now
            days = f"{progress.days_done:,} of {count(progress.days, 'day')}"
            self._console.print(f"{progress.asset}: {days}, {_users(progress)}")


def _bars(on: Any) -> bars.Progress:  # noqa: ANN401 - a console of rich
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TextColumn("{task.completed:,.0f} of {task.total:,.0f} days"),
        bars.TextColumn("{task.fields[users]}"),
        bars.TimeElapsedColumn(),
        console=on,
        # What steps print is Dagster's to keep.
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _users(progress: Progress) -> str:
    rate = progress.rows / max(progress.seconds, 0.001)
    return f"{count(progress.rows, 'user')}, {rate:,.0f} a second"

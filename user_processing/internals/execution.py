"""A run in this process, as `dagster job execute` runs one, with a console of one's own.

Dagster's own bookkeeping is not interrupted: Ctrl-C and SIGTERM wait until the step can be, then the run fails.
"""

import logging
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dagster as dg
from dagster._utils.interrupts import capture_interrupts


def execute(
    job: dg.JobDefinition, instance: dg.DagsterInstance, tags: Mapping[str, str], console: logging.Handler
) -> dg.ExecuteInProcessResult:
    """Execute a job on the instance, whatever becomes of it; what it logs goes to `console` and to the instance.

    Args:
        job: of the definitions of this project.
        instance: gets the run and its events.
        tags: of the run.
        console: in the place of the one that prints every event to stderr.
    """

    @dg.logger
    def quiet(context: dg.InitLoggerContext) -> logging.Logger:
        del context
        logger = logging.Logger("user_processing", logging.INFO)  # noqa: LOG001 - one that no other process output joins
        logger.addHandler(console)
        return logger

    with capture_interrupts():
        return job.with_logger_defs({"console": quiet}).execute_in_process(
            instance=instance,
            tags=dict(tags),
            # Every job has a logger of this name: from the UI, the run can be executed again as it is.
            run_config={"loggers": {"console": {}}},
            raise_on_error=False,
        )


@contextmanager
def last_signal() -> Iterator[list[int]]:
    """A list that holds, after the block, the signals that came in it. Whatever handles them still does."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    came: list[int] = []
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield came
    finally:
        signal.set_wakeup_fd(before)
        with os.fdopen(read, "rb", buffering=0) as pipe:
            came.extend(number for number in pipe.read(512) or b"" if number in {signal.SIGINT, signal.SIGTERM})
        os.close(write)

"""`python -m user_processing.internals.interruptible dagster dev …`: run a program so that it ends on SIGTERM.

Dagster gives SIGTERM whatever handler SIGINT has. What a script starts in the background has SIGINT ignored, so
Dagster's processes ignore both there, and never end. No issue of Dagster's tells of it. This can be deleted when
Dagster's `setup_interrupt_handlers` does not copy a handler that ignores.
"""

import os
import signal
import sys
from typing import NoReturn


def restore_interrupt() -> None:
    """Let SIGINT raise KeyboardInterrupt in this process. Programs that it starts end on SIGINT by default, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def become(command: list[str]) -> NoReturn:
    """Go on as another program, in which SIGINT and SIGTERM do what they do in a terminal."""
    restore_interrupt()
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    become(sys.argv[1:])

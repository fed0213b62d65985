"""What the commands print: whole on a terminal, plain where none is, and never the reason that a command fails.

A character that the terminal's encoding lacks is replaced; output that nobody reads any more (`| head`) is dropped.
"""

import codecs
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_ASCII = {"…": "...", "→": "->", "▶": ">", "─": "-", "━": "-", "│": "|", "·": "-"}
_WIDE = 200  # columns, where no terminal says how many it has


class _Tolerant:
    """A stream that goes on when its reader is gone: what is written then is dropped."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except BrokenPipeError:
            self._drop()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def prepare() -> None:
    """Make stdout and stderr such that printing cannot fail."""
    codecs.register_error("user_processing", _in_ascii)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="user_processing")
            setattr(sys, name, _Tolerant(stream))


def original() -> Any:  # noqa: ANN401 - a text stream
    """Where stdout goes now, as a stream of its own: Dagster leads the output of steps to files."""
    sys.stdout.flush()
    try:
        descriptor = os.dup(sys.stdout.fileno())
    except (OSError, io.UnsupportedOperation):
        return sys.stdout
    stream = os.fdopen(descriptor, "w", encoding=sys.stdout.encoding, errors="user_processing")
    return _Tolerant(stream)


def say(*lines: object) -> None:
    """Print lines."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def complain(*lines: object) -> None:
    """Print lines to stderr, after all that was printed to stdout."""
    sys.stdout.flush()
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns; numbers stand at the right, with their thousands separated."""
    from rich.table import Table

    columns = Table(*headers, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns.columns):
        column.no_wrap = True
        if any(isinstance(row[number], int | float) for row in rows):
            column.justify = "right"
    for row in rows:
        columns.add_row(*(f"{cell:,}" if isinstance(cell, int | float) else str(cell) for cell in row))
    console().print(columns)


def console(stream: Any = None) -> "Console":  # noqa: ANN401 - a text stream
    """A console of rich on stdout, or on this stream; wide where no terminal is."""
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def count(number: int, thing: str) -> str:
    """1 day, 2 days, 1,200 days."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def command(own: str, make: str | None = None) -> str:
    """How the reader types a command: `make …` if this one was started by make, or else `user-processing …`."""
    return f"make {make or own}" if "MAKELEVEL" in os.environ else f"user-processing {own}"


def option(own: str, make: str) -> str:
    """How the reader types an option of the command that runs."""
    return make if "MAKELEVEL" in os.environ else own


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(character, "?") for character in error.object[error.start : error.end]), error.end

"""Keeps the line of `.env` that says where Dagster's instance is: this checkout, whichever folder a command runs in.

Run as a script by the Makefile, before there is an environment: nothing but the standard library is imported.
"""

import sys
from pathlib import Path

_MARK = "# Where Dagster keeps its instance. make keeps the next line right; write your own without this one."
_INTRODUCTION = "# Read by every dagster command of this checkout. .env.example lists what else can stand here."
_NAME = "DAGSTER_HOME"


def keep(checkout: Path) -> None:
    """Write or mend make's own line of `.env`; whatever else stands there is left as it is.

    Make's own is the line after the mark, or one that asks for the folder that a command happens to run in. A line
    that somebody has written is left alone.
    """
    file = checkout / ".env"
    quoted = str(checkout).replace("\\", "\\\\").replace("'", "\\'")
    own = [_MARK, f"{_NAME}='{quoted}'"]
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    kept: list[str] = [] if lines else [_INTRODUCTION]
    place = None if lines else 1
    for number, line in enumerate(lines):
        after_mark = number > 0 and lines[number - 1] == _MARK
        if line == _MARK:
            continue
        if _is_home(line) and (after_mark or line.partition("=")[2].strip("'\" ") in {"${PWD}", "$PWD", "."}):
            place = len(kept)
            continue
        kept.append(line)
    if place is None:
        own, place = ([] if any(_is_home(line) for line in kept) else own), 0
    wanted = [*kept[:place], *own, *kept[place:]]
    if wanted != lines:
        # It may hold passwords: not even for a moment is it open to more than it was.
        file.touch(mode=0o600)
        file.write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")


def _is_home(line: str) -> bool:
    return line.removeprefix("export ").partition("=")[0].strip() == _NAME


if __name__ == "__main__":
    try:
        keep(Path.cwd())
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f".env cannot be kept: {error}. Mend or remove it.")

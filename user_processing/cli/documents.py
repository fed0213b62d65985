"""The documents that are made from the code: `.env.example`, and the tables of settings and columns in README.md."""

import re
import textwrap
from collections.abc import Iterable, Sequence

from pydantic.fields import FieldInfo

from user_processing.cli.session import CommandError
from user_processing.columns import COLUMNS
from user_processing.settings import Settings, checkout


def write() -> None:
    """Write them anew.

    Raises:
        CommandError: this is no checkout, or its README.md lacks a table.
    """
    folder = checkout()
    if folder is None:
        raise CommandError("The documents are in a checkout of the project, and this is an installed package.")
    (folder / ".env.example").write_text(example(), encoding="utf-8")
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8")
    for table in (table_of_settings(), table_of_columns()):
        header = table.partition("\n")[0]
        before, *rest = re.split(rf"^{re.escape(header)}\n(?:\|.*\n)*", text, maxsplit=1, flags=re.MULTILINE)
        if not rest:
            raise CommandError(f"README.md has no table that begins with `{header}`. Put one where it is to stand.")
        text = table.join([before, *rest])
    readme.write_text(text, encoding="utf-8")


def table_of_settings() -> str:
    """The settings as a table in Markdown, for the README."""
    return _table(
        ["variable", "what it sets", "without it"],
        [(f"`{name.upper()}`", field.description, _without(field)) for name, field in Settings.model_fields.items()],
    )


def table_of_columns() -> str:
    """The columns as a table in Markdown, for the README."""
    return _table(
        ["column", "in the API's record", "type", "what it holds"],
        [(f"`{column.name}`", f"`{column.path}`", column.type, column.meaning) for column in COLUMNS],
    )


def example() -> str:
    """The text of `.env.example`."""
    lines = [
        "# Copy to .env what you need; every command that is run in this folder reads it.",
        "# Without any of these, everything runs on this machine, and what is stored stays in the data folder.",
    ]
    for name, field in Settings.model_fields.items():
        text = f"{field.description} Without it: {_without(field)}.".replace("`", "")
        lines += [
            "",
            *(f"# {line}" for line in textwrap.wrap(text, 110)),
            f"# {name.upper()}={_extra(field, 'example')}",
        ]
    return "\n".join(lines) + "\n"


def _without(field: FieldInfo) -> str:
    """What holds where the variable is not set."""
    if said := _extra(field, "without"):
        return said
    default = field.default
    if isinstance(default, bool):
        return {True: "yes", False: "false"}[default]
    return f"{default:,}" if isinstance(default, int) else f"{default}"


def _extra(field: FieldInfo, key: str) -> str:
    """What is noted beside a field for its documents; for `example`, its default where nothing is noted."""
    noted = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return str(noted.get(key) or (field.default if key == "example" else ""))


def _table(header: Sequence[str], rows: Iterable[Sequence[str | None]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)

"""How a command begins, asks and ends: settings and instance, a yes or no, errors in a line."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from user_processing.cli import output


class CommandError(Exception):
    """The command cannot be done; the message says why, and what to do."""


def begin() -> Path:
    """Make ready what every command needs: the settings, the instance's folder; warn of names that are no settings.

    Returns:
        The folder that the command was typed in. It runs in the checkout, as `make` does.
    """
    import logging
    import warnings

    from dotenv import load_dotenv

    # Dagster's own, about what this project is built on; servers that a command starts inherit it.
    warnings.simplefilter("ignore")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    # What libraries warn of on their way to an error, such as each attempt to connect; and what is told below.
    logging.getLogger().setLevel(logging.ERROR)
    from user_processing import paths, settings
    from user_processing.cli import env_file

    typed_in, checkout = Path.cwd(), settings.checkout()
    if checkout:
        if settings.env_file().exists():
            env_file.keep(checkout)
        os.chdir(checkout)
    # A file that cannot be read, or a value that must not be, is told here.
    settings.load()
    # What stands there comes first, as in every command of Dagster.
    load_dotenv(settings.env_file(), override=True)
    if not os.environ.get("DAGSTER_HOME"):
        os.environ["DAGSTER_HOME"] = str(paths.instance_folder())
    for sentence in settings.unknown_variables():
        output.complain(f"Warning: {sentence}")
    return typed_in


def confirm(what: str, question: str, *, otherwise: str) -> None:
    """Let somebody say yes to what the command is about to do.

    Args:
        what: the command does, in a sentence.
        question: for yes or no.
        otherwise: what has become of it where nobody says yes, in a sentence.

    Raises:
        CommandError: nobody can, or somebody says no.
    """
    if not sys.stdin.isatty():
        raise CommandError(f"{what} Nobody is here to be asked: add {output.option('--yes', 'YES=1')}. {otherwise}")
    import typer

    output.say(what)
    if not typer.confirm(question):
        raise CommandError(otherwise)


@contextlib.contextmanager
def errors_in_a_line() -> Iterator[None]:
    """End the process with 1 and the cause on stderr, where the block raises an error with a known cause."""
    try:
        yield
    except CommandError as error:
        told: str | None = str(error)
    except Exception as error:
        from user_processing.cli.failures import cause

        told = cause(error)
        if told is None:
            raise
    else:
        return
    output.complain(told)
    sys.exit(1)

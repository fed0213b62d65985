"""The environment variables: read when a run or a tick needs them, not when a module is imported.

Two are parts of definitions, and are read with these: USERS_DAYS_PER_RUN and USER_API_POKE_INTERVAL.

Resources ask here where a field is not set. Handing variables to Dagster as `EnvVar` would make them part of the
resource's default configuration, which a launchpad that changes any other field throws away as a whole: a run with one
more connection would silently take its users from the stand-in.
"""

import os

import dagster as dg


def text(name: str) -> str | None:
    """The value of a variable; None where it is not set, or empty."""
    return os.environ.get(name) or None


def service(name: str) -> str | None:
    """Where a service is; None where the embedded one is to be used.

    Raises:
        dagster.Failure: the variable is not set, and `USERS_EMBEDDED=no` forbids what is embedded.
    """
    url = text(name)
    if url is None and text("USERS_EMBEDDED") == "no":
        message = f"{name} is not set, and USERS_EMBEDDED=no forbids to use what is embedded instead."
        raise dg.Failure(message, allow_retries=False)
    return url


def flag(name: str) -> bool:
    """Whether a variable says true; it is false where it is not set.

    Raises:
        dagster.Failure: it holds neither true nor false.
    """
    value = (text(name) or "false").lower()
    if value not in {"true", "false"}:
        message = f"{name} is {value!r}; it has to be true or false."
        raise dg.Failure(message, allow_retries=False)
    return value == "true"


def at_least_one(name: str) -> int | None:
    """A number of 1 or more from a variable; None where it is not set.

    Raises:
        dagster.Failure: it holds something else.
    """
    number = whole_number(name, 0)
    if text(name) is not None and number < 1:
        message = f"{name} is {number}; it has to be 1 or more."
        raise dg.Failure(message, allow_retries=False)
    return number or None


def whole_number(name: str, default: int) -> int:
    """A number from a variable.

    Raises:
        dagster.Failure: it holds something else.
    """
    value = text(name)
    if value is None:
        return default
    try:
        return int(value)
    except ValueError:
        message = f"{name} is {value!r}; it has to be a whole number."
        raise dg.Failure(message, allow_retries=False) from None

"""Every setting: its name, type, default, bounds and meaning. `make docs` writes the documents of them from here.

Settings are environment variables, or lines of the file `.env` of the checkout. They are read when a run, a tick or a
command needs them, not when a module is imported. Two are parts of definitions, and are read with these:
USERS_DAYS_PER_RUN and USER_API_POKE_INTERVAL.

Resources ask here where a field is not set. Handing variables to Dagster as `EnvVar` would make them part of the
resource's default configuration, which a launchpad that changes any other field throws away as a whole: a run with one
more connection would silently take its users from the stand-in.
"""

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import dagster as dg
from annotated_types import Ge, Le
from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from user_processing import notify
from user_processing.columns import Passwords
from user_processing.urls import check_http_url, check_postgres_url

_CHECKOUT = Path(__file__).resolve().parents[1]
_PREFIXES = ("USERS_", "USER_API_")


class SettingsError(dg.Failure):
    """A variable holds what it must not; the message names it, and says what it may hold."""

    def __init__(self, message: str) -> None:
        super().__init__(message, allow_retries=False)


class Settings(BaseSettings):
    """What the environment and `.env` say. The names of the variables are those of the fields, in capital letters."""

    model_config = SettingsConfigDict(
        alias_generator=str.upper, case_sensitive=True, env_ignore_empty=True, extra="ignore", frozen=True
    )

    user_api_url: SecretStr | None = Field(
        default=None,
        description="Base URL of the API.",
        json_schema_extra={"example": "https://randomuser.me/api/1.4/", "without": "a stand-in"},
    )
    users_per_day: int = Field(
        default=1, ge=1, le=50_000_000, description="Users to fetch for each day, where a run does not say."
    )
    users_postgres_url: SecretStr | None = Field(
        default=None,
        description="Database of the users: any connection string that libpq knows.",
        json_schema_extra={
            "example": "postgresql://loader:password@db.example.com:5432/users?sslmode=verify-full",
            "without": "an embedded Postgres",
        },
    )
    users_passwords: Passwords = Field(
        default="plain",
        description="What the column `password` holds: `plain`, the password; `sha256`, the API's own salted digest of "
        "it; `drop`, nothing.",
        json_schema_extra={"example": "sha256"},
    )
    users_max_rejected: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of a day's records that may break the API's contract before the day fails.",
    )
    users_files_url: str | None = Field(
        default=None,
        description="Where the files of each day are kept: a folder, or a URL that fsspec knows.",
        json_schema_extra={"example": "s3://bucket/users", "without": "`storage/days` in the data folder"},
    )
    users_catchup: bool = Field(
        default=False,
        description="`true` asks for every day that is due and missing, `false` for the newest alone.",
        json_schema_extra={"example": "true"},
    )
    users_days_per_run: int | None = Field(
        default=None,
        ge=1,
        description="Days in one run of the sensor or of a backfill.",
        json_schema_extra={"example": "30", "without": "all that follow each other"},
    )
    users_max_active_runs: int = Field(
        default=16, ge=1, description="Runs that may be active when the sensor asks for another."
    )
    users_max_attempts: int = Field(
        default=8, ge=1, description="Times that a day may fail by itself before nobody asks for it."
    )
    user_api_poke_interval: int = Field(default=60, ge=1, description="Seconds from one poll of the API to the next.")
    user_api_timeout: int = Field(
        default=604_800, ge=1, description="Seconds that the API may be down before the sensor's ticks fail."
    )
    user_api_rate_limit: int | None = Field(
        default=None,
        ge=0,
        description="Users that all runs together may ask for in five minutes; 0 for no limit.",
        json_schema_extra={"example": "20000", "without": "20,000 for randomuser.me, none elsewhere"},
    )
    users_alert_url: SecretStr | None = Field(
        default=None,
        description="Who is told what went wrong: URLs of Apprise, such as `slack://…` and `mailto://…`, or of a "
        'webhook, `https://…`, that takes `{"text": "…"}` as Slack does; several with a space between them.',
        json_schema_extra={"example": "https://hooks.slack.com/services/…", "without": "nobody is told"},
    )
    users_ui_url: str = Field(
        default="http://127.0.0.1:3000",
        description="Where the UI is, for the links in these alerts.",
        json_schema_extra={"example": "https://dagster.example.com"},
    )
    users_embedded: bool = Field(
        default=True,
        description="`no` forbids the stand-in and the embedded Postgres; a missing variable is an error then.",
        json_schema_extra={"example": "no"},
    )
    users_data_dir: Path | None = Field(
        default=None,
        description="Folder in which this machine keeps what is embedded: Postgres, files of days, logs of runs.",
        json_schema_extra={
            "example": "/var/lib/user_processing",
            "without": "`.local` in a checkout, else the user's state folder",
        },
    )
    dagster_postgres_url: SecretStr | None = Field(
        default=None,
        description="Database of Dagster: its runs, events and schedules.",
        json_schema_extra={
            "example": "postgresql://dagster:password@db.example.com:5432/dagster",
            "without": "the embedded Postgres",
        },
    )

    @field_validator("user_api_url", "users_ui_url")
    @classmethod
    def _has_scheme_and_host(cls, value: SecretStr | str | None) -> SecretStr | str | None:
        if value is not None:
            check_http_url(value.get_secret_value() if isinstance(value, SecretStr) else value)
        return value

    @field_validator("users_alert_url")
    @classmethod
    def _each_can_be_told(cls, value: SecretStr | None) -> SecretStr | None:
        for url in notify.split(value.get_secret_value()) if value else ():
            if url.lower().startswith(("http://", "https://")):
                check_http_url(url)
            else:
                from user_processing import channel  # noqa: PLC0415 - with Apprise, 0.65 s

                channel.open_channel(url)
        return value

    @field_validator("users_postgres_url", "dagster_postgres_url")
    @classmethod
    def _libpq_can_read_it(cls, value: SecretStr | None) -> SecretStr | None:
        check_postgres_url(value.get_secret_value() if value else "")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What stands in `.env` comes before the environment, as in every command of Dagster."""
        del settings_cls, file_secret_settings
        return init_settings, dotenv_settings, env_settings

    def service(self, name: str) -> str | None:
        """Where a service is; None where the embedded one is to be used.

        Raises:
            SettingsError: it is not set, and `USERS_EMBEDDED=no` forbids what is embedded.
        """
        url: SecretStr | None = getattr(self, name.lower())
        if url is None and not self.users_embedded:
            raise SettingsError(
                f"{name} is not set, and USERS_EMBEDDED=no forbids to use what is embedded instead. Set {name}."
            )
        return url.get_secret_value() if url else None


def load() -> Settings:
    """Read the settings as they are now.

    Raises:
        SettingsError: a variable holds what it must not, or `.env` cannot be read.
    """
    file = env_file()
    try:
        # UTF-16 without a mark at its start could be read, but no name in it would be known.
        if file.is_file() and "\0" in file.read_text(encoding="utf-8"):
            raise UnicodeError  # noqa: TRY301 - what is not UTF-8 raises it too
        # Notepad begins a file with a mark, which would become part of the first name.
        return Settings(_env_file=file, _env_file_encoding="utf-8-sig")  # type: ignore[call-arg]
    except ValidationError as error:
        message = " ".join(_refusal(found) for found in error.errors())
    except UnicodeError:
        message = f"{file} is not UTF-8 text. Save it with the encoding UTF-8."
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}. Let your user read it, or remove it."
    raise SettingsError(message)


def checked_field(url: str, check: Callable[[str], None], *, resource: str) -> str:
    """The URL that a run gives a resource in the place of a setting, if it is as good as that.

    Raises:
        SettingsError: it is not.
    """
    try:
        check(url)
    except ValueError as error:
        raise SettingsError(f"The field url of the resource {resource} cannot be used: {error}.") from None
    return url


def env_file() -> Path:
    """The file of settings: `.env` of the checkout, or else of the folder that the command runs in."""
    return (checkout() or Path.cwd()) / ".env"


def checkout() -> Path | None:
    """The folder of the checkout that this package lies in; None where it was installed from a wheel."""
    return _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else None


def unknown_variables() -> Iterator[str]:
    """A sentence for each line of `.env` that is none, and for each variable that looks like a setting and is none."""
    known = [name.upper() for name in Settings.model_fields]
    given = set(os.environ)
    file = env_file()
    if file.is_file():
        with file.open(encoding="utf-8-sig") as lines:
            for line in parse_stream(lines):
                if line.error:
                    yield f"Line {line.original.line} of {file} cannot be read, and has no effect. Write NAME=value."
                elif line.key:
                    given.add(line.key)
    for name in sorted(given.difference(known)):
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        if name.startswith(_PREFIXES) or (nearest and difflib.get_close_matches(name, known, n=1, cutoff=0.85)):
            hint = f" Did you mean {nearest[0]}?" if nearest else f" The settings are {', '.join(known)}."
            yield f"{name} is not a setting, and has no effect.{hint}"


def _refusal(error: Mapping[str, Any]) -> str:
    """Which variable holds what, and what it may hold. The value of a secret is not told."""
    name = str(error["loc"][0])
    field = Settings.model_fields[name.lower()]
    reason = error.get("ctx", {}).get("error", error["msg"])
    if "SecretStr" in str(field.annotation):
        return f"{name} cannot be used: {reason}."
    if error["type"] == "value_error":
        return f"{name} is {error['input']!r}: {reason}."
    return f"{name} is {error['input']!r}; it has to be {_allowed(field)}."


def _allowed(field: FieldInfo) -> str:
    """What a variable may hold, in words."""
    kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]
    if bool in kinds:
        return "true or false"
    if int not in kinds and float not in kinds:
        return f"one of {', '.join(map(str, kinds))}"
    lowest = next((bound.ge for bound in field.metadata if isinstance(bound, Ge)), None)
    highest = next((bound.le for bound in field.metadata if isinstance(bound, Le)), None)
    number = "a whole number" if int in kinds else "a number"
    return f"{number} from {lowest:,} to {highest:,}" if highest is not None else f"{number}, {lowest} or more"

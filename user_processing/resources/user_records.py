"""What a deployment wants of the records: what the password column holds, and how many bad records a day may have."""

from typing import Any, get_args

import dagster as dg
from pydantic import Field

from user_processing import variables
from user_processing.users import Passwords


class UserRecords(dg.ConfigurableResource[Any]):
    """How records become rows."""

    passwords: str | None = Field(
        default=None,
        description="What the password column holds: `plain`, the password; `sha256`, the API's salted digest of it; "
        "`drop`, nothing. Without it: USERS_PASSWORDS, or else `plain`.",
    )
    max_rejected: float | None = Field(
        default=None,
        description="Share of a day's records, from 0 to 1, that may break the API's contract before the day fails. "
        "Without it: USERS_MAX_REJECTED, or else 0.01.",
    )

    @property
    def password_column(self) -> Passwords:
        """What the password column holds.

        Raises:
            dagster.Failure: it is none of the three words.
        """
        wanted = self.passwords or variables.text("USERS_PASSWORDS") or "plain"
        for choice in get_args(Passwords):
            if wanted == choice:
                return choice  # type: ignore[no-any-return]
        message = f"USERS_PASSWORDS is {wanted!r}; it can be {', '.join(get_args(Passwords))}."
        raise dg.Failure(message, allow_retries=False)

    @property
    def largest_rejected_share(self) -> float:
        """The share of bad records up to which a day is stored.

        Raises:
            dagster.Failure: it is no number from 0 to 1.
        """
        wanted = variables.text("USERS_MAX_REJECTED") or "0.01" if self.max_rejected is None else str(self.max_rejected)
        try:
            share = float(wanted)
        except ValueError:
            share = -1.0
        if 0 <= share <= 1:
            return share
        message = f"USERS_MAX_REJECTED is {wanted!r}; it is a share, from 0 to 1, such as 0.01."
        raise dg.Failure(message, allow_retries=False)

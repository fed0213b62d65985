"""What a deployment wants of the records: what the password column holds, and how many bad records a day may have."""

from typing import Any, get_args

import dagster as dg
from pydantic import Field

from user_processing.users import Passwords


class UserRecords(dg.ConfigurableResource[Any]):
    """How records become rows."""

    # Text, since that is what a variable holds when Dagster passes it on by name.
    passwords: str = Field(
        default="plain",
        description="What the password column holds: `plain`, the password; `sha256`, the API's salted digest of it; "
        "`drop`, nothing.",
    )
    max_rejected: str = Field(
        default="0.01",
        description="Share of a day's records, from 0 to 1, that may break the API's contract before the day fails.",
    )

    @property
    def password_column(self) -> Passwords:
        """What the password column holds.

        Raises:
            dagster.Failure: it is none of the three words.
        """
        for choice in get_args(Passwords):
            if self.passwords == choice:
                return choice  # type: ignore[no-any-return]
        message = f"USERS_PASSWORDS is {self.passwords!r}; it can be {', '.join(get_args(Passwords))}."
        raise dg.Failure(message, allow_retries=False)

    @property
    def largest_rejected_share(self) -> float:
        """The share of bad records up to which a day is stored.

        Raises:
            dagster.Failure: it is no number from 0 to 1.
        """
        try:
            share = float(self.max_rejected)
        except ValueError:
            share = -1.0
        if 0 <= share <= 1:
            return share
        message = f"USERS_MAX_REJECTED is {self.max_rejected!r}; it is a share, from 0 to 1, such as 0.01."
        raise dg.Failure(message, allow_retries=False)

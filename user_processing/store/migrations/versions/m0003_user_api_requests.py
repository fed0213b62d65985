"""The requests to the API in the window of its rate limit, of all runs: `user_api_requests`."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table. `ended` is when a request's lease is over, until the request says that it has ended."""
    op.execute(
        "CREATE TABLE IF NOT EXISTS user_api_requests ("
        "id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
        "users INTEGER NOT NULL, "
        "began TIMESTAMPTZ NOT NULL, "
        "ended TIMESTAMPTZ NOT NULL)"
    )

"""The tables of user_processing 0.1.0: from nothing, from that version, or from the `users` of the Airflow pipeline.

Tables of 0.1.0 have no version yet; each statement finds its work done there. The rows of a table that Airflow filled
belong to no day.
"""

from alembic import op

from user_processing.store.migrations import require_columns

revision = "0001"
down_revision = None

# The columns of that time. Later ones, though they are in `user_processing.columns` too, come by later migrations.
_COLUMNS = ("firstname", "lastname", "country", "username", "password", "email")


def upgrade() -> None:
    """Make what is not there."""
    require_columns(op.get_bind(), _COLUMNS)
    columns = ", ".join(f"{column} TEXT NOT NULL" for column in _COLUMNS)
    op.execute(f"CREATE TABLE IF NOT EXISTS users ({columns})")
    # A row's day comes from a setting of the transaction, so that COPY can take the lines of the CSV as they are. A
    # connection that has no such setting, the Airflow pipeline's for one, gives NULL: the row belongs to no day.
    # ADD COLUMN with a default would give the rows that are there a day; the default comes after them.
    op.execute("ALTER TABLE users ADD COLUMN IF NOT EXISTS partition_date DATE")
    op.execute(
        "ALTER TABLE users ALTER COLUMN partition_date "
        "SET DEFAULT NULLIF(current_setting('user_processing.partition_date', true), '')::date"
    )
    # BRIN: a day's rows lie together. 500,000 rows load in 1.1 s with it, in 1.4 s with a btree.
    op.execute(
        "CREATE INDEX IF NOT EXISTS users_partition_date ON users USING brin (partition_date) WITH (autosummarize = on)"
    )
    op.execute(
        "CREATE TABLE IF NOT EXISTS user_loads ("
        "partition_date DATE PRIMARY KEY, "
        "users_asked BIGINT NOT NULL, "
        "rows BIGINT NOT NULL, "
        "rejected BIGINT NOT NULL, "
        "csv_sha256 TEXT NOT NULL, "
        "run_id TEXT NOT NULL, "
        "loaded_at TIMESTAMPTZ NOT NULL DEFAULT now())"
    )
    op.execute(
        "CREATE TABLE IF NOT EXISTS rejected_users ("
        "partition_date DATE NOT NULL, "
        "page INTEGER NOT NULL, "
        "position INTEGER NOT NULL, "
        "reason TEXT NOT NULL, "
        "PRIMARY KEY (partition_date, page, position))"
    )

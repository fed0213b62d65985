"""The ledger counts the users that were requested: `users_asked` becomes `users_requested`."""

from alembic import op

revision = "0002"
down_revision = "0001"

_IS_OLD = (
    "SELECT count(*) FROM pg_attribute "
    "WHERE attrelid = 'user_loads'::regclass AND attname = 'users_asked' AND NOT attisdropped"
)


def upgrade() -> None:
    """Rename the column; its values stay."""
    if op.get_bind().exec_driver_sql(_IS_OLD).scalar():
        op.alter_column("user_loads", "users_asked", new_column_name="users_requested")

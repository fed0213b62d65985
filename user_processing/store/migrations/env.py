"""What Alembic runs to migrate: the migrations, on the connection that it was given."""

from alembic import context

from user_processing.store.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()

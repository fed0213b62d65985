#!/bin/sh
# The first process of every container of the image: passwords for libpq, then the command.
set -eu

# libpq reads passwords only from a file that is its owner's alone. A secret is mounted as it lies on the host: of another owner.
if [ -e /run/secrets/pgpass ]; then
    install -m 600 /run/secrets/pgpass "$PGPASSFILE"
fi

# Dagster's code server turns SIGTERM into SIGINT. Where the engine was started with SIGINT ignored, its containers inherit that.
exec env --default-signal=INT,TERM "$@"

#!/bin/sh
# Writes the password of the Postgres in containers: a random one, or with `-` the one on standard input. Once there, it is
# kept, unless `-` gives another.
#
#   .secrets/postgres_password   read by Postgres when it makes its volume, and never again
#   .secrets/pgpass              read by libpq in our containers; it may have lines for other servers as well
#
# SECRETS_FOLDER names another folder, to this command and to docker compose: from the shell, or from .env.
set -eu
cd "$(dirname "$0")/.."
named=$(sed -n "s/^SECRETS_FOLDER=[\"']\{0,1\}\([^\"']*\).*/\1/p" .env 2>/dev/null | tail -n 1)
folder=${SECRETS_FOLDER:-${named:-.secrets}}

# The folder is closed to everybody else. The files in it are not: their readers in the containers are other users than the
# owner here, and Docker hands them the file without the folder.
mkdir -p "$folder"
chmod 700 "$folder"
umask 022

if [ "${1:-}" = - ]; then
    IFS= read -r password || true  # a last line without its end
elif [ -s "$folder/postgres_password" ]; then
    IFS= read -r password <"$folder/postgres_password" || true
else
    password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
fi
[ -n "$password" ] || { echo "The password is empty, so nothing was changed." >&2; exit 1; }

# Written in place: a container that runs has the file mounted, not its name.
printf '%s\n' "$password" >"$folder/postgres_password"
# host:port:database:user:password, where a backslash stands before a colon and a backslash.
line="postgres:*:*:postgres:$(printf '%s' "$password" | sed 's/[\\:]/\\&/g')"
others=$(grep -v '^postgres:\*:\*:postgres:' "$folder/pgpass" 2>/dev/null || true)
printf '%s\n' "$line" ${others:+"$others"} >"$folder/pgpass"
echo "The password is in $folder/postgres_password."

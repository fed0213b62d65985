#!/usr/bin/env bash
# Makes the two base images that docker-compose.yml and deploy/Dockerfile name, where no image can be pulled but Debian's
# packages can be had:
#   python:3.13-slim-trixie   Debian 13 with its Python 3.13, pip and certificates
#   postgres:17.10            Debian 13 with its PostgreSQL 17, and an entrypoint that does what this project needs of the
#                             official one: POSTGRES_DB, POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE,
#                             POSTGRES_INITDB_ARGS, PGDATA, the files of /docker-entrypoint-initdb.d, scram over TCP
# The official images are the better ones wherever they can be pulled: these carry whatever PostgreSQL 17 and Python 3.13
# Debian has today under the official tags.
#
# Needs Debian, root, a Docker engine, and debootstrap (apt-get install docker.io debootstrap). It keeps the images that are
# there, unless --fresh is given. Mirror, certificates and pip's settings are those of the machine, read when it runs; MIRROR
# names another Debian mirror, WORK another folder to work in.
set -euo pipefail

WORK=${WORK:-/var/tmp/base-images}
SUITE=trixie
PYTHON_IMAGE=python:3.13-slim-trixie
POSTGRES_IMAGE=postgres:17.10
MIRROR=${MIRROR:-$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null | grep -v security | head -n1)}
MIRROR=${MIRROR:-$(sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' /etc/apt/sources.list 2>/dev/null | head -n1)}
[ -n "$MIRROR" ] || { echo "No Debian mirror is in /etc/apt: name one in MIRROR." >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "debootstrap needs root." >&2; exit 1; }
for program in docker debootstrap; do
    command -v "$program" >/dev/null || { echo "$program is not installed: apt-get install docker.io debootstrap" >&2; exit 1; }
done
docker info >/dev/null 2>&1 || { echo "No Docker engine answers." >&2; exit 1; }

fresh=
[ "${1:-}" = --fresh ] && fresh=1

have() { [ -z "$fresh" ] && docker image inspect "$1" >/dev/null 2>&1; }

# A root file system of minimal Debian with the packages of $2 (comma separated), in $WORK/$1.
rootfs() {
    local root=$WORK/$1 packages=$2
    rm -rf "$root"
    mkdir -p "$root" "$WORK/debs"
    echo "debootstrap $SUITE ($packages)"
    debootstrap --variant=minbase --cache-dir="$WORK/debs" --include="$packages" "$SUITE" "$root" "$MIRROR" \
        >"$WORK/$1.log" 2>&1 || { tail -n 20 "$WORK/$1.log"; exit 1; }
    # This machine's own CAs, such as that of a proxy, among the image's.
    mkdir -p "$root/usr/local/share/ca-certificates"
    cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
    chroot "$root" update-ca-certificates >/dev/null 2>&1
    # As in the official images: no service starts when a package is installed in a build.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/* "$root"/tmp/*
    rm -f "$root/etc/resolv.conf" "$root/etc/hostname"  # Docker brings its own
}

# What this machine tells pip (index, proxy, time-outs), as /etc/pip.conf of the image. Paths of this machine's disk stay out.
pip_settings() {
    {
        echo '[global]'
        echo 'cert = /etc/ssl/certs/ca-certificates.crt'
        python3 -m pip config list 2>/dev/null |
            sed -n "s/^\(global\|:env:\)\.\(index-url\|proxy\|trusted-host\|default-timeout\|timeout\|retries\)='\(.*\)'\$/\2 = \3/p" |
            sed 's/^default-timeout/timeout/' | sort -u -t= -k1,1
    } >"$1"
}

if have "$PYTHON_IMAGE"; then
    echo "$PYTHON_IMAGE is there"
else
    rootfs python python3,python3-venv,ca-certificates,netbase,tzdata
    root=$WORK/python
    # As in the official image: python and pip in /usr/local, and no package there but pip. Debian's own pip refuses to
    # replace what Debian has installed.
    chroot "$root" python3 -m venv /usr/local
    pip_settings "$root/etc/pip.conf"
    tar -C "$root" --numeric-owner -c . | docker import \
        --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin LANG=C.UTF-8' \
        --change 'CMD ["python3"]' - "$PYTHON_IMAGE" >/dev/null
    echo "$PYTHON_IMAGE: $(docker run --rm "$PYTHON_IMAGE" python --version), $(docker run --rm "$PYTHON_IMAGE" pip --version | cut -d' ' -f1-2)"
fi

if have "$POSTGRES_IMAGE"; then
    echo "$POSTGRES_IMAGE is there"
else
    rootfs postgres postgresql-17,ca-certificates,netbase,tzdata,util-linux,locales
    root=$WORK/postgres
    rm -rf "$root"/var/lib/postgresql/17 "$root"/etc/postgresql/17  # Debian's own cluster
    # The official image's user and group, so that its volumes and these can be exchanged.
    chroot "$root" groupmod -g 999 postgres 2>/dev/null || true
    chroot "$root" usermod -u 999 -g 999 -d /var/lib/postgresql postgres
    install -d -m 755 "$root/docker-entrypoint-initdb.d"
    install -d -m 1777 "$root/var/lib/postgresql/data"
    chroot "$root" chown -R postgres:postgres /var/lib/postgresql
    chroot "$root" install -d -o postgres -g postgres -m 3777 /var/run/postgresql
    cat >"$root/usr/local/bin/docker-entrypoint.sh" <<'ENTRYPOINT'
#!/bin/bash
# What this project needs of the official postgres image's entrypoint, in the same order.
set -Eeo pipefail

if [ "${1:0:1}" = - ]; then set -- postgres "$@"; fi
if [ "$1" != postgres ]; then exec "$@"; fi

# Before root is given up: a file on the host may be root's alone.
if [ -n "$POSTGRES_PASSWORD_FILE" ]; then
    POSTGRES_PASSWORD=$(<"$POSTGRES_PASSWORD_FILE")
    export POSTGRES_PASSWORD
    unset POSTGRES_PASSWORD_FILE
fi

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA"
    find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
    chown postgres /var/run/postgresql && chmod 3775 /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$BASH_SOURCE" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    user=${POSTGRES_USER:-postgres}
    db=${POSTGRES_DB:-$user}
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
        echo >&2 "Error: Database is uninitialized and superuser password is not specified."
        exit 1
    fi
    eval "initdb --username=\"\$user\" --pwfile=<(printf '%s\n' \"\$POSTGRES_PASSWORD\") $POSTGRES_INITDB_ARGS"
    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
    # Not by TCP before all is made: whoever waits for the port waits for the databases.
    PGUSER=$user pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p 5432" -w start
    run=(psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$user" --no-password)
    if [ "$db" != postgres ]; then
        PGHOST= "${run[@]}" --dbname postgres --set db="$db" <<<'CREATE DATABASE :"db";'
    fi
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
            *.sh) . "$file" ;;
            *.sql) echo "running $file"; PGHOST= "${run[@]}" --dbname "$db" -f "$file" ;;
        esac
    done
    PGUSER=$user pg_ctl -D "$PGDATA" -m fast -w stop
    echo; echo 'PostgreSQL init process complete; ready for start up.'; echo
fi
unset POSTGRES_PASSWORD
exec "$@"
ENTRYPOINT
    chmod 755 "$root/usr/local/bin/docker-entrypoint.sh"
    # The official image's postgresql.conf listens on all addresses.
    echo "listen_addresses = '*'" >>"$root/usr/share/postgresql/17/postgresql.conf.sample"
    tar -C "$root" --numeric-owner -c . | docker import - base-images:postgres >/dev/null
    # SIGINT is Postgres's fast shutdown, as the official image has it; `docker import` cannot set it.
    docker build --quiet --tag "$POSTGRES_IMAGE" - >/dev/null <<'DOCKERFILE'
FROM base-images:postgres
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/lib/postgresql/17/bin:/usr/bin:/usr/sbin:/bin:/sbin LANG=C.UTF-8
ENV PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
DOCKERFILE
    echo "$POSTGRES_IMAGE: $(docker run --rm --entrypoint postgres "$POSTGRES_IMAGE" --version)"
fi
docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep -E "^(${PYTHON_IMAGE/./\\.}|$POSTGRES_IMAGE) "

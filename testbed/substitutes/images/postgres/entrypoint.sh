#!/bin/sh
# shellcheck disable=SC1090,SC1091,SC2154
# As the official image: an empty PGDATA gets a cluster with the user, password and database of POSTGRES_*, and what is
# in /docker-entrypoint-initdb.d is run in it, before the server listens.
set -e
umask 077

# A variable, or the content of the file that NAME_FILE names.
value() {
    eval "file=\${$1_FILE:-} value=\${$1:-$2}"
    if [ -n "$file" ]; then cat "$file"; else printf %s "$value"; fi
}

initialise() {
    user=$(value POSTGRES_USER postgres)
    database=$(value POSTGRES_DB "$user")
    password=$(value POSTGRES_PASSWORD '')
    method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    if [ -z "$password" ] && [ "$method" != trust ]; then
        echo "postgres: POSTGRES_PASSWORD is not set; set it, or POSTGRES_HOST_AUTH_METHOD=trust" >&2
        exit 1
    fi
    printf '%s\n' "$password" > /tmp/password
    # shellcheck disable=SC2086  # arguments, as the image's users write them
    if [ -n "$password" ]; then
        initdb --username="$user" --pwfile=/tmp/password ${POSTGRES_INITDB_ARGS:-} > /dev/null
    else
        initdb --username="$user" ${POSTGRES_INITDB_ARGS:-} > /dev/null
    fi
    rm /tmp/password
    printf '\nhost all all all %s\n' "$method" >> "$PGDATA/pg_hba.conf"
    sed -i "s/^#listen_addresses.*/listen_addresses = '*'/" "$PGDATA/postgresql.conf"
    PGUSER=$user PGPASSWORD=$password
    export PGUSER PGPASSWORD
    pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p ${PGPORT:-5432}" -w start > /dev/null
    [ "$database" = postgres ] || createdb --maintenance-db=postgres "$database"
    POSTGRES_USER=$user POSTGRES_DB=$database
    export POSTGRES_USER POSTGRES_DB
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
        *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
        *.sql) psql -v ON_ERROR_STOP=1 --no-psqlrc --dbname "$database" -f "$file" ;;
        *.sql.gz) gzip -dc "$file" | psql -v ON_ERROR_STOP=1 --no-psqlrc --dbname "$database" ;;
        esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop > /dev/null
    unset PGUSER PGPASSWORD
}

case "${1:-}" in
-*) set -- postgres "$@" ;;
esac
if [ "$1" = postgres ]; then
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$PGDATA" /var/run/postgresql
        chown -R postgres:postgres "$PGDATA" /var/run/postgresql
        chmod 700 "$PGDATA"
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
    fi
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA" || :
    [ -s "$PGDATA/PG_VERSION" ] || initialise
fi
exec "$@"

#!/bin/sh
# shellcheck disable=SC1090,SC1091,SC2154
# As the official image: an empty /var/lib/mysql gets a database with the users and passwords of MARIADB_* or MYSQL_*,
# and what is in /docker-entrypoint-initdb.d is run in it, before the server listens.
set -e
DATA=/var/lib/mysql SOCKET=/run/mysqld/mysqld.sock

# A variable of either name, or the content of the file that it names with _FILE.
value() {
    eval "file=\${MARIADB_$1_FILE:-\${MYSQL_$1_FILE:-}} value=\${MARIADB_$1:-\${MYSQL_$1:-}}"
    if [ -n "$file" ]; then cat "$file"; else printf %s "$value"; fi
}

# Text in quotation marks of SQL.
quoted() { printf "'"; printf %s "$1" | sed "s/[\\\\']/\\\\&/g"; printf "'"; }

initialise() {
    root=$(value ROOT_PASSWORD)
    if [ -n "$(value RANDOM_ROOT_PASSWORD)" ]; then
        root=$(head -c 24 /dev/urandom | base64)
        echo "mariadb: GENERATED ROOT PASSWORD: $root" >&2
    fi
    empty="$(value ALLOW_EMPTY_ROOT_PASSWORD)$(value ALLOW_EMPTY_PASSWORD)"
    if [ -z "$root$empty" ]; then
        echo "mariadb: set MARIADB_ROOT_PASSWORD, MARIADB_ALLOW_EMPTY_ROOT_PASSWORD or MARIADB_RANDOM_ROOT_PASSWORD" >&2
        exit 1
    fi
    mariadb-install-db --datadir="$DATA" --skip-test-db --auth-root-authentication-method=normal > /dev/null
    database=$(value DATABASE) user=$(value USER) password=$(value PASSWORD)
    asks=$(head -c 24 /dev/urandom | base64)
    (umask 077 && printf '[client]\nprotocol=tcp\nuser=healthcheck\npassword="%s"\n' "$asks" \
        > "$DATA/.my-healthcheck.cnf")
    mariadbd --skip-networking --socket="$SOCKET" &
    server=$!
    until mariadb --socket="$SOCKET" -u root -e 'SELECT 1' > /dev/null 2>&1; do
        kill -0 "$server" 2> /dev/null || exit 1
        sleep 0.1
    done
    {
        printf 'DELETE FROM mysql.global_priv WHERE user = "" OR host NOT IN ("localhost");\nFLUSH PRIVILEGES;\n'
        printf 'ALTER USER root@localhost IDENTIFIED BY %s;\n' "$(quoted "$root")"
        printf 'CREATE USER root@"%%" IDENTIFIED BY %s;\n' "$(quoted "$root")"
        printf 'GRANT ALL ON *.* TO root@"%%" WITH GRANT OPTION;\n'
        for host in localhost 127.0.0.1 ::1; do
            printf 'CREATE USER healthcheck@"%s" IDENTIFIED BY "%s";\n' "$host" "$asks"
        done
        # shellcheck disable=SC2016  # marks of SQL
        [ -z "$database" ] || printf 'CREATE DATABASE IF NOT EXISTS `%s`;\n' "$database"
        if [ -n "$user" ]; then
            printf 'CREATE USER %s@"%%" IDENTIFIED BY %s;\n' "$(quoted "$user")" "$(quoted "$password")"
            # shellcheck disable=SC2016
            [ -z "$database" ] || printf 'GRANT ALL ON `%s`.* TO %s@"%%";\n' "$database" "$(quoted "$user")"
        fi
    } | mariadb --socket="$SOCKET" -u root
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
        *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
        *.sql) mariadb --socket="$SOCKET" -u root --password="$root" "$database" < "$file" ;;
        *.sql.gz) gzip -dc "$file" | mariadb --socket="$SOCKET" -u root --password="$root" "$database" ;;
        esac
    done
    kill "$server"
    wait "$server" || :
}

case "${1:-}" in
-*) set -- mariadbd "$@" ;;
mysqld) shift && set -- mariadbd "$@" ;;
esac
if [ "$1" = mariadbd ]; then
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$DATA" /run/mysqld
        chown -R mysql:mysql "$DATA" /run/mysqld
        exec setpriv --reuid=mysql --regid=mysql --init-groups "$0" "$@"
    fi
    [ -d "$DATA/mysql" ] || initialise
fi
exec "$@"

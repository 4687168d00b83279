#!/bin/sh
# As the official image's: each option is a test of the server, and all of them have to pass. It asks by TCP, as a user
# without rights whom entrypoint.sh made together with the database.
set -e

ask() { mariadb --defaults-extra-file=/var/lib/mysql/.my-healthcheck.cnf --skip-column-names --batch -e "$1"; }

[ $# -gt 0 ] || { echo 'healthcheck.sh: name a test, such as --connect' >&2 && exit 1; }
for test in "$@"; do
    case $test in
    --connect) ask 'SELECT 1' > /dev/null ;;
    --innodb_initialized)
        ask "SELECT support FROM information_schema.ENGINES WHERE engine = 'InnoDB'" | grep -qx 'YES\|DEFAULT'
        ;;
    *) echo "healthcheck.sh: $test is none of this substitute's tests: --connect, --innodb_initialized" >&2 && exit 1 ;;
    esac
done

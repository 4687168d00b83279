#!/bin/sh
# shellcheck disable=SC1091
# Runs Apache as the first process, with the folders that it needs.
set -e
. /etc/apache2/envvars
mkdir -p /run/lock "$APACHE_RUN_DIR"
mkdir -p "$APACHE_LOCK_DIR"
rm -f "$APACHE_PID_FILE"
exec apache2 -DFOREGROUND "$@"

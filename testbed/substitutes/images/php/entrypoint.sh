#!/bin/sh
# As the official image: options alone are php's.
set -e
case "${1:-}" in
-*) set -- php "$@" ;;
esac
exec "$@"

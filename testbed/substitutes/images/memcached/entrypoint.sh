#!/bin/sh
# As the official image: options alone are the server's.
set -e
case "${1:-}" in
-*) set -- memcached "$@" ;;
esac
exec "$@"

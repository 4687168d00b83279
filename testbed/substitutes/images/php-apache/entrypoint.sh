#!/bin/sh
# shellcheck disable=SC1090,SC1091,SC2154
# As the official image: options alone are the server's.
set -e
case "${1:-}" in
-*) set -- apache2-foreground "$@" ;;
esac
exec "$@"

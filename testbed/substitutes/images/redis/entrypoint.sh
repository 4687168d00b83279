#!/bin/sh
# As the official image: options alone are the server's, which does not run as root, and whom other hosts may ask.
set -e
case "${1:-}" in
-* | *.conf) set -- redis-server "$@" ;;
esac
if [ "$1" = redis-server ]; then
    shift
    case "${1:-}" in
    *.conf)
        configuration=$1
        shift
        set -- redis-server "$configuration" "$@"
        ;;
    *) set -- redis-server --protected-mode no "$@" ;;
    esac
    if [ "$(id -u)" = 0 ]; then
        find . \! -user redis -exec chown redis:redis {} +
        exec setpriv --reuid=redis --regid=redis --init-groups "$@"
    fi
fi
exec "$@"

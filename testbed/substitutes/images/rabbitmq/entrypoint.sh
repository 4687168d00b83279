#!/bin/sh
# As the official image: the user, password and virtual host of RABBITMQ_DEFAULT_*, and a server that is not root's.
set -e
CONFIGURATION=/etc/rabbitmq/conf.d/10-defaults.conf

if [ "${1:-}" = rabbitmq-server ]; then
    if [ "$(id -u)" = 0 ]; then
        chown -R rabbitmq:rabbitmq /var/lib/rabbitmq /var/log/rabbitmq # which are mounts of the host's, often
        exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$0" "$@"
    fi
    if [ ! -e "$CONFIGURATION" ]; then
        {
            echo 'loopback_users.guest = false'
            echo 'log.console = true'
            [ -z "${RABBITMQ_DEFAULT_USER:-}" ] || echo "default_user = $RABBITMQ_DEFAULT_USER"
            [ -z "${RABBITMQ_DEFAULT_PASS:-}" ] || echo "default_pass = $RABBITMQ_DEFAULT_PASS"
            [ -z "${RABBITMQ_DEFAULT_VHOST:-}" ] || echo "default_vhost = $RABBITMQ_DEFAULT_VHOST"
        } > "$CONFIGURATION"
    fi
    # The distribution's command asks who calls it; the server itself does not.
    shift
    set -- /usr/lib/rabbitmq/bin/rabbitmq-server "$@"
fi
exec "$@"

#!/bin/sh
# shellcheck disable=SC1090,SC1091,SC2154
# As the official image: templates become configuration, and scripts beside are run, before nginx starts.
set -e
case "$1" in nginx | nginx-debug)
    for template in /etc/nginx/templates/*.template; do
        [ -e "$template" ] || continue
        # Only variables that there are, for nginx has some of its own.
        names=$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/${\1}/p')
        name=${template##*/}
        envsubst "$names" < "$template" > "/etc/nginx/conf.d/${name%.template}"
    done
    for script in /docker-entrypoint.d/*; do
        case $script in
        *.envsh) [ ! -x "$script" ] || . "$script" ;;
        *.sh) [ ! -x "$script" ] || "$script" ;;
        esac
    done
    ;;
esac
exec "$@"

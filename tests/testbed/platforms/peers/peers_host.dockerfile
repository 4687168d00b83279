# A Debian with systemd, whose cgroups are version 2 alone, and the peers that it has packages of: the host on which
# tests/testbed/platforms/peers/peer_checks.py runs.
FROM testbed/base

ARG DEBIAN_FRONTEND=noninteractive

# What apt fetched and logged goes in the same layer that made it, or the image would carry it.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bubblewrap crun dbus iproute2 lxc podman python3 python3-yaml runc \
        systemd-container systemd-sysv \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache \
           /var/log/apt /var/log/dpkg.log /var/log/alternatives.log

COPY runtime /usr/lib/python3/dist-packages/runtime
COPY msgspec /usr/lib/python3/dist-packages/msgspec

# Compiled now, and never looked at whether a source is newer: the host's root is made anew at every start.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3/dist-packages/runtime \
           /usr/lib/python3/dist-packages/msgspec

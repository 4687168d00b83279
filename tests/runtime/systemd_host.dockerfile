# A Debian with systemd, its users' buses, AppArmor, podman, runc, a registry, and this checkout's container runtime: the
# host on which tests/runtime/systemd_checks.py runs.
FROM testbed/base

ARG DEBIAN_FRONTEND=noninteractive

# What apt fetched and logged goes in the same layer that made it, or the image would carry it.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends apparmor dbus dbus-user-session docker-registry libpam-systemd podman \
        python3 runc slirp4netns systemd-sysv uidmap \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache \
           /var/log/apt /var/log/dpkg.log /var/log/alternatives.log

# The user has a manager of its own, logged in or not; the guest has none.
RUN useradd --create-home --uid 1000 user \
 && useradd --create-home --uid 1001 guest \
 && mkdir --parents /var/lib/systemd/linger \
 && touch /var/lib/systemd/linger/user

COPY runtime /usr/lib/python3/dist-packages/runtime
COPY msgspec /usr/lib/python3/dist-packages/msgspec

# Compiled now, and never looked at whether a source is newer: the host's root is made anew at every start.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3/dist-packages/runtime \
           /usr/lib/python3/dist-packages/msgspec \
 && python3 -c 'import msgspec' \
 && ln -s ../lib/python3/dist-packages/runtime/launcher/testbed-launcher /usr/bin/testbed-runtime

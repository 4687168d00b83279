# The host system inside a guest that is a host of containers: the minimal Debian that the application's images
# stand on too, an interpreter, and this checkout's container runtime.
FROM testbed/base

ARG DEBIAN_FRONTEND=noninteractive

# What apt fetched and logged goes in the same layer that made it, or the image would carry it.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache \
           /var/log/apt /var/log/dpkg.log /var/log/alternatives.log

# msgspec has a part compiled for one version of Python, that of the host's .venv; the import below tells if it is not
# this system's.
COPY runtime /usr/lib/python3/dist-packages/runtime
COPY msgspec /usr/lib/python3/dist-packages/msgspec

# Compiled now, and never looked at whether a source is newer: the guest's root is made anew at every start.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3/dist-packages/runtime \
           /usr/lib/python3/dist-packages/msgspec \
 && python3 -c 'import msgspec' \
 && ln -s ../lib/python3/dist-packages/runtime/launcher/testbed-launcher /usr/bin/testbed-runtime

# The reference machine's system with Xen: its tools, libvirt's driver for it, and a kernel that can be its domain 0.
FROM testbed/reference

ARG DEBIAN_FRONTEND=noninteractive

# The kernel for domain 0 is unpacked beside the machine's own, which is Debian's for clouds and cannot be one.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libvirt-daemon libvirt-daemon-driver-xen xen-system-amd64 \
 && cd /tmp \
 && apt-get -o APT::Sandbox::User=root download \
           "$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)" \
 && mkdir /usr/lib/dom0 \
 && dpkg-deb --extract linux-image-*.deb /usr/lib/dom0 \
 && rm linux-image-*.deb \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache \
           /var/log/apt /var/log/dpkg.log /var/log/alternatives.log

# libvirt's driver does not start where the processor is none that it knows, and it knows none without the extensions
# of virtual-8086 mode (vme), which QEMU's translator does not emulate.
RUN sed -i "/<feature name='vme'\/>/d" /usr/share/libvirt/cpu_map/*.xml

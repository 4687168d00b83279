# The reference machine's system: Debian 13 with QEMU, libvirt's driver for it, a kernel with KVM, and this checkout.
# It is used twice: its QEMU emulates the machine, and the machine, once emulated, has it as its root. Booted under Xen, or
# with VirtualBox in KVM's place, it has the stage of that name besides.
ARG SYSTEM=kvm

FROM testbed/base:trixie AS kvm

ARG DEBIAN_FRONTEND=noninteractive

# The QEMU that emulates the machine: the distribution's source with some faults less (reference.patch), and no
# device that the machine has not. What it was built with is not kept.
COPY qemu /tmp/qemu
RUN sed -i 's/^Types: deb$/Types: deb deb-src/' /etc/apt/sources.list.d/base.sources \
 && apt-get update \
 && deps="dpkg-dev gcc libc6-dev libglib2.0-dev meson ninja-build patch pkgconf python3-setuptools python3-venv xz-utils zlib1g-dev" \
 && before="$(apt-mark showmanual)" \
 && apt-get install --yes --no-install-recommends $deps \
 && mkdir /tmp/build && cd /tmp/build \
 && apt-get -o APT::Sandbox::User=root source --only-source qemu >/dev/null \
 && cd qemu-*/ \
 && patch --strip=1 </tmp/qemu/reference.patch \
 && cp /tmp/qemu/reference.mak configs/devices/x86_64-softmmu/ \
 && mkdir build && cd build \
 && ../configure --target-list=x86_64-softmmu --without-default-features --without-default-devices \
           --with-devices-x86_64=reference --enable-tcg --disable-debug-info --disable-docs \
           --disable-download --disable-guest-agent --disable-install-blobs --disable-tools \
           --with-pkgversion=testbed >/dev/null \
 && ninja --quiet qemu-system-x86_64 \
 && strip qemu-system-x86_64 \
 && install -D --target-directory=/usr/lib/testbed-qemu qemu-system-x86_64 \
 && ./qemu-system-x86_64 --version | head -n 1 >/usr/lib/testbed-qemu/qemu-system-x86_64.version \
 && cd / && rm -rf /tmp/build /tmp/qemu \
 && apt-mark auto '.*' >/dev/null && apt-mark manual $before >/dev/null \
 && apt-get purge --yes --auto-remove -o APT::AutoRemove::RecommendsImportant=false \
           -o APT::AutoRemove::SuggestsImportant=false \
 && sed -i 's/^Types: deb deb-src$/Types: deb/' /etc/apt/sources.list.d/base.sources \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache \
           /var/log/apt /var/log/dpkg.log /var/log/alternatives.log

# The kernel is unpacked, not installed: nobody boots this system by a boot loader, so it needs no initial RAM disk.
# What apt fetched and logged goes in the same layer that made it, or the image would carry it.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends busybox-static criu e2fsprogs erofs-utils iproute2 \
           kmod libvirt-daemon-driver-qemu python3 python3-libvirt qemu-system-x86 qemu-utils \
 && cd /tmp \
 && apt-get -o APT::Sandbox::User=root download \
           "$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)" \
 && dpkg-deb --extract linux-image-*.deb / \
 && rm linux-image-*.deb \
 && depmod "$(ls /lib/modules)" \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache \
           /var/log/apt /var/log/dpkg.log /var/log/alternatives.log

# libvirt's QEMU driver refuses to open without the account that it would run system machines as.
RUN getent group kvm >/dev/null || groupadd --system kvm; \
    getent group libvirt-qemu >/dev/null || groupadd --system libvirt-qemu; \
    getent passwd libvirt-qemu >/dev/null || useradd --system --gid kvm --groups libvirt-qemu \
           --home-dir /var/lib/libvirt --no-create-home --shell /usr/sbin/nologin libvirt-qemu

# Debian's Xen, its tools, libvirt's driver for it, and a kernel that can be its domain 0: unpacked beside the machine's
# own, which is Debian's for clouds and cannot.
FROM kvm AS xen
ARG DEBIAN_FRONTEND=noninteractive

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

# VirtualBox, which only Debian unstable has: its kernel's modules, with the kernel that they are built for, as Debian has
# headers only of the newest, which the machine's own need not be; and of its programs those of machines without a screen.
FROM testbed/base:trixie AS virtualbox-files
ARG DEBIAN_FRONTEND=noninteractive

# Nothing is taken from unstable unless it is asked for.
RUN sed '/^$/,$d; s/^Suites: .*/Suites: sid/; s/^Components: .*/Components: main contrib/' \
        /etc/apt/sources.list.d/base.sources >/etc/apt/sources.list.d/unstable.sources \
 && printf 'Package: *\nPin: release a=unstable\nPin-Priority: 50\n' >/etc/apt/preferences.d/unstable

RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev linux-headers-cloud-amd64 make \
 && mkdir -p /tmp/packages /out/usr/bin /out/usr/lib/virtualbox-kernel && cd /tmp/packages \
 && apt-get -o APT::Sandbox::User=root download virtualbox/unstable virtualbox-dkms/unstable \
 && dpkg-deb --extract virtualbox-dkms_*.deb / \
 && release="$(ls /lib/modules)" \
 && cd /usr/src/virtualbox-[0-9]* \
 && make --silent -C "/lib/modules/$release/build" M="$PWD" modules \
 && install -D --mode=644 --target-directory="/lib/modules/$release/updates" vboxdrv/vboxdrv.ko vboxnetflt/vboxnetflt.ko \
 && strip --strip-debug "/lib/modules/$release"/updates/*.ko \
 && rm "/lib/modules/$release/build" "/lib/modules/$release/source" \
 && depmod "$release" \
 && cp "/boot/vmlinuz-$release" /out/usr/lib/virtualbox-kernel/ \
 && cp -a --parents "/usr/lib/modules/$release" /out/ \
 && dpkg-deb --fsys-tarfile /tmp/packages/virtualbox_*.deb \
  | tar --extract --directory=/out --exclude='VBoxEFI-*' --exclude='VBoxVMMArm*' --exclude='VBoxDxVk*' \
        --exclude='VBoxSDL*' --exclude='VBoxSVGA3D*' --exclude='VBoxKeyboard*' --exclude='VBoxSharedClipboard*' \
        --exclude='VBoxVRDP*' --exclude='VBoxPython*' --exclude='*xpcom.so' --exclude='*web*' \
        --exclude=ExtensionPacks --exclude=sdk ./usr/lib/virtualbox \
 && ln -s ../lib/virtualbox/VBoxManage ../lib/virtualbox/VBoxHeadless /out/usr/bin/ \
 && dpkg-deb --field /tmp/packages/virtualbox_*.deb Depends | tr , '\n' | sed -n 's/^ *\(z\?lib[^ ]*\).*/\1/p' \
  | grep --invert-match '^lib\(gl1\|gsoap\|sdl\|vncserver\|x11\|xt\)' >/out/usr/lib/virtualbox/libraries

# The programs are unpacked, not installed: they would bring a desktop and another Python. From unstable come the libraries
# that they depend on. grub-mkimage makes what a guest's disk boots by.
FROM kvm AS virtualbox
ARG DEBIAN_FRONTEND=noninteractive

COPY --from=virtualbox-files /etc/apt /etc/apt
COPY --from=virtualbox-files /out /
RUN apt-get update \
 && apt-get install --yes --no-install-recommends grub-common grub-pc-bin \
 && apt-get install --yes --no-install-recommends --target-release unstable $(cat /usr/lib/virtualbox/libraries) \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache \
           /var/log/apt /var/log/dpkg.log /var/log/alternatives.log \
 && cd /usr/lib/virtualbox \
 && VBOX_USER_HOME=/tmp/settings VBoxManage --version && rm -rf /tmp/settings \
 && missing="$(ldd VBoxHeadless.so VBoxManage VBoxSVC VBoxVMM.so VBoxDD.so components/*.so | sed -n '/not found/p')" \
 && if [ -n "$missing" ]; then echo "$missing"; exit 1; fi

FROM ${SYSTEM}
ARG DEBIAN_FRONTEND=noninteractive

# Compiled now, and never looked at whether a source is newer: the machine's root is made anew at every start.
COPY packages /usr/lib/testbed
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/testbed \
 && cd /usr/lib/testbed && python3 -c 'import hdrh, httptools, libvirt, msgspec, pycdlib, yaml'

COPY source /usr/lib/testbed
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/testbed/runtime /usr/lib/testbed/testbed \
           /usr/lib/testbed/vm_images

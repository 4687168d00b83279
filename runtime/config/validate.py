"""Check what types cannot express: values that exclude each other, unknown names, features that this host lacks."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from runtime.config import mount_options
from runtime.config.decode import Warn, no_warning, short
from runtime.config.process import Capabilities, Process
from runtime.config.types import Config, Hook, IDMapping, Mount
from runtime.errors import UsageError
from runtime.kernel_files import parse_fields
from runtime.plan.constants import ALL_CAPABILITIES, CAPABILITIES

NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
# A file name has at most 255 bytes, and the longest name made from an id is that of its scope.
_LONGEST_ID = 255 - len("testbed-runtime-.scope")
_ID = re.compile(rf"[A-Za-z0-9_+.-]{{1,{_LONGEST_ID}}}")
_LONGEST_PATH = 3072  # bytes of a cgroup's path; the kernel takes 4096, which include the mount point and a file's name
_ALL_IDS = (1 << 32) - 1
# Files of /proc over which lxcfs and engines mount a container's own view (runc, libcontainer/rootfs_linux.go).
_PROC_FILES = ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
               "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled")  # fmt: skip
_SYSCTL_NAMESPACE = (
    (re.compile(r"kernel\.(msg|sem$|shm)|fs\.mqueue\."), "ipc"),
    (re.compile(r"net\."), "network"),
    (re.compile(r"kernel\.domainname$"), "uts"),
)


class Host(Struct, frozen=True):
    """Which security modules this host has, and which capabilities (a mask) this process has."""

    apparmor: bool
    selinux: bool
    resctrl: bool
    capabilities: int = ALL_CAPABILITIES
    moves_devices: bool = True

    @classmethod
    def read(cls, pid: int) -> Host:
        """Ask the kernel; the capabilities are the process ``pid``'s."""
        return cls(
            Path("/sys/module/apparmor/parameters/enabled").exists()
            and Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y"),
            Path("/sys/fs/selinux/enforce").exists(),
            os.path.ismount("/sys/fs/resctrl"),
            held_capabilities(pid),
            os.geteuid() == 0,
        )

    def grantable(self, config: Config) -> int:
        """Return the capabilities that we can grant to the container: all of them in a user namespace, else our own."""
        in_another = any(namespace.type == "user" for namespace in config.linux.namespaces)
        return ALL_CAPABILITIES if in_another else self.capabilities


def held_capabilities(pid: int) -> int:
    """Return the capabilities (a mask) that a process has and may pass on (capabilities(7))."""
    lines = parse_fields(Path(f"/proc/{pid}/status").read_text())
    return int(lines["CapPrm"], 16) & int(lines["CapBnd"], 16)


def is_id(text: str) -> bool:
    """Return whether ``text`` can be the name of a container."""
    return bool(_ID.fullmatch(text)) and text not in (".", "..")


def check_id(container_id: str) -> None:
    """Raise UsageError unless it can be the name of a container, which a directory and a cgroup get."""
    if not is_id(container_id):
        raise UsageError(
            f"container id {_cut(container_id)}: not a name",
            f"use letters, digits and _ + . -, at most {_LONGEST_ID} of them",
        )


def _fail(place: str, why: str, hint: str = "") -> None:
    raise UsageError(f"config.json: {place}: {why}", hint)


def _cut(text: str) -> str:
    return f"'{short(text)}'"


def validate(config: Config, host: Host, warn: Warn = no_warning) -> None:
    """Raise UsageError naming the first field that cannot be applied. ``warn`` is called for what is left out."""
    _namespaces(config)
    _identity(config)
    for index, mount in enumerate(config.mounts):
        _mount(f"mounts[{index}]", mount, bool(config.linux.uid_mappings))
    _hooks(config)
    _linux(config, host)
    if config.process is not None:
        validate_process(config.process, host, host.grantable(config), warn)


def _namespaces(config: Config) -> None:
    seen = set()
    for index, namespace in enumerate(config.linux.namespaces):
        place = f"linux.namespaces[{index}]"
        if namespace.type not in NAMESPACES:
            _fail(f"{place}.type", f"no namespace is called {namespace.type!r}", f"one of {', '.join(NAMESPACES)}")
        if namespace.type in seen:
            _fail(f"{place}.type", f"{namespace.type} is there twice")
        if namespace.path and not namespace.path.startswith("/"):
            _fail(f"{place}.path", f"{namespace.path!r} is not absolute")
        if namespace.type == "mount" and namespace.path and _holds_host(namespace.path):
            _fail(f"{place}.path", f"{namespace.path} is the host's mount namespace, whose root would be exchanged",
                  "leave the namespace out of the list: the container inherits it then")  # fmt: skip
        seen.add(namespace.type)
    if "mount" not in seen:
        _inherited_mounts(config, "user" in seen)


def _holds_host(path: str) -> bool:
    """Return whether the mount namespace at ``path`` is ours or that of process 1. One that we may not see is not."""
    for own in ("/proc/self/ns/mnt", "/proc/1/ns/mnt"):
        with suppress(OSError):
            if os.path.samefile(path, own):
                return True
    return False


def _inherited_mounts(config: Config, mapped: bool) -> None:
    """Raise UsageError if a container in the caller's mount namespace is to mount something: that would be mounted on
    the host, and stay there. Such a container only changes its root directory (chroot)."""
    linux, process = config.linux, config.process
    mounting = {
        "mounts": bool(config.mounts),
        "root.readonly": config.root.readonly,
        "linux.maskedPaths": bool(linux.masked_paths),
        "linux.readonlyPaths": bool(linux.readonly_paths),
        "linux.rootfsPropagation": bool(linux.rootfs_propagation),
        "linux.namespaces: user": mapped,  # its devices would be mounts
        "process.terminal": process is not None and process.terminal,
    }
    for place, asked in mounting.items():
        if asked:
            _fail(place, "there is no mount namespace of the container's own, so it would change the host's mounts",
                  "add {\"type\": \"mount\"} to linux.namespaces")  # fmt: skip


def _identity(config: Config) -> None:
    kinds = {namespace.type: namespace.path for namespace in config.linux.namespaces}
    for name, value in (("hostname", config.hostname), ("domainname", config.domainname)):
        if value and "uts" not in kinds:
            _fail(name, "set without a uts namespace, it would become the host's")
        if len(value.encode()) > 64:
            _fail(name, "longer than 64 bytes, the kernel's limit")
    mappings = (config.linux.uid_mappings, config.linux.gid_mappings)
    if any(mappings) and kinds.get("user", "absent"):
        _fail("linux.uidMappings", "mappings are for a new user namespace, and there is none")
    if kinds.get("user") == "" and not all(mappings):
        _fail("linux.uidMappings", "a new user namespace needs a mapping of user ids and one of group ids")
    _mappings("linux.uidMappings", (*mappings[0], *mappings[1]))
    if config.linux.time_offsets and kinds.get("time", "absent"):
        _fail("linux.timeOffsets", "offsets are for a new time namespace, and there is none")
    for clock in config.linux.time_offsets:
        if clock not in ("monotonic", "boottime"):
            _fail(f"linux.timeOffsets.{clock}", "only monotonic and boottime have offsets")
    for name in config.linux.sysctl:
        needed = find_namespace(name)
        if not needed:
            _fail(f"linux.sysctl.{name}", "belongs to the whole kernel, not to a namespace")
        if needed not in kinds:
            _fail(f"linux.sysctl.{name}", f"needs a {needed} namespace, or it would change the host")


def find_namespace(sysctl: str) -> str:
    """Return which kind of namespace a setting of the kernel's belongs to; empty for one of the whole kernel's."""
    if ".." in sysctl:
        return ""
    return next((kind for pattern, kind in _SYSCTL_NAMESPACE if pattern.match(sysctl.replace("/", "."))), "")


def _mappings(place: str, mappings: Sequence[IDMapping]) -> None:
    for mapping in mappings:
        if mapping.size < 1:
            _fail(place, f"a mapping of {mapping.size} ids")
        first = max(mapping.container_id, mapping.host_id)
        if first + mapping.size > _ALL_IDS:
            _fail(place, f"{mapping.size} ids from {first} on: there are not so many")


def _mount(place: str, mount: Mount, mapped: bool) -> None:
    target = posixpath.normpath("/" + mount.destination.lstrip("/"))  # normpath keeps two leading slashes
    options = mount_options.parse(mount.options, f"config.json: {place}.options")
    if target == "/proc" and mount.type != "proc" and not (options.bind and os.path.ismount(mount.source)):
        _fail(
            f"{place}.destination",
            "on /proc only a proc file system may be mounted: others would fake what is read there",
        )
    if target.startswith("/proc/") and target.removeprefix("/proc/") not in _PROC_FILES:
        _fail(f"{place}.destination", f"{target} is inside /proc, where a mount would deceive")
    if bool(mount.uid_mappings) != bool(mount.gid_mappings):
        _fail(f"{place}.uidMappings", "uidMappings and gidMappings come together")
    if (mount.uid_mappings or options.idmap) and not (options.bind or mount.type == "bind"):
        _fail(f"{place}.uidMappings", "ids are mapped on bind mounts only, and this is a new file system")
    if options.idmap and not mount.uid_mappings and not mapped:
        _fail(f"{place}.options", f"{options.idmap} without uidMappings, and the container has no mapping of its own")
    _mappings(f"{place}.uidMappings", (*mount.uid_mappings, *mount.gid_mappings))


def _hooks(config: Config) -> None:
    for kind in ("prestart", "create_runtime", "create_container", "start_container", "poststart", "poststop"):
        hooks: tuple[Hook, ...] = getattr(config.hooks, kind)
        for index, hook in enumerate(hooks):
            if not hook.path.startswith("/"):
                _fail(f"hooks.{kind}[{index}].path", f"{hook.path!r} is not absolute")


def _linux(config: Config, host: Host) -> None:
    linux = config.linux
    cgroup = os.fsencode(linux.cgroups_path)
    if b"\n" in cgroup or len(cgroup) > _LONGEST_PATH or any(len(part) > 255 for part in cgroup.split(b"/")):
        _fail("linux.cgroupsPath", f"{_cut(linux.cgroups_path)}: not the name of a cgroup")
    for index, rule in enumerate(linux.resources.devices if linux.resources else ()):
        if rule.type not in ("", "a", "b", "c") or not set(rule.access) <= set("rwm"):
            _fail(f"linux.resources.devices[{index}]", "type is a, b or c, and access of the letters r, w and m")
    for name, paths in (("maskedPaths", linux.masked_paths), ("readonlyPaths", linux.readonly_paths)):
        for path in paths:
            if not path.startswith("/"):
                _fail(f"linux.{name}", f"{path!r} is not absolute")
    for index, device in enumerate(linux.devices):
        if device.type not in ("c", "b", "u", "p") or not device.path.startswith("/"):
            _fail(
                f"linux.devices[{index}]", f"type {device.type!r} at {device.path!r}: c, b, u or p at an absolute path"
            )
    propagation = linux.rootfs_propagation
    if propagation and propagation.removeprefix("r") not in mount_options.PROPAGATION:
        _fail(
            "linux.rootfsPropagation",
            f"{propagation!r}: shared, slave, private or unbindable, or those with an r before",
        )
    if linux.personality and (linux.personality.domain not in ("LINUX", "LINUX32") or linux.personality.flags):
        _fail("linux.personality", "LINUX or LINUX32, without flags")
    if linux.net_devices:
        _net_devices(config, host)
    if linux.intel_rdt and not host.resctrl:
        _fail("linux.intelRdt", "this host has no resctrl file system mounted at /sys/fs/resctrl")
    if linux.intel_rdt:
        _fail("linux.intelRdt", "this runtime does not write resctrl schemata")
    if linux.mount_label and not host.selinux:
        _fail("linux.mountLabel", "the host's kernel runs without SELinux")
    if linux.mount_label:
        _fail("linux.mountLabel", "this runtime does not label mounts", "leave the field out")


def _net_devices(config: Config, host: Host) -> None:
    if not any(namespace.type == "network" for namespace in config.linux.namespaces):
        _fail("linux.netDevices", "the container has the host's network, where the devices are already")
    if not host.moves_devices:
        _fail("linux.netDevices", "an unprivileged user may not move the host's network devices", "run as root")
    for device, there in config.linux.net_devices.items():
        for name in (device, there.name or device):
            # dev_valid_name of the kernel's net/core/dev.c
            if not 0 < len(name.encode()) < 16 or name in (".", "..") or re.search(r"[/:\s]", name):
                _fail("linux.netDevices", f"{_cut(name)}: not a network device's name")


def validate_process(process: Process, host: Host, grantable: int, warn: Warn = no_warning) -> None:
    """Validate a process by itself, as ``validate`` does. We can grant the capabilities in the mask ``grantable``."""
    if not process.args or not process.args[0]:
        _fail("process.args", "empty: there is no command")
    if not process.cwd.startswith("/"):
        _fail("process.cwd", f"{process.cwd!r} is not absolute")
    if process.capabilities:
        left_out = sorted(_left_out(process.capabilities, grantable))
        if left_out:
            # "MUST be logged as a warning" and "SHOULD NOT fail" (config.md, "Linux Process")
            warn(f"process.capabilities: unknown or not ours to give, and left out: {short(', '.join(left_out))}")
    kinds = [limit.type for limit in process.rlimits]
    for limit in process.rlimits:
        if kinds.count(limit.type) > 1:
            _fail("process.rlimits", f"{limit.type} is there twice")
        if limit.soft > limit.hard:
            _fail("process.rlimits", f"{limit.type}: the soft limit is above the hard one")
    if process.apparmor_profile and not host.apparmor:
        _fail("process.apparmorProfile", "the host's kernel runs without AppArmor", "leave the field out on this host")
    if process.selinux_label and not host.selinux:
        _fail("process.selinuxLabel", "the host's kernel runs without SELinux", "leave the field out on this host")


def _left_out(sets: Capabilities, grantable: int) -> set[str]:
    names = {*sets.bounding, *sets.effective, *sets.inheritable, *sets.permitted, *sets.ambient}
    return {name for name in names if name not in CAPABILITIES or not grantable >> CAPABILITIES.index(name) & 1}

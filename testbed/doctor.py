"""Checks what this host can do, by trying; what it cannot, and how to fix it.

What needs a namespace is tried in a child process, so nothing of it stays.
"""

from __future__ import annotations

import ctypes
import errno
import grp
import json
import os
import pwd
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import to_builtins

from runtime import libc, network, planners
from runtime.cgroups import hierarchies
from runtime.checkpoint import find_criu, probe
from runtime.errors import PrerequisiteError, TestbedError
from runtime.home import store_root
from runtime.images.base import release_inputs
from runtime.images.space import free_bytes
from runtime.lease import cgroup_name, lease
from runtime.plan.constants import CLONE_NEWNS, CLONE_NEWUSER, MS_PRIVATE, MS_REC
from runtime.unionfs import drivers
from testbed.checks import SET_UP, Check
from testbed.checks_of_machines import (
    check_accelerators,
    check_hypervisors,
    check_kvm,
    check_variants,
    check_virtualbox,
    check_xen,
)
from testbed.checks_of_peers import check_peers
from testbed.host.facts import format_version, parse_kib, read, read_first_line, read_libvirt_version
from testbed.lab import Lab, mac_of
from testbed.platforms.libvirt_lxc import find_driver
from testbed.projects.record import list_projects
from testbed.qemu.connection import EMBEDDED, check_uri, connect
from testbed.qemu.emulator import ensure_emulator, find_qemu
from testbed.qemu.trial import introduce
from testbed.services.processes import INIT

GIB = 1 << 30
NEEDED_FREE_BYTES = 3 * GIB
NEEDED_MEMORY_BYTES = 2 * GIB
SYS_CLONE3 = 435
# Ubuntu's, from 23.10 on.
APPARMOR_RESTRICTION = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
EXIT_PREREQUISITE = PrerequisiteError.exit_code


def run_checks(connect: str = "", guest_kernel: str = "") -> list[Check]:
    """Ask everything. Without root the questions that need it are answered with what the kernel says.

    ``connect`` is a libvirt URI to be tried, too, ``guest_kernel`` the file of a kernel to boot instead of the
    distribution's.
    """
    return [
        check_root(),
        check_cgroups(),
        check_overlay(),
        check_unions(),
        check_network(),
        check_user_namespaces(),
        check_clone3(),
        check_planner(),
        check_projects(),
        check_kvm(),
        *check_accelerators(guest_kernel),
        check_command("qemu", "qemu-system-x86_64", "--version"),
        check_libvirt(),
        *([check_connection(connect)] if connect else []),
        check_libvirt_lxc(),
        check_criu(),
        *check_peers(),
        *check_variants(),
        *check_hypervisors(),
        check_xen(),
        check_virtualbox(),
        check_command("mmdebstrap", "mmdebstrap", "--version"),
        check_command("slirp4netns", "slirp4netns", "--version"),
        check_command("tini", INIT, "--version"),
        check_command("mkfs.erofs", "mkfs.erofs", "-V"),
        check_package_sources(),
        check_space(),
        check_memory(),
    ]


def print_checks(results: Sequence[Check], as_json: bool = False) -> int:
    """Print the checks, as a table or as JSON; the exit code: 5 when a required one is not ok."""
    if as_json:
        print(json.dumps([to_builtins(check) for check in results], indent=2))
    else:
        print("\n".join(format_table(results, shutil.get_terminal_size().columns)))
    return 0 if all(check.ok or not check.required for check in results) else EXIT_PREREQUISITE


def format_table(results: Sequence[Check], columns: int) -> list[str]:
    """Return the checks as lines for a terminal that is so wide; longer ones are folded."""
    before = 10 + max((len(check.name) for check in results), default=0)
    room = max(20, columns - before)
    lines = []
    for check in results:
        state = "ok" if check.ok else "MISSING" if check.required else "no"
        text = textwrap.wrap(check.detail, room) or [""]
        text += textwrap.wrap(check.fix, room, initial_indent="-> ", subsequent_indent="   ") if not check.ok else []
        heads = [f"{state:8}{check.name}", *[""] * (len(text) - 1)]
        lines += [f"{head:{before}}{line}".rstrip() for head, line in zip(heads, text, strict=True)]
    return lines


def attempt(action: Callable[[], None]) -> str:
    """Do something in a child process that ends with it: what went wrong, or nothing."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        problem = b""
        try:
            action()
        except BaseException as error:
            reason = error.strerror if isinstance(error, OSError) else None
            problem = ((reason or str(error)).partition("\n")[0] or repr(error)).encode()
        finally:
            os.write(writer, problem)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        problem_text = answer.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    return problem_text or (f"the child ended with status {status}" if status else "")


def check_root() -> Check:
    """Check for root, whose alone namespaces, mounts and cgroups are."""
    uid = os.geteuid()
    return Check("root", uid == 0, f"user id {uid}", "run it as root, for example with sudo")


def check_cgroups() -> Check:
    """Check for the controllers that limits and meters rest on."""
    mounted = hierarchies()
    where = ", ".join(sorted(mounted.v1)) if mounted.v1 else ", ".join(sorted(mounted.v2))
    missing = mounted.missing()
    return Check(
        "cgroups",
        not missing,
        f"{mounted.mode}: {where}" + (f"; missing: {', '.join(missing)}" if missing else ""),
        "mount cgroup v2 at /sys/fs/cgroup, or boot with these controllers enabled",
    )


def check_overlay() -> Check:
    """Mount an overlay in a mount namespace of its own."""
    with tempfile.TemporaryDirectory(prefix="testbed-doctor-") as scratch:

        def mount_one() -> None:
            libc.call("unshare", CLONE_NEWNS)
            libc.call("mount", b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
            libc.call("mount", b"tmpfs", scratch.encode(), b"tmpfs", ctypes.c_ulong(0), None)
            for name in ("lower", "upper", "work", "merged"):
                Path(scratch, name).mkdir()
            options = f"lowerdir={scratch}/lower,upperdir={scratch}/upper,workdir={scratch}/work"
            target = f"{scratch}/merged".encode()
            libc.call("mount", b"overlay", target, b"overlay", ctypes.c_ulong(0), options.encode())
            Path(scratch, "merged", "file").write_text("written through the overlay")

        problem = attempt(mount_one)
    return Check("overlay", not problem, problem or "mounted and written to", _advise("load the module overlay"))


def check_unions() -> Check:
    """Try the drivers of union mounts, of which one suffices for most unions."""
    verdicts = drivers.probe_all()
    detail = "; ".join(f"{'' if one.works else 'no '}{one.driver}: {one.detail}" for one in verdicts)
    if not drivers.can_mount_beneath():
        detail += "; a changed union covers the old one, for this kernel mounts nothing beneath"
    missing = [one.driver for one in verdicts if not one.works and one.driver in drivers.FUSE_PROGRAMS]
    fix = SET_UP if os.geteuid() == 0 else _advise("")
    return Check("union mounts", not missing and verdicts[0].works, detail, fix, required=False)


def check_network() -> Check:
    """Build a network namespace with a bridge and a veth pair on it, as every run does."""

    def build() -> None:
        with Lab() as inside, Path("/proc/self/ns/net").open() as here:
            pair = network.VethEnd("doctor0", 101), network.VethEnd("doctor1", 102)
            address = inside.link(0, 0).address.ip
            message = network.create_veth(pair[0], inside.bridge_index, pair[1], mac_of(address), here.fileno())
            network.request(message, "create a veth pair")

    problem = attempt(build)
    return Check(
        "network", not problem, problem or "namespace, bridge and veth", _advise("load the modules bridge and veth")
    )


def check_user_namespaces() -> Check:
    """Check for user namespaces, which a rootless runtime needs and no measure does."""
    # With the second, the first must give its maker capabilities: AppArmor lets it be made and takes them away.
    problem = attempt(lambda: libc.call("unshare", CLONE_NEWUSER | CLONE_NEWNS))
    fix = advise_user_namespaces(read(APPARMOR_RESTRICTION) or "")
    return Check("user namespaces", not problem, problem or "can be made", fix, required=False)


def advise_user_namespaces(restriction: str) -> str:
    """Return what lets anybody make user namespaces; ``restriction`` is what AppArmor's switch for them says."""
    if restriction == "1":
        return "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with `userns` (Ubuntu)"
    return "sysctl kernel.unprivileged_userns_clone=1, or user.max_user_namespaces above 0"


def check_clone3() -> Check:
    """Check the system call that starts a process in its namespaces; without arguments it says EINVAL, or ENOSYS."""
    ctypes.CDLL(None, use_errno=True).syscall(SYS_CLONE3, None, 0)
    implemented = ctypes.get_errno() == errno.EINVAL
    detail = "the kernel has it" if implemented else f"refused: {os.strerror(ctypes.get_errno())}"
    return Check("clone3", implemented, detail, "use Linux 5.3 or later, outside a sandbox that forbids it")


def check_planner() -> Check:
    """Show the process that decides for testbed-runtime, which stays for a while after a call."""
    there = planners.residents(os.environ)
    words = ", ".join(f"process {resident.pid} at {resident.socket}" for resident in there)
    variable = os.environ.get("TESTBED_PLANNER", "")
    detail = words or ("none: TESTBED_PLANNER is off" if variable == "off" else "none; the next call starts one")
    return Check("planner", True, detail, required=False)


def check_projects() -> Check:
    """Show the applications that are up, which use the host and disturb what is measured on it."""
    try:
        projects = list_projects()
    except PrerequisiteError as error:
        return Check("projects", False, error.message, error.hint, required=False)
    dead = [project.name for project in projects if not project.alive]
    if dead:
        return Check("projects", False, f"the holder of {', '.join(dead)} was killed", "./invoke clean", required=False)
    names = ", ".join(f"{project.name} (./invoke down {project.name} ends it)" for project in projects)
    return Check("projects", True, names or "nothing is up", required=False)


def check_command(name: str, *call: str) -> Check:
    """Check for a program that answers with its version."""
    if shutil.which(call[0]) is None:
        return Check(name, False, f"{call[0]} is not on the PATH", SET_UP)
    version = read_first_line(*call)
    return Check(name, version is not None, version or f"{' '.join(call)} prints nothing", SET_UP)


def check_libvirt() -> Check:
    """Check for the library, its QEMU driver, and the driver's account."""
    version = read_libvirt_version()
    if version is None:
        return Check("libvirt", False, "the Python binding cannot be loaded", SET_UP)
    try:
        pwd.getpwnam("libvirt-qemu")
        grp.getgrnam("libvirt-qemu")
    except KeyError:
        return Check("libvirt", False, f"{version}, without the account libvirt-qemu", "run ./invoke, which makes it")
    drivers = list(Path("/usr/lib").glob("*/libvirt/connection-driver/libvirt_driver_qemu.so"))
    if not drivers:
        return Check("libvirt", False, f"{version}, without its QEMU driver", SET_UP)
    return Check("libvirt", True, f"{version}, with its QEMU driver and the account libvirt-qemu")


def check_connection(uri: str) -> Check:
    """Return a libvirt daemon that was asked for: tried, as a run would, as far as to have it start a machine.

    Raises UsageError for a URI that no run takes.
    """
    if check_uri(uri) == EMBEDDED:
        return check_libvirt()
    try:
        with connect(uri, Path("/nonexistent"), Path("/nonexistent")) as daemon:
            version, models = daemon.current().getLibVersion(), " and ".join(daemon.security_models())
            tried = "nothing further was tried, which is root's to do"
            if os.geteuid() == 0:
                qemu = find_qemu()
                emulator, run = ensure_emulator(store_root() / "guest", qemu), f"doctor-{os.getpid()}"
                with lease(run) as scratch:
                    introduce(daemon, emulator, qemu, "qemu", run, scratch)
                tried = f"it starts our machines{f', exempt from {models}' if models else ''}"
    except PrerequisiteError as error:
        return Check("connection", False, error.message, error.hint)
    return Check("connection", True, f"{uri}: libvirt {format_version(version)}; {tried}")


def check_libvirt_lxc() -> Check:
    """Check for what the platform libvirt-lxc needs and no other does."""
    try:
        find_driver()
    except PrerequisiteError as error:
        return Check("libvirt-lxc", False, error.message, error.hint, required=False)
    return Check("libvirt-lxc", True, "libvirtd and its LXC driver, for a daemon of the run's own", required=False)


def check_criu() -> Check:
    """Save and restore a process of ours with CRIU, for container-restored."""
    try:
        criu = find_criu()
        with lease(name := f"doctor-criu-{os.getpid()}") as scratch:
            (scratch / "probe").mkdir()
            lost = probe(criu, cgroup_name(name, "probe"), scratch / "probe")
    except TestbedError as error:
        return Check("criu", False, error.message, error.hint, required=False)
    detail = f"CRIU {criu.version} saves and restores a container"
    return Check("criu", True, f"{detail}, without {', '.join(lost)}" if lost else detail, required=False)


def check_package_sources() -> Check:
    """Check that sources for the base image are configured; whether they can be reached shows when it is built."""
    try:
        inputs = release_inputs()
    except (TestbedError, OSError) as error:
        return Check("package sources", False, str(error).partition("\n")[0], getattr(error, "hint", ""))
    where = ", ".join(sorted({uri for source in inputs.sources for uri in source.uris}))
    return Check("package sources", True, f"{inputs.codename} from {where}")


def check_space() -> Check:
    """Check that there is room for images, guest kernels and disks."""
    where = store_root()
    free = free_bytes(where)
    detail = f"{free / GIB:.1f} GiB free for {where}"
    return Check("disk space", free >= NEEDED_FREE_BYTES, detail, "free 3 GiB, or set TESTBED_HOME to a larger disk")


def check_memory() -> Check:
    """Check that there is room for the smallest run."""
    available = parse_kib(read(Path("/proc/meminfo")) or "", "MemAvailable")
    detail = f"{available / GIB:.1f} GiB available"
    return Check("memory", available >= NEEDED_MEMORY_BYTES, detail, "2 GiB are needed: end other programs")


def _advise(fix: str) -> str:
    return fix if os.geteuid() == 0 else "run it as root"

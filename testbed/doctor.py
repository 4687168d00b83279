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

from msgspec import Struct, to_builtins

from runtime import libc, network, planners
from runtime.cgroups import hierarchies
from runtime.checkpoint import find_criu, probe
from runtime.errors import PrerequisiteError, TestbedError
from runtime.home import store_root
from runtime.images.sources import host_sources
from runtime.images.space import free_bytes
from runtime.lease import cgroup_name, lease
from runtime.plan.constants import CLONE_NEWNS, CLONE_NEWUSER, MS_PRIVATE, MS_REC
from testbed.host.facts import format_version, parse_key_values, parse_kib, read, read_first_line, read_libvirt_version
from testbed.lab import Lab, mac_of
from testbed.platforms.libvirt_lxc import find_driver
from testbed.qemu import accelerator
from testbed.qemu.connection import EMBEDDED, check_uri, connect
from testbed.qemu.emulator import ensure_emulator, find_qemu
from testbed.qemu.trial import introduce
from vm_images.guest import guest_of
from vm_images.kernel import find_stored_guest_kernel

GIB = 1 << 30
NEEDED_FREE_BYTES = 3 * GIB
NEEDED_MEMORY_BYTES = 2 * GIB
SYS_CLONE3 = 435
SET_UP = "run ./invoke, which installs it"
EXIT_PREREQUISITE = PrerequisiteError.exit_code


class Check(Struct, frozen=True):
    """One question to the host: ``ok``, what was found, and, when not ok, what to do. Some are not ``required``."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True


def run_checks(connect: str = "") -> list[Check]:
    """Ask everything. Without root the questions that need it are answered with what the kernel says.

    ``connect`` is a libvirt URI to be tried, too.
    """
    return [
        check_root(),
        check_cgroups(),
        check_overlay(),
        check_network(),
        check_user_namespaces(),
        check_clone3(),
        check_planner(),
        check_kvm(),
        *check_accelerators(),
        check_command("qemu", "qemu-system-x86_64", "--version"),
        check_libvirt(),
        *([check_connection(connect)] if connect else []),
        check_libvirt_lxc(),
        check_criu(),
        check_command("mmdebstrap", "mmdebstrap", "--version"),
        check_command("slirp4netns", "slirp4netns", "--version"),
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
    problem = attempt(lambda: libc.call("unshare", CLONE_NEWUSER))
    fix = "sysctl kernel.unprivileged_userns_clone=1, or user.max_user_namespaces above 0"
    return Check("user namespaces", not problem, problem or "can be made", fix, required=False)


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


def check_kvm() -> Check:
    """Check only that the device is there and opens; whether guests run on it is the accelerator's question."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        detail = f"/dev/kvm: {error.strerror}"
        return Check("kvm device", False, detail, "guests will be emulated (TCG); load kvm_intel or kvm_amd", False)
    return Check("kvm device", True, "/dev/kvm opens", required=False)


def check_accelerators() -> list[Check]:
    """Check what guests would run on, by booting one as root where a kernel for it is there; else report the last
    attempt."""
    guest_root = store_root() / "guest"
    try:
        kernel = find_stored_guest_kernel(guest_root)
        if kernel is not None and os.geteuid() == 0:
            tried = accelerator.try_accelerators(guest_root, find_qemu(), guest_of(kernel))
        else:
            tried = accelerator.read_last_attempts(guest_root)
        return judge_attempts(tried, explain_closed_kvm())
    except PrerequisiteError as error:
        return [Check("accelerator", False, error.message, error.hint, required=False)]


def explain_closed_kvm() -> str:
    """Return why QEMU's account cannot open KVM, as far as there is such an account."""
    try:
        return accelerator.explain_closed_kvm()
    except PrerequisiteError:
        return ""


def judge_attempts(tried: Sequence[accelerator.Attempt], closed: str) -> list[Check]:
    """Return a check for each accelerator that was tried, with when that was; the one that guests get is marked.

    Raises PrerequisiteError when no guest boots.
    """
    if not tried:
        detail = "not tried yet: the first benchmark with VMs, or doctor as root after it, boots a guest to find out"
        return [Check("accelerator", True, detail, required=False)]
    chosen = accelerator.decide(tried, closed)
    fix = "without hardware virtualisation VM figures are of an emulator; use a host with a working KVM"
    results = [
        Check(
            f"accelerator {one.accelerator}",
            one.boot_s is not None and (one.accelerator != "kvm" or chosen.hardware),
            f"{chosen.reason if one.accelerator == 'kvm' else one.reason} (tried {one.at})"
            + mark_chosen(one.accelerator, chosen.accelerator),
            fix if one.accelerator == "kvm" else "",
            required=False,
        )
        for one in tried
    ]
    if "kvm" not in [one.accelerator for one in tried]:
        detail = "not known to work; each run as root tries it anew, and so does doctor"
        results.append(Check("accelerator kvm", False, detail, "run doctor as root", required=False))
    return results


def mark_chosen(name: str, chosen: str) -> str:
    """Return the words that mark the accelerator that guests get."""
    return "; guests get this one" if name == chosen else ""


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
    release = parse_key_values(read(Path("/etc/os-release")) or "", "=")
    try:
        sources = host_sources(Path("/etc/apt"), release.get("VERSION_CODENAME", ""))
    except TestbedError as error:
        return Check("package sources", False, error.message, error.hint)
    return Check("package sources", True, ", ".join(sorted({uri for source in sources for uri in source.uris})))


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

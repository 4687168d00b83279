"""A libvirtd of our own: no host's daemon is asked or disturbed, and nothing of it outlives us.

It sees the file system with its own directories in place of the host's, a cgroup of ours as the root of all cgroups,
and the network namespace of the thread that starts it. What it makes, it makes below these.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
from contextlib import ExitStack
from errno import EINVAL, ENOENT
from pathlib import Path
from urllib.parse import quote

from runtime.cgroups import Cgroup, Hierarchies
from runtime.errors import PrerequisiteError, TestbedError
from runtime.launcher import Spawned, launch
from runtime.plan.cgroup import clone_into, join_steps
from runtime.plan.constants import CLONE_NEWCGROUP, CLONE_NEWNS, MNT_DETACH, MS_BIND, MS_PRIVATE, MS_REC
from runtime.plan.process import LABELS
from runtime.plan.steps import CloseOnExec, Exec, Mkdir, Mount, Plan, Setsid, Step, Unmount, Unshare, Write
from runtime.speed import scale
from testbed.qemu.connection import ensure_event_loop

LIBVIRTD = "libvirtd"
_SEARCH = "/usr/sbin:/usr/bin:/sbin:/bin"
_CGROUPS = "/sys/fs/cgroup"
# A daemon of root's looks for its files below these and nowhere else, its sockets excepted.
_SHADOWED = (Path("/run"), Path("/var/lib"), Path("/var/cache"), Path("/var/log"))
_LIMIT_S = 20.0
# No virtlogd is there to hand logs to. For a user to whom /dev/kvm is closed while it opens for the daemon, libvirt
# asks QEMU what it can do before every start. The rest is as the distribution has it, QEMU's sandbox included.
_QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
user = "root"
group = "libvirt-qemu"
"""
_LIBVIRTD_CONF = """\
unix_sock_dir = "{sockets}"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_level = 3
log_outputs = "3:file:{log}"
"""


def find_libvirtd() -> Path:
    """Return libvirtd's path. Raises PrerequisiteError when it is not installed."""
    path = shutil.which(LIBVIRTD, path=_SEARCH)
    if path is None:
        raise PrerequisiteError(f"no {LIBVIRTD} in {_SEARCH}", "install libvirt-daemon")
    return Path(path)


def _hierarchy_names(hierarchies: Hierarchies) -> dict[Path, str]:
    """Return the names of the v1 hierarchies in use, by mount point: their controllers, as systemd names them."""
    names: dict[Path, str] = {}
    for name in hierarchies.wanted:
        if (mount := hierarchies.v1.get(name)) is not None:
            names[mount] = f"{names[mount]},{name}" if mount in names else name
    return names


def seen_at(root: Cgroup, cgroup: Cgroup, controller: str) -> Path:
    """Return the v1 directory of ``cgroup`` as a daemon sees it whose root of all cgroups is ``root``."""
    hierarchy = _hierarchy_names(root.hierarchies)[root.hierarchies.v1[controller]]
    return Path(_CGROUPS, hierarchy, Path(cgroup.name).relative_to(root.name))


def _cgroup_steps(hierarchies: Hierarchies) -> tuple[Step, ...]:
    """Return the cgroup file systems as seen from the cgroup that is the root now.

    Only the hierarchies that the testbed uses. With v1, a v2 mounted next to it is left out: libvirt's LXC driver takes
    it for one of its own and then fails to mount it.
    """
    # libvirt goes by the list of mounts, in which those that are covered are still seen; and the kernel does not mount
    # a file system over itself.
    uncovered = Unmount(_CGROUPS, MNT_DETACH)
    if not hierarchies.v1:
        passed_down = sorted(hierarchies.v2 & set(hierarchies.wanted))
        leaf = f"{_CGROUPS}/daemon"  # a v2 cgroup passes controllers down or has processes, not both
        return (
            uncovered,
            Mount("cgroup2", _CGROUPS, "cgroup2"),
            Mkdir(leaf),
            Write(f"{leaf}/cgroup.procs", ("0",)),
            *(Write(f"{_CGROUPS}/cgroup.subtree_control", (f"+{name}",)) for name in passed_down),
        )
    steps: list[Step] = [uncovered, Mount("tmpfs", _CGROUPS, "tmpfs", 0, "mode=755")]
    for controllers in _hierarchy_names(hierarchies).values():
        target = f"{_CGROUPS}/{controllers}"
        steps += [Mkdir(target), Mount("cgroup", target, "cgroup", 0, controllers)]
    return tuple(steps)


def daemon_plan(libvirtd: Path, folder: Path, shown: tuple[Path, ...], cgroup: Cgroup, *, reroot: bool) -> Plan:
    """Return the plan that becomes ``libvirtd`` with its directories below ``folder``, where ``lay_out`` has made them.

    ``shown`` are directories of the host that are to be seen as they are although one above them is hidden. With
    ``reroot`` the daemon sees ``cgroup``, which it is in, as the root of all cgroups, and on v2 passes its controllers
    down, which that must not have done by itself.
    """
    hierarchies, flags = cgroup.hierarchies, CLONE_NEWNS
    steps: list[Step] = [Mount("", "/", "", MS_REC | MS_PRIVATE)]
    if reroot and hierarchies.v1:
        flags |= CLONE_NEWCGROUP  # the launcher is in the cgroup by then
    elif reroot:
        steps.append(Unshare(CLONE_NEWCGROUP))
    if reroot:
        steps += _cgroup_steps(hierarchies)
    for path in shown:
        if any(path.is_relative_to(top) for top in _SHADOWED):
            steps.append(Mount(str(path), str(_inside(folder, path)), "", MS_BIND))
    configuration = folder / "etc"
    layers = f"lowerdir=/etc,upperdir={configuration / 'upper'},workdir={configuration / 'work'}"
    steps.append(Mount("overlay", "/etc", "overlay", 0, layers))
    # What is mounted below ``folder`` is no longer seen there once that is shadowed itself, so it comes last.
    tops = sorted(_SHADOWED, key=folder.is_relative_to)
    steps += [Mount(str(_inside(folder, top)), str(top), "", MS_BIND | MS_REC) for top in tops]
    # AppArmor's profile for the host's daemon knows neither our controllers nor these mounts.
    steps.append(Write(LABELS[0], ("exec unconfined",), tolerate=(ENOENT, EINVAL)))
    arguments = (str(libvirtd), "--config", str(folder / "libvirtd.conf"), "--pid-file", str(folder / "pid"))
    steps += [CloseOnExec(), Setsid(), Exec(arguments, (f"PATH={_SEARCH}",))]
    into = clone_into(hierarchies, cgroup.name)
    return Plan(
        parent=() if into else join_steps(hierarchies, cgroup.name),
        clone_flags=flags,
        child=tuple(steps),
        into_cgroup=into,
    )


def _inside(folder: Path, path: Path) -> Path:
    return folder / "root" / path.relative_to("/")


def lay_out(folder: Path, shown: tuple[Path, ...], *, reroot: bool) -> None:
    """Make the daemon's directories and configuration below ``folder``; without ``reroot`` it makes no cgroups."""
    for path in (*_SHADOWED, *(path for path in shown if any(path.is_relative_to(top) for top in _SHADOWED))):
        _inside(folder, path).mkdir(parents=True, exist_ok=True)
    for name in ("sockets", "etc/upper/libvirt", "etc/work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "etc/upper/libvirt/qemu.conf").write_text(_QEMU_CONF + ("" if reroot else "cgroup_controllers = []\n"))
    configuration = _LIBVIRTD_CONF.format(sockets=folder / "sockets", log=folder / "log")
    (folder / "libvirtd.conf").write_text(configuration)


class Daemon:
    """A libvirtd with all its files in the directory ``folder`` and all its cgroups below ``cgroup``.

    Directories that it must see as the host has them, such as the store, are ``shown``. Without ``reroot`` it sees
    the host's cgroups, as a host's own libvirtd does, but makes none.
    """

    def __init__(self, folder: Path, cgroup: Cgroup, shown: tuple[Path, ...], *, reroot: bool = True) -> None:
        self._reroot = reroot
        self._folder = folder
        self._cgroup = cgroup
        self._shown = tuple(dict.fromkeys((*shown, folder)))
        self._process: Spawned | None = None
        self._pidfd = -1
        self.socket = folder / "sockets" / "libvirt-sock"

    def uri(self, driver: str) -> str:
        """Return the URI of this daemon's ``driver``: ``qemu:///system``, ``lxc:///system``."""
        return f"{driver}?socket={quote(str(self.socket))}"

    @property
    def pid(self) -> int:
        """Its process id, only while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, also after ``stop`` or ``kill``, and return once it answers. Raises PrerequisiteError."""
        plan = daemon_plan(find_libvirtd(), self._folder, self._shown, self._cgroup, reroot=self._reroot)
        lay_out(self._folder, self._shown, reroot=self._reroot)
        self._cgroup.make(delegate=False)
        with ExitStack() as undo:
            null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, null)
            errors = os.open(self._folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            undo.callback(os.close, errors)
            self._process = launch(plan, stdin=null, stdout=errors, stderr=errors)
            self._pidfd = os.pidfd_open(self._process.pid)
        self._await_answer()

    def _await_answer(self) -> None:
        libvirt = ensure_event_loop()
        limit_s = scale(_LIMIT_S)
        deadline_s = time.monotonic() + limit_s
        while True:
            try:
                libvirt.open(self.uri("qemu+unix:///system")).close()
                return
            except libvirt.libvirtError as error:
                ended = bool(select.select([self._pidfd], [], [], 0.01)[0])
                if ended or time.monotonic() > deadline_s:
                    what = "ended at once" if ended else f"does not answer within {limit_s:g} s"
                    errors = (self._folder / "stderr").read_text(errors="replace").strip().splitlines()
                    self.kill()
                    raise PrerequisiteError(
                        f"start {LIBVIRTD}: it {what}: {errors[-1] if errors else error}", "reinstall libvirt-daemon"
                    ) from error

    def stop(self) -> None:
        """Ask it to end and see it end; what it has started goes on. Harmless when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a word, as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, how)
            if not select.select([self._pidfd], [], [], scale(_LIMIT_S))[0]:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.waitpid(process.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # it has ended and was reaped
        finally:
            os.close(self._pidfd)

    def close(self) -> None:
        """End it with everything that it has started, and remove its cgroups and files. Raises TestbedError."""
        with ExitStack() as undo:  # runs in reverse
            undo.callback(shutil.rmtree, self._folder, ignore_errors=True)
            undo.callback(_remove_below, self._cgroup)
            undo.callback(self.stop)


def _remove_below(cgroup: Cgroup) -> None:
    """Kill what is in ``cgroup`` and all cgroups below it, and remove them, the deepest first."""
    names = {cgroup.name}
    for mount, directory in zip(cgroup.hierarchies.used, cgroup.directories(), strict=True):
        names |= {str(path.relative_to(mount)) for path in directory.rglob("*") if path.is_dir()}
    problems = []
    for name in sorted(names, key=lambda name: name.count("/"), reverse=True):
        try:
            below = Cgroup(name, cgroup.hierarchies)
            below.kill()
            below.remove()
        except (OSError, TestbedError) as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise TestbedError("remove libvirtd's cgroups:\n  " + "\n  ".join(problems), "run `./invoke clean`")

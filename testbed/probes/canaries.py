"""The canaries: what the host sets up before an attack, and by which it tells afterwards what was reached.

Their secrets are drawn anew for each attack. Everything here is the host's own and nobody else's: files in the run's
directory, a process, sockets in the lab, objects with names of the run's own, a disk made of a file, a setting that
keeps its value. What outlives the host's process is noted first (testbed.probes.objects).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import shutil
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from runtime import network
from runtime.cgroups import Cgroup, hierarchies
from runtime.errors import TestbedError
from runtime.lease import CGROUP_ROOT
from testbed.host.loop import attach
from testbed.host.settings import change_settings
from testbed.probes import objects
from testbed.probes.model import Probe
from testbed.probes.place import VOLUME, Place, Untestable
from testbed.probes.processes import DESCRIPTOR, FIRST_SIGNAL, LIMIT, SCORE, CanaryProcess
from testbed.probes.sockets import (
    Server,
    Wire,
    find_free_port,
    inode_of,
    listen_on_loopback,
    listen_without_file,
    remove_route,
)

# Settings of the whole host of which one more or less is nothing for a moment: an attack takes one that no other has.
SETTINGS = tuple(
    Path("/proc/sys") / name
    for name in (
        *("kernel/printk_ratelimit_burst", "kernel/printk_ratelimit", "kernel/keys/gc_delay", "kernel/pty/reserve"),
        *("fs/lease-break-time", "vm/stat_interval", "vm/dirty_expire_centisecs", "vm/dirtytime_expire_seconds"),
    )
)
_NO_VOLUME = "no directory of the host's is shared with an instance of this platform"
_SECTOR = 512
_WAIT_MS = 1200
_HANDLE_BYTES = 128
_LOCK_BYTES = 17
_OFD_SETLK = 37
_MIB = 1 << 20


class Canaries:
    """A context manager: within it the canaries are there. ``fill`` says what a probe's words are to name."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.secret = secrets.token_hex(8)
        self.key = secrets.randbelow(0x6FFFFFFF) + 0x10000000
        self.port_of: dict[str, int] = {}
        self.disks: dict[str, tuple[int, int, int, Path]] = {}
        self.disk_kib = 1024 + secrets.randbelow(60000)
        self.locked_from = secrets.randbelow(1 << 40) + 1
        # Of a block that no host has (RFC 5737), for one attack.
        self.route = f"198.51.100.{secrets.randbelow(254) + 1}"
        self.setting, self.value = SETTINGS[0], ""
        self._problems: dict[str, str] = {}
        self._undo = ExitStack()
        self._watched = 0
        self.outside = ""

    def __enter__(self) -> Canaries:
        with ExitStack() as undo:
            self.noted = objects.Noted(self.place.lease, self.place.token)
            undo.callback(self.noted.remove)
            self.noted.add("directories", self.place.token)
            self._make_files(undo)
            self.process = CanaryProcess(self.place.mark + self.secret, self.place.folder)
            undo.callback(self.process.end)
            self._make_sockets(undo)
            for kind, make in self._others().items():
                try:
                    make(undo)
                except (OSError, TestbedError) as error:
                    self._problems[kind] = f"the host could not make it: {str(error).splitlines()[0]}"
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _others(self) -> Mapping[str, Callable[[ExitStack], None]]:
        noted, key, secret, mark = self.noted, self.key, self.secret.encode(), self.place.mark
        return {
            "segment": lambda _: objects.make_segment(noted, key, secret),
            "semaphore": self._make_semaphore,
            "message": lambda _: objects.make_queue(noted, key, secret),
            "posix_message": lambda _: objects.make_posix_queue(noted, self._name("queue"), secret),
            "key": lambda _: objects.make_key(noted, self._name("key"), secret),
            "listed_key": lambda _: objects.make_key(noted, mark + self.secret, b"listed"),
            "log": self._log,
            "disk": lambda undo: self._make_disk("disk", undo),
            "disk_written": lambda undo: self._make_disk("disk_written", undo),
            "setting": self._hold_setting,
            "listed_interface": self._make_interface,
        }

    def _make_files(self, undo: ExitStack) -> None:
        undo.callback(shutil.rmtree, self.place.folder, ignore_errors=True)
        self.place.folder.mkdir(mode=0o755)
        self.place.volume.mkdir(mode=0o755)
        self.secret_file = self.place.folder / "secret"
        self.secret_file.write_text(self.secret)
        self.lock_file = self.place.volume / "lock"
        self.lock_file.write_text("lock")
        self._make_open_files()
        locked = (self.place.folder / "locked").open("w+")
        undo.callback(locked.close)
        range_ = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, self.locked_from, _LOCK_BYTES, 0)
        fcntl.fcntl(locked, _OFD_SETLK, range_)
        self.locked_inode = os.fstat(locked.fileno()).st_ino

    def _make_open_files(self) -> None:
        """Make what nothing but a wall of its own keeps anybody from: files and a directory that all may write to."""
        self.open_folder = self.place.volume / "open"
        self.open_folder.mkdir()
        for name in ("written", "removed"):
            (self.open_folder / name).write_text(name)
            (self.open_folder / name).chmod(0o666)
        self.open_folder.chmod(0o777)

    def _make_sockets(self, undo: ExitStack) -> None:
        self.wire = Wire(self.place.mark + self.secret)
        undo.callback(self.wire.close)
        self.listener = self._serve(listen_on_loopback(self.secret), undo)
        self.abstract = self._serve(listen_without_file(self._name("server"), self.secret), undo)
        self._serve(listen_without_file(self.place.mark + self.secret, "listed"), undo)
        undo.callback(remove_route, self.route)

    def _serve(self, server: Server, undo: ExitStack) -> Server:
        undo.callback(server.close)
        return server

    def _make_semaphore(self, undo: ExitStack) -> None:
        self.semaphore = objects.make_semaphore(self.noted, self.key)

    def _log(self, undo: ExitStack) -> None:
        Path("/dev/kmsg").write_text(f"<6>{self.place.mark}{self.secret} a canary of the testbed's\n")

    def _make_disk(self, kind: str, undo: ExitStack) -> None:
        file = self.place.folder / kind
        with file.open("wb") as made:
            made.write(self.secret.encode().ljust(_SECTOR, b"\0"))
            made.truncate(self.disk_kib << 10)
        device = attach(file, writable=True)
        undo.callback(os.close, device)
        found = os.fstat(device).st_rdev
        self.disks[kind] = (device, os.major(found), os.minor(found), file)

    def _hold_setting(self, undo: ExitStack) -> None:
        """Take a setting that no other attack on this host has, and note the value that it has: who changes it, it is
        put back. Raises TestbedError where there is none."""
        problem = TestbedError("this kernel has none of the settings")
        for setting in filter(Path.exists, SETTINGS):
            value = setting.read_text().strip()
            try:
                undo.enter_context(change_settings({setting: value}, self.place.lease))
            except TestbedError as error:
                problem = error
                continue
            self.setting, self.value = setting, value
            return
        raise problem

    def _make_interface(self, undo: ExitStack) -> None:
        name = self.interface_mark + self.secret[:8]
        network.request(network.create_bridge(name, "02:00:00:74:70:01"), f"create bridge {name}")
        undo.callback(self._delete_interface, socket.if_nametoindex(name))

    def _delete_interface(self, index: int) -> None:
        with suppress(OSError):
            network.request(network.delete_link(index), "delete the canary's bridge")

    def _name(self, what: str) -> str:
        """Return the name of a canary that is known by it, and is not to be found in a list."""
        return f"probe-{self.place.token}-{what}"

    @property
    def interface_mark(self) -> str:
        """What the name of the canary's interface begins with: names have at most 15 characters."""
        return f"tp{self.place.token[:4]}"

    def token_of(self, index: int) -> str:
        """Return the token of one attempt."""
        return f"{self.place.token}-{index:03}"

    def fill(self, probe: Probe, index: int) -> dict[str, str]:
        """Return what the places in a probe's words are filled with. Raises Untestable, which says why the probe
        cannot be made here."""
        kind, _, argument = probe.canary.partition(" ")
        if problem := self._problems.get(kind):
            raise Untestable(problem)
        if probe.needs and not Path(probe.needs).exists():
            raise Untestable(f"this kernel has no {probe.needs}")
        mark = self.interface_mark if kind == "listed_interface" else self.place.mark
        filled = {"host": self.place.host, "token": self.token_of(index), "mark": mark}
        return {**filled, **self._offer(kind, argument, index)}

    def _offer(self, kind: str, argument: str, index: int) -> dict[str, str]:
        offers: Mapping[str, Callable[[], dict[str, str]]] = {
            "handle": self._offer_handle,
            "created": self._offer_volume,
            "created_setuid": self._offer_volume,
            "written": self._offer_volume,
            "removed": self._offer_volume,
            "held_lock": self._offer_volume,
            "watched": self._offer_volume,
            "affinity": self._offer_processors,
            "moved": self._offer_group,
            "disk": lambda: self._offer_disk("disk"),
            "disk_written": lambda: self._offer_disk("disk_written"),
            "partition": lambda: self._offer_disk("disk"),
            "device": lambda: self._offer_device(argument),
            "bound": lambda: self._offer_port(index),
            "answered": lambda: self._offer_port(index),
        }
        return offers[kind]() if kind in offers else self._offer_all(index, kind)

    def _offer_all(self, index: int, kind: str) -> dict[str, str]:
        return {
            "secret": str(self.secret_file),
            "secret_name": self.secret_file.name,
            "pid": str(self.process.pid),
            "address": self.process.address,
            "flag": self.process.flag,
            "descriptor": str(DESCRIPTOR),
            "limit": str(LIMIT),
            "score": str(SCORE),
            "signal": str(FIRST_SIGNAL + index % 24),
            "port": str(self.listener.listener.getsockname()[1]),
            "port_hex": f":{self.listener.listener.getsockname()[1]:04X}",
            "name": self._name("queue" if kind == "posix_message" else "server"),
            "word": self.place.mark,
            "wait_ms": self._wait_ms,
            "key": str(self.key),
            "key_name": self._name("key"),
            "inode": f":{self.locked_inode}",
            "group": f"{CGROUP_ROOT}/",
            "setting": str(self.setting),
            "value": str(int(self.value) + 1) if kind == "setting" else "",
            "gateway": self.place.gateway,
            "own": self.place.own,
            "route": self.route,
            "locked_bytes": str(64 * _MIB),
            "memory_bytes": str(self.place.memory_bytes + 64 * _MIB),
            "tasks": str(self.place.tasks + 32),
            "disk_bytes": str(96 * _MIB),  # more than any quota, and less than the limit of memory
            "spin_ms": "1000",
        }

    def _offer_volume(self) -> dict[str, str]:
        if not self.place.shares:
            raise Untestable(_NO_VOLUME)
        return {"volume": VOLUME, "lock_name": self.lock_file.name, "wait_ms": self._wait_ms}

    def _offer_processors(self) -> dict[str, str]:
        if len(os.sched_getaffinity(0)) == 1:
            raise Untestable("this host has one processor, to which everybody is kept already")
        return {"pid": str(self.process.pid)}

    @property
    def _wait_ms(self) -> str:
        """How long an attempt waits for what the host does at each of its looks."""
        return str(round(_WAIT_MS * max(self.place.patience, 1.0)))

    def _offer_handle(self) -> dict[str, str]:
        volume = self._offer_volume()
        buffer = ctypes.create_string_buffer(struct.pack("Ii", _HANDLE_BYTES, 0) + bytes(_HANDLE_BYTES))
        mount = ctypes.c_int()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.name_to_handle_at(-100, str(self.secret_file).encode(), buffer, ctypes.byref(mount), 0) != 0:
            raise Untestable(f"the run's file system has no handles: {os.strerror(ctypes.get_errno())}")
        size, kind = struct.unpack_from("Ii", buffer.raw)
        return {**volume, "handle_type": str(kind), "handle": buffer.raw[8 : 8 + size].hex()}

    def _offer_group(self) -> dict[str, str]:
        version_one = "pids" in hierarchies().v1
        path = f"{self.place.group.rpartition('/')[0]}/outside-{self.place.token}"
        if not self.outside:
            cgroup = Cgroup(path)
            self._undo.callback(cgroup.remove)
            self._undo.callback(cgroup.kill)
            cgroup.make(delegate=False)
            self.outside = path
        return {
            "group_type": "cgroup" if version_one else "cgroup2",
            "group_options": "pids" if version_one else "-",
            "group_path": path,
        }

    def _offer_disk(self, kind: str) -> dict[str, str]:
        if kind not in self.disks:
            raise Untestable(self._problems.get(kind, "the host could not make a disk of a file"))
        _, major, minor, _ = self.disks[kind]
        return {"major": str(major), "minor": str(minor), "disk": f"loop{minor}"}

    def _offer_device(self, node: str) -> dict[str, str]:
        try:
            found = Path(node).stat().st_rdev
        except OSError as error:
            raise Untestable(f"{node}: {error.strerror}") from error
        return {"device_major": str(os.major(found)), "device_minor": str(os.minor(found))}

    def _offer_port(self, index: int) -> dict[str, str]:
        port = self.port_of.setdefault(str(index), find_free_port())
        return {"port": str(port), "gateway": self.place.gateway}

    def tick(self) -> None:
        """Do what is to be seen by who looks at the right moment, and take note of what has passed."""
        self.wire.tick()
        if self.place.shares:
            (self.place.volume / f"{self.secret}-{self._watched}").touch()
            with suppress(FileNotFoundError):
                (self.place.volume / f"{self.secret}-{self._watched - 1}").unlink()
            self._watched += 1

    def settle(self) -> None:
        """Take note of all that has passed or was done until now, however busy the host is."""
        self.tick()
        self.process.settle()

    @property
    def listening_inode(self) -> str:
        """The number of the loopback server's socket."""
        return inode_of(self.listener)

"""libvirt's QEMU driver: inside our own process (``qemu:///embed``, no daemon), or a daemon's that runs already.

A daemon's QEMU is not our child and not in our network namespace. So it is started there as root, with our launcher
in its place, which enters the lab's network namespace and the instance's cgroup before it becomes QEMU; the daemon
must be on this machine for that, by whatever transport it is reached.
"""

from __future__ import annotations

import operator
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.speed import scale
from testbed.host.libvirt_library import load_libvirt
from testbed.qemu.account import Account, find_emulator_account
from testbed.qemu.libvirt_modules import note_storage_module

EMBEDDED = "qemu:///embed"
_TRANSPORTS = ("qemu", "qemu+unix", "qemu+ssh", "qemu+libssh", "qemu+libssh2")
# A daemon that does not answer within the product of the two is one that is gone.
_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 5, 3
_REOPEN_LIMIT_S = 5.0

# The driver leaves cgroups, security labels and namespaces to us. QEMU runs as an account that has no rights, shut in
# by its own seccomp filter (no set-user-ID, no new processes, no change of its resources); whose the files are that
# it is given is for us to say, too.
_QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
namespaces = []
cgroup_controllers = []
user = "+{uid}"
group = "+{gid}"
seccomp_sandbox = 1
dynamic_ownership = 0
remember_owner = 0
"""
_event_loop_lock = threading.Lock()
_event_loop: threading.Thread | None = None
_root: Path | None = None
_driver: Any = None
# The connection while somebody uses it, and what closes it after the last of them.
_sharing = threading.Lock()
_users = 0
_connection: Any = None
_closing = ExitStack()


def _run_event_loop(libvirt: Any) -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            continue  # its handlers report what went wrong to whoever waits for them


def ensure_event_loop() -> Any:
    """Start the loop that drivers' monitors and daemons' sockets need, and return the libvirt module.

    It is the process's only one and lives as long.
    """
    global _event_loop
    libvirt = load_libvirt()
    with _event_loop_lock:
        if _event_loop is None:
            # Without a handler libvirt prints every error on stderr; its exceptions say it all. This one, which
            # takes two arguments and does nothing, is not Python code: in a Python function, called from within
            # the library, Ctrl-C would be raised where the library cannot pass it on.
            libvirt.registerErrorHandler(operator.is_, None)
            libvirt.virEventRegisterDefaultImpl()
            _event_loop = threading.Thread(target=_run_event_loop, args=(libvirt,), name="libvirt", daemon=True)
            _event_loop.start()
    return libvirt


def check_uri(uri: str) -> str:
    """Return the URI, when it is one of a QEMU driver that the testbed can use. Raises UsageError with the reason if
    not."""
    accepted = f"{EMBEDDED}, qemu:///system, qemu+ssh://USER@HOST/system"
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] in ("lxc", "test"):
        other = "its containers are the platform libvirt-lxc" if parts.scheme.startswith("lxc") else "it runs nothing"
        raise UsageError(f"--connect {uri}: no virtual machines there: {other}", f"known: {accepted}")
    if parts.scheme not in _TRANSPORTS:
        raise UsageError(f"--connect {uri}: no connection to QEMU by {parts.scheme or 'that'!r}", f"known: {accepted}")
    if parts.path == "/session":
        raise UsageError(f"--connect {uri}: a user's own daemon may not make cgroups or use taps", f"known: {accepted}")
    if parts.path == "/embed" and uri != EMBEDDED:
        raise UsageError(f"--connect {uri}: the embedded driver's root is the run's own", f"use {EMBEDDED}")
    if parts.path not in ("/embed", "/system"):
        raise UsageError(f"--connect {uri}: libvirt's QEMU driver has no {parts.path or '/'}", f"known: {accepted}")
    if "ssh" in parts.scheme and not parts.hostname:
        raise UsageError(f"--connect {uri}: it names no host", f"known: {accepted}")
    return uri


def embedded_uri(root: Path) -> str:
    """Return the URI of the driver in our own process with its files below ``root``, whatever characters that has."""
    return f"{EMBEDDED}?root={quote(str(root))}"


class Connection:
    """A connection to libvirt that can be opened again after it was lost."""

    def __init__(self, uri: str, open_once: Callable[[], Any]) -> None:
        self.uri = uri
        self._open_once = open_once
        self._current = open_once()
        self._models: tuple[str, ...] | None = None

    @property
    def embedded(self) -> bool:
        """Whether the driver is in our own process, and cannot be lost."""
        return self.uri == EMBEDDED

    def security_models(self) -> tuple[str, ...]:
        """Return what a daemon confines guests by beside their account, as libvirt calls it: ``apparmor``,
        ``selinux``."""
        if self.embedded:  # as _QEMU_CONF has it
            return ()
        if self._models is None:
            models = ElementTree.fromstring(self.current().getCapabilities()).iterfind("host/secmodel/model")
            self._models = tuple(model.text for model in models if model.text and model.text not in ("none", "dac"))
        return self._models

    def lost(self) -> bool:
        """Return whether the daemon has gone, or has not answered for long."""
        return not self.embedded and self._current.isAlive() != 1

    def current(self) -> Any:
        """Return the virConnect. Raises TestbedError when it is lost."""
        if self.lost():
            raise TestbedError(f"the connection to libvirt at {self.uri} was lost", "see whether its daemon runs")
        return self._current

    def reopen(self, limit_s: float | None = None) -> None:
        """Open it again if it was lost, trying for ``limit_s``: a daemon that restarts needs a moment."""
        deadline_s = time.monotonic() + (scale(_REOPEN_LIMIT_S) if limit_s is None else limit_s)
        while self.lost():
            try:
                # The lost one is left to the domains that know it, and ends with the last of them.
                self._current = self._open_once()
            except PrerequisiteError:
                if time.monotonic() > deadline_s:
                    return
                time.sleep(0.1)

    def close(self) -> None:
        """Close it; harmless when it was lost."""
        libvirt = load_libvirt()
        with suppress(libvirt.libvirtError):
            self._current.close()


def _lay_out(root: Path, cache: Path, account: Account) -> Path:
    """Make the driver's directories; return the topmost directory that had to be made."""
    missing = [path for path in (root, *root.parents) if not path.exists()]
    for name in ("etc", "run/qemu", "lib/qemu", "log/qemu"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc" / "qemu.conf").write_text(_QEMU_CONF.format(uid=account.uid, gid=account.gids[0]))
    cache.mkdir(parents=True, exist_ok=True)
    (root / "cache").symlink_to(cache)
    return missing[-1]


def _open(uri: str, what: str, hint: str) -> Any:
    libvirt = ensure_event_loop()
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise PrerequisiteError(f"open {what}: {error}", hint) from error


def _open_daemons(uri: str) -> Any:
    """Connect to a daemon on this machine. Raises PrerequisiteError."""
    remote = urlsplit(uri).hostname
    hint = "see whether libvirtd (or virtqemud) runs, and whether you may use its socket"
    if remote:
        hint = f"see whether `ssh {remote}` works without a password, and libvirtd runs there"
    # By its short name a process that has once used the driver within itself gets that one, and is asked for its root.
    connection = _open(uri.replace("qemu:///", "qemu+unix:///", 1), f"libvirt's QEMU driver at {uri}", hint)
    libvirt = load_libvirt()
    with suppress(libvirt.libvirtError):  # not all transports have it
        connection.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
    host, here = connection.getHostname(), os.uname().nodename
    if host.partition(".")[0] != here.partition(".")[0]:
        connection.close()
        raise PrerequisiteError(
            f"libvirt at {uri} is on {host}, and this is {here}: cgroups, network and consoles of guests there are out "
            "of reach",
            f"run the testbed on {host}",
        )
    return connection


@contextmanager
def connect(uri: str, folder: Path, cache: Path) -> Iterator[Connection]:
    """Connect to ``uri`` (see ``check_uri``); the last two parameters are for ``open_embedded``. Raises
    PrerequisiteError."""
    if uri == EMBEDDED:
        with open_embedded(folder, cache) as inside:
            yield Connection(uri, lambda: inside)
        return
    connection = Connection(uri, lambda: _open_daemons(uri))
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def open_embedded(folder: Path, cache: Path) -> Iterator[Any]:
    """Open a connection (virConnect) to the driver, with its state in the new directory ``folder``, removed at the end.

    What it learns of emulators is stored in ``cache``, which stays. Domains start in the network namespace of the
    thread that starts them. There is one connection, which stays open for as long as the process lives: libvirt
    registers its drivers anew each time that one is opened, and has room for twenty; and its driver knows one
    directory, which whoever comes later uses, too. It is emptied when nobody is left. Raises PrerequisiteError.
    """
    global _users, _connection
    with _sharing:
        if not _users:
            _connection = _closing.enter_context(_open_embedded(folder, cache))
        _users += 1
    try:
        yield _connection
    finally:
        with _sharing:
            _users -= 1
            if not _users:
                _closing.close()


@contextmanager
def _open_embedded(folder: Path, cache: Path) -> Iterator[Any]:
    """Open the process's one connection, with its directories."""
    global _root, _driver
    account = find_emulator_account()  # the driver looks it up, too, and gives up without it
    root = _root = _root or folder
    if set(str(root)) & set(",="):
        reason = "it does not escape commas and equals signs when it asks QEMU what it can do"
        raise UsageError(f"libvirt's own files cannot be at {root}: {reason}")
    topmost = _lay_out(root, cache, account)
    try:
        if _driver is None:
            hint = "install libvirt-daemon-driver-qemu; run ./invoke, which makes the account that it asks for"
            _driver = _open(embedded_uri(root), f"libvirt's embedded QEMU driver at {root}", hint)
            note_storage_module()
        yield _driver
    finally:
        shutil.rmtree(topmost, ignore_errors=True)


def learn_emulator(connection: Any, emulator: Path, kind: str) -> None:
    """Let the driver find out what ``emulator`` can do, which takes seconds when it is not in its cache.

    ``kind`` is the domain type, ``kvm`` or ``qemu``. Raises PrerequisiteError when the emulator does not answer.
    """
    libvirt = load_libvirt()
    try:
        connection.getDomainCapabilities(str(emulator), "x86_64", "q35", kind, 0)
    except libvirt.libvirtError as error:
        raise PrerequisiteError(f"ask {emulator} what it can do: {error}", _emulator_hint(emulator, error)) from error


def _emulator_hint(emulator: Path, error: Exception) -> str:
    """Return what to do when libvirt cannot have an emulator say what it can do."""
    if "Permission denied" not in str(error):
        return "reinstall qemu-system-x86"
    return (
        f"if the kernel's log has an AppArmor denial (journalctl -k --grep DENIED), add the line `{emulator} ixr,` to "
        "/etc/apparmor.d/local/usr.sbin.libvirtd (or .virtqemud) and run `apparmor_parser --replace "
        f"/etc/apparmor.d/usr.sbin.libvirtd`; else see whether its user may execute {emulator}"
    )


def start_domain(connection: Any, xml: str, name: str, *, paused: bool = False) -> Any:
    """Create and start a transient domain (virDomain); it is gone with its QEMU. Raises TestbedError.

    A ``paused`` one has a QEMU whose processors stand still.
    """
    libvirt = load_libvirt()
    try:
        return connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)
    except libvirt.libvirtError as error:
        raise TestbedError(f"start virtual machine {name}: {error}") from error


def destroy_domain(domain: Any) -> None:
    """End a domain; one that has ended by itself is fine, and so is a daemon that has: QEMU's cgroup ends QEMU.

    Raises TestbedError for any other failure.
    """
    libvirt = load_libvirt()
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
        if domain.connect().isAlive() == 1 and error.get_error_code() not in gone:
            raise TestbedError(f"end domain {domain.name()}: {error}") from error

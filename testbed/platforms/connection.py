"""libvirt's QEMU driver inside our own process: ``qemu:///embed``, no daemon, its files below one directory."""

from __future__ import annotations

import operator
import os
import pwd
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from runtime.errors import PrerequisiteError, TestbedError

# The driver leaves cgroups, security labels and namespaces to us; files are root's, and stay so.
_QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
namespaces = []
cgroup_controllers = []
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
"""
_LIBVIRT_USER = "libvirt-qemu"
_event_loop_lock = threading.Lock()
_event_loop: threading.Thread | None = None
_root: Path | None = None
# The connection while somebody uses it, and what closes it after the last of them.
_sharing = threading.Lock()
_users = 0
_connection: Any = None
_closing = ExitStack()


def load_libvirt() -> Any:
    """The libvirt module. Raises PrerequisiteError when the library is missing."""
    # Read when the library initialises. By itself it warns on stderr about every domain that is root's.
    os.environ.setdefault("LIBVIRT_DEBUG", "4")
    try:
        import libvirt
    except ImportError as error:
        raise PrerequisiteError(f"load libvirt: {error}", "install libvirt0 and libvirt-python") from error
    return libvirt


def _run_event_loop(libvirt: Any) -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            continue  # its handlers report what went wrong to whoever waits for them


def _ensure_event_loop(libvirt: Any) -> None:
    """Start the loop that the driver's monitors need; it is the process's only one and lives as long."""
    global _event_loop
    with _event_loop_lock:
        if _event_loop is None:
            # Without a handler libvirt prints every error on stderr; its exceptions say it all. This one, which
            # takes two arguments and does nothing, is not Python code: in a Python function, called from within
            # the library, Ctrl-C would be raised where the library cannot pass it on.
            libvirt.registerErrorHandler(operator.is_, None)
            libvirt.virEventRegisterDefaultImpl()
            _event_loop = threading.Thread(target=_run_event_loop, args=(libvirt,), name="libvirt", daemon=True)
            _event_loop.start()


def _require_user() -> None:
    """The driver looks the user up before it reads its configuration, and gives up without it."""
    try:
        pwd.getpwnam(_LIBVIRT_USER)
    except KeyError as error:
        raise PrerequisiteError(f"no user {_LIBVIRT_USER}", "install libvirt-daemon-system, which makes it") from error


def _lay_out(root: Path, cache: Path) -> Path:
    """Make the driver's directories; return the topmost directory that had to be made."""
    missing = [path for path in (root, *root.parents) if not path.exists()]
    for name in ("etc", "run/qemu", "lib/qemu", "log/qemu"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc" / "qemu.conf").write_text(_QEMU_CONF)
    cache.mkdir(parents=True, exist_ok=True)
    (root / "cache").symlink_to(cache)
    return missing[-1]


@contextmanager
def embedded(folder: Path, cache: Path) -> Iterator[Any]:
    """A connection (virConnect) to the driver, with its state in the new directory ``folder``, removed at the end.

    What it learns of emulators is kept in ``cache``, which stays. Domains start in the network namespace of the
    thread that starts them. The driver knows one directory for as long as the process lives: a second
    connection, after the first, has its state where the first had it; one that is asked for while another is
    open is the same connection, and the last to leave closes it. Raises PrerequisiteError.
    """
    global _users, _connection
    with _sharing:
        if not _users:
            _connection = _closing.enter_context(_opened(folder, cache))
        _users += 1
    try:
        yield _connection
    finally:
        with _sharing:
            _users -= 1
            if not _users:
                _closing.close()


@contextmanager
def _opened(folder: Path, cache: Path) -> Iterator[Any]:
    """The process's one connection."""
    global _root
    _require_user()
    libvirt = load_libvirt()
    root = _root = _root or folder
    topmost = _lay_out(root, cache)
    try:
        _ensure_event_loop(libvirt)
        try:
            connection = libvirt.open(f"qemu:///embed?root={root}")
        except libvirt.libvirtError as error:
            hint = "install libvirt-daemon-system and libvirt-daemon-driver-qemu"
            raise PrerequisiteError(f"open libvirt's embedded QEMU driver at {root}: {error}", hint) from error
        try:
            yield connection
        finally:
            connection.close()
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
        raise PrerequisiteError(f"ask {emulator} what it can do: {error}", "reinstall qemu-system-x86") from error


def start_domain(connection: Any, xml: str, name: str) -> Any:
    """Create and start a transient domain (virDomain); it is gone with its QEMU. Raises TestbedError."""
    libvirt = load_libvirt()
    try:
        return connection.createXML(xml, 0)
    except libvirt.libvirtError as error:
        raise TestbedError(f"start virtual machine {name}: {error}") from error


def destroy_domain(domain: Any) -> None:
    """End a domain's QEMU; one that has ended by itself is fine. Raises TestbedError for any other failure."""
    libvirt = load_libvirt()
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            raise TestbedError(f"stop virtual machine {domain.name()}: {error}") from error

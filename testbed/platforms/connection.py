"""libvirt's QEMU driver inside our own process: ``qemu:///embed``, no daemon, its files below one directory."""

from __future__ import annotations

import operator
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from runtime.errors import PrerequisiteError, TestbedError
from testbed.platforms.account import Account, emulator_account
from testbed.platforms.libvirt_modules import note_storage_module

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


def _lay_out(root: Path, cache: Path, account: Account) -> Path:
    """Make the driver's directories; return the topmost directory that had to be made."""
    missing = [path for path in (root, *root.parents) if not path.exists()]
    for name in ("etc", "run/qemu", "lib/qemu", "log/qemu"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc" / "qemu.conf").write_text(_QEMU_CONF.format(uid=account.uid, gid=account.gids[0]))
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
    account = emulator_account()  # the driver looks it up, too, and gives up without it
    libvirt = load_libvirt()
    root = _root = _root or folder
    topmost = _lay_out(root, cache, account)
    try:
        _ensure_event_loop(libvirt)
        try:
            connection = libvirt.open(f"qemu:///embed?root={root}")
        except libvirt.libvirtError as error:
            hint = "install libvirt-daemon-system and libvirt-daemon-driver-qemu"
            raise PrerequisiteError(f"open libvirt's embedded QEMU driver at {root}: {error}", hint) from error
        note_storage_module()
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
    """End a domain's QEMU; one that has ended by itself is fine. Raises TestbedError for any other failure."""
    libvirt = load_libvirt()
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            raise TestbedError(f"stop virtual machine {domain.name()}: {error}") from error

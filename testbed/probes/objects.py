"""Objects of the host's that canaries are: System V's and POSIX's, keys, and disks made of files.

They outlive whoever made them, so each is noted in the run's directory before it is used; ``remove_left`` removes what
a run that was killed has noted.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runtime.atomic import replace_file
from runtime.libc import syscall

# Its name has the attack's token: a run may have several attacks under way.
_RECORD, _RECORDS = "canaries-{}.json", "canaries-*.json"
_IPC_CREAT, _IPC_EXCL, _IPC_RMID, _GETVAL = 0o1000, 0o2000, 0, 12
_THREAD_KEYRING, _USER_KEYRING = -1, -4
_KEYCTL_LINK, _KEYCTL_REVOKE, _KEYCTL_SETPERM, _KEYCTL_SEARCH, _KEYCTL_TIMEOUT, _KEYCTL_UNLINK = 8, 3, 5, 10, 15, 9
_KEY_OPEN = 0x3F3F0000  # its possessor and its user may do everything
_TIMEOUT_S = 900
# By machine: add_key(2), keyctl(2), mq_open(2), mq_unlink(2), mq_timedsend(2).
_NUMBERS = {"x86_64": (248, 250, 240, 241, 242), "aarch64": (217, 219, 180, 181, 182)}
_ADD_KEY, _KEYCTL, _MQ_OPEN, _MQ_UNLINK, _MQ_SEND = _NUMBERS.get(os.uname().machine, _NUMBERS["x86_64"])
_ROOT = Path("/")
_OWN_DIRECTORIES = ".testbed-probe-"


def _call(function: str, *arguments: object, result: object = ctypes.c_int) -> int:
    """Call a function of the C library that returns -1 where it fails. Raises OSError."""
    called = getattr(ctypes.CDLL(None, use_errno=True), function)
    called.restype = result
    value: int = called(*arguments)
    if value in (-1, None, 2**64 - 1):
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return value


class Noted:
    """What an attack has made, in the run's directory ``lease``: each a kind with a number or name."""

    def __init__(self, lease: Path, token: str) -> None:
        self._file = lease / _RECORD.format(token)
        self._noted: list[tuple[str, str]] = []

    def add(self, kind: str, what: object) -> None:
        """Note one."""
        self._noted.append((kind, str(what)))
        replace_file(self._file, json.dumps(self._noted).encode())

    def remove(self) -> None:
        """Remove all of them, the last first, and what is noted."""
        while self._noted:
            _remove(*self._noted.pop())
        self._file.unlink(missing_ok=True)


def make_segment(noted: Noted, key: int, secret: bytes) -> None:
    """Make a segment of shared memory that begins with a secret. Raises OSError."""
    segment = _call("shmget", key, 4096, _IPC_CREAT | _IPC_EXCL | 0o600)
    noted.add("segment", segment)
    at = _call("shmat", segment, None, 0, result=ctypes.c_void_p)
    ctypes.memmove(at, secret + b"\0", len(secret) + 1)
    _call("shmdt", ctypes.c_void_p(at))


def make_semaphore(noted: Noted, key: int) -> int:
    """Make a set of one semaphore and return its number. Raises OSError."""
    made = _call("semget", key, 1, _IPC_CREAT | _IPC_EXCL | 0o600)
    noted.add("semaphore", made)
    return made


def read_semaphore(number: int) -> int:
    """Return the value of the set's first. Raises OSError."""
    return _call("semctl", number, 0, _GETVAL)


def make_queue(noted: Noted, key: int, secret: bytes) -> None:
    """Make a message queue with one message. Raises OSError."""
    queue = _call("msgget", key, _IPC_CREAT | _IPC_EXCL | 0o600)
    noted.add("queue", queue)
    _call("msgsnd", queue, struct.pack("@l", 1) + secret, len(secret), 0)


def make_posix_queue(noted: Noted, name: str, secret: bytes) -> None:
    """Make a POSIX message queue with one message of at most 128 bytes. Raises OSError."""
    attributes = struct.pack("@8l", 0, 4, 128, 0, 0, 0, 0, 0)
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
    descriptor = syscall(_MQ_OPEN, name.encode(), flags, 0o600, attributes)
    noted.add("posix_queue", name)
    try:
        syscall(_MQ_SEND, descriptor, secret, ctypes.c_size_t(len(secret)), 0, None)
    finally:
        os.close(descriptor)


def make_key(noted: Noted, name: str, secret: bytes) -> None:
    """Put a key into the keyring of this user, where it ends by itself after a while. Raises OSError.

    The session of a service of systemd's has not that keyring in it (systemd.exec(5), KeyringMode=), and who does not
    possess a key may not say what others may do with it: so this thread's has, which nobody inherits (keyrings(7)).
    """
    syscall(_KEYCTL, _KEYCTL_LINK, ctypes.c_int(_USER_KEYRING), ctypes.c_int(_THREAD_KEYRING))
    arguments = (b"user", name.encode(), secret, ctypes.c_size_t(len(secret)), ctypes.c_int(_USER_KEYRING))
    number = syscall(_ADD_KEY, *arguments)
    noted.add("key", number)
    syscall(_KEYCTL, _KEYCTL_SETPERM, ctypes.c_uint(number), ctypes.c_uint(_KEY_OPEN))
    syscall(_KEYCTL, _KEYCTL_TIMEOUT, ctypes.c_uint(number), _TIMEOUT_S)


def find_key(name: str) -> int | None:
    """Return the number of a key in the keyring of this user, if it is there."""
    with suppress(OSError):
        return syscall(_KEYCTL, _KEYCTL_SEARCH, ctypes.c_int(_USER_KEYRING), b"user", name.encode(), 0)
    return None


def remove_key(number: int) -> None:
    """Take a key out of the keyring of this user, for good. Raises OSError."""
    syscall(_KEYCTL, _KEYCTL_REVOKE, ctypes.c_uint(number))
    with suppress(OSError):
        syscall(_KEYCTL, _KEYCTL_UNLINK, ctypes.c_uint(number), ctypes.c_int(_USER_KEYRING))


def _unlink_queue(name: str) -> None:
    syscall(_MQ_UNLINK, name.encode())


def _remove_named_key(name: str) -> None:
    if (found := find_key(name)) is not None:
        remove_key(found)


def _remove_directories(token: str) -> None:
    for left in _ROOT.glob(f"{_OWN_DIRECTORIES}{token}-*"):
        shutil.rmtree(left, ignore_errors=True)


_REMOVERS: dict[str, Callable[[str], object]] = {
    "segment": lambda one: _call("shmctl", int(one), _IPC_RMID, None),
    "semaphore": lambda one: _call("semctl", int(one), 0, _IPC_RMID),
    "queue": lambda one: _call("msgctl", int(one), _IPC_RMID, None),
    "posix_queue": _unlink_queue,
    "key": lambda one: remove_key(int(one)),
    "named_key": _remove_named_key,
    "directories": _remove_directories,
}


def _remove(kind: str, what: str) -> None:
    with suppress(OSError, ValueError):  # it is gone already, as after a restart
        if kind in _REMOVERS:
            _REMOVERS[kind](what)


def read_left(lease: Path) -> tuple[tuple[str, str], ...]:
    """Return what a run has noted of its canaries: kinds, and which."""
    return tuple(one for record in sorted(lease.glob(_RECORDS)) for one in _read_record(record))


def _read_record(record: Path) -> tuple[tuple[str, str], ...]:
    try:
        return tuple((str(kind), str(what)) for kind, what in json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        return ()


def remove_left(lease: Path) -> None:
    """Remove the canaries that a dead run has noted in its directory."""
    for kind, what in reversed(read_left(lease)):
        _remove(kind, what)
    for record in lease.glob(_RECORDS):
        record.unlink(missing_ok=True)

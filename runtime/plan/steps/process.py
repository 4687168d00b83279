"""The process's surroundings, and the program that it becomes."""

from __future__ import annotations

import os
from typing import ClassVar

from runtime.plan.steps.base import Step

_MASK_BYTES = 1024  # 8192 processors, the most that a kernel is built for


def _bits(numbers: tuple[int, ...]) -> bytes:
    """A set of numbers as the kernel takes it: an array of 64-bit words."""
    mask = sum(1 << number for number in set(numbers))
    return mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little")


class Unshare(Step, frozen=True):
    op: ClassVar[int] = 12
    flags: int

    def numbers(self) -> tuple[int, ...]:
        return (self.flags,)


class JoinNamespace(Step, frozen=True):
    """setns(2) to the namespace at ``path``, which must be of the type ``flag`` (CLONE_NEW...)."""

    op: ClassVar[int] = 32
    path: str
    flag: int

    def numbers(self) -> tuple[int, ...]:
        return (self.flag,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


class SetHostname(Step, frozen=True):
    op: ClassVar[int] = 10
    hostname: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.hostname.encode(),)


class SetDomainname(Step, frozen=True):
    op: ClassVar[int] = 40
    domainname: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.domainname.encode(),)


class SetRlimit(Step, frozen=True):
    op: ClassVar[int] = 11
    resource: int
    soft: int
    hard: int

    def numbers(self) -> tuple[int, ...]:
        return (self.resource, self.soft, self.hard)


class Umask(Step, frozen=True):
    op: ClassVar[int] = 17
    mask: int

    def numbers(self) -> tuple[int, ...]:
        return (self.mask,)


class Setsid(Step, frozen=True):
    op: ClassVar[int] = 18


class CloseOnExec(Step, frozen=True):
    """Mark every descriptor from ``first`` up close-on-exec."""

    op: ClassVar[int] = 20
    first: int = 3

    def numbers(self) -> tuple[int, ...]:
        return (self.first,)


class SetScheduler(Step, frozen=True):
    """sched_setattr(2); times in nanoseconds."""

    op: ClassVar[int] = 35
    policy: int
    flags: int = 0
    nice: int = 0
    priority: int = 0
    runtime: int = 0
    deadline: int = 0
    period: int = 0

    def numbers(self) -> tuple[int, ...]:
        nice = self.nice & (1 << 64) - 1
        return (self.policy | self.flags << 32, nice, self.priority, self.runtime, self.deadline, self.period)


class Affinity(Step, frozen=True):
    """sched_setaffinity(2): the processors it may run on, of those that its cgroup has; none given: all of them."""

    op: ClassVar[int] = 36
    processors: tuple[int, ...] = ()

    def strings(self) -> tuple[bytes, ...]:
        return (_bits(self.processors) if self.processors else b"\xff" * _MASK_BYTES,)


class MemoryPolicy(Step, frozen=True):
    """set_mempolicy(2): the ``mode`` with its flags, and the memory nodes that it is about."""

    op: ClassVar[int] = 65
    mode: int
    nodes: tuple[int, ...] = ()

    def numbers(self) -> tuple[int, ...]:
        return (self.mode,)

    def strings(self) -> tuple[bytes, ...]:
        return (_bits(self.nodes),)


class IOPriority(Step, frozen=True):
    """ioprio_set(2): the class in the bits from 13 up, the level below."""

    op: ClassVar[int] = 37
    value: int

    def numbers(self) -> tuple[int, ...]:
        return (self.value,)


class Personality(Step, frozen=True):
    op: ClassVar[int] = 38
    persona: int

    def numbers(self) -> tuple[int, ...]:
        return (self.persona,)


class SessionKeyring(Step, frozen=True):
    """keyctl(2) KEYCTL_JOIN_SESSION_KEYRING: a new session keyring, so that the caller's keys stay the caller's."""

    op: ClassVar[int] = 39
    name: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.name.encode(),)


class DeathSignal(Step, frozen=True):
    """prctl PR_SET_PDEATHSIG: the kernel sends signal ``number`` when the parent ends. A change of user undoes it."""

    op: ClassVar[int] = 64
    number: int

    def numbers(self) -> tuple[int, ...]:
        return (self.number,)


class OwnStreams(Step, frozen=True):
    """fchown(2) pipes among the standard streams to ``uid``, which can then open /dev/stdin and its like."""

    op: ClassVar[int] = 48
    uid: int

    def numbers(self) -> tuple[int, ...]:
        return (self.uid,)


class LookUp(Step, frozen=True):
    """Fail as Exec would when the program is absent or not executable."""

    op: ClassVar[int] = 45
    program: str
    search: str = ""

    def strings(self) -> tuple[bytes, ...]:
        return (self.search.encode(), self.program.encode())


class Exec(Step, frozen=True):
    """execve(2). A name without a slash is looked up in ``search``, a PATH, as execvpe would; ``program`` is executed
    instead, whatever the first argument says.

    ``append_arguments`` adds the launcher's own command-line arguments and keeps its environment: the
    launcher then is a wrapper around the program. ``at_home``: the last variable is HOME, and becomes what Home found.
    """

    op: ClassVar[int] = 28
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    search: str = ""
    append_arguments: bool = False
    at_home: bool = False
    program: str = ""

    def numbers(self) -> tuple[int, ...]:
        bits = self.at_home | bool(self.program) << 1
        return (int(self.append_arguments), len(self.args), len(self.env), bits)

    def strings(self) -> tuple[bytes, ...]:
        return tuple(os.fsencode(s) for s in (self.program or self.search, *self.args, *self.env))


class Home(Step, frozen=True):
    """Look for the home directory of ``uid`` in /etc/passwd below the root, a regular file of at most 1 MiB, for Exec's
    HOME; where it is not found, that stays as it is."""

    op: ClassVar[int] = 63
    uid: int

    def numbers(self) -> tuple[int, ...]:
        return (self.uid,)


class Fork(Step, frozen=True):
    """clone3(2) with ``flags``: the next ``count`` steps are those of a process of its own, which ends with them unless
    one of them is Exec. The plan goes on after them without waiting. A forked process forks no further.
    """

    op: ClassVar[int] = 51
    count: int
    flags: int = 0

    def numbers(self) -> tuple[int, ...]:
        return (self.count, self.flags)


def forked(*steps: Step, flags: int = 0) -> tuple[Step, ...]:
    """The steps as a process of its own beside the one whose plan they stand in."""
    return (Fork(len(steps), flags), *steps)


class AwaitEnd(Step, frozen=True):
    """Wait for the first forked process to end, say ``testbed: NAME: ended: STATUS`` on descriptor 2, and end with its
    status, 128 + n for signal n. ``names`` are the forked processes' in the order of their forks; the end of one
    without a name is nobody's concern.
    """

    op: ClassVar[int] = 55
    names: tuple[str, ...]

    def strings(self) -> tuple[bytes, ...]:
        return tuple(name.encode() for name in self.names)


class NewUserNamespace(Step, frozen=True):
    """Make a user namespace that nobody is in, with these maps of ids (lines as in uid_map), and hold it open as
    descriptor ``fd``: mounts can take their mapping from it."""

    op: ClassVar[int] = 50
    fd: int
    uid_map: str
    gid_map: str

    def numbers(self) -> tuple[int, ...]:
        return (self.fd,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.uid_map.encode(), self.gid_map.encode())


class SetClock(Step, frozen=True):
    """clock_settime(2) CLOCK_REALTIME, in nanoseconds since 1970."""

    op: ClassVar[int] = 57
    realtime_ns: int

    def numbers(self) -> tuple[int, ...]:
        return divmod(self.realtime_ns, 10**9)


class AddEntropy(Step, frozen=True):
    """random(4) RNDADDENTROPY on ``device``, credited in full, then RNDRESEEDCRNG: at most 512 bytes, all secret."""

    op: ClassVar[int] = 58
    entropy: bytes
    device: str = "/dev/urandom"

    def strings(self) -> tuple[bytes, ...]:
        return (self.device.encode(), self.entropy)

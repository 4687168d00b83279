"""Define the steps that set up the process's surroundings and namespaces and execute its program."""

from typing import Annotated

from runtime.plan.constants import CLONE_FLAGS, CLONE_NEWNET, MEMORY_POLICIES, MEMORY_POLICY_FLAGS, RLIMITS
from runtime.plan.steps import purposes
from runtime.plan.steps.arguments import Bits, Id, Long, Mode, Positive, Signed, String, Word, bits
from runtime.plan.steps.base import Step
from runtime.plan.steps.words import flag_names

_MASK_BYTES = 1024  # a kernel is built for 8192 processors at most


class Unshare(Step, frozen=True):
    flags: Word

    def describe(self) -> str:
        return f"unshare {flag_names(self.flags, CLONE_FLAGS)}"

    def reason(self) -> str:
        return purposes.NETWORK if self.flags == CLONE_NEWNET else purposes.NAMESPACE


class JoinNamespace(Step, frozen=True):
    """Call setns(2) to join the namespace at ``path``, which must be of the type ``flag`` (CLONE_NEW...)."""

    purpose = purposes.NAMESPACE

    path: str
    flag: Word

    def describe(self) -> str:
        return f"setns {self.path} {flag_names(self.flag, CLONE_FLAGS)}"


class JoinProcess(Step, frozen=True):
    """Call setns(2) to join the namespaces of the types ``flags`` that the process at descriptor ``fd`` (pidfd_open(2))
    is in, or the one namespace that it is a descriptor of; with a mount namespace comes the root of that."""

    purpose = purposes.NAMESPACE

    fd: Positive
    flags: Word

    def describe(self) -> str:
        return f"setns to those of descriptor {self.fd}: {flag_names(self.flags, CLONE_FLAGS)}"


class NewUserNamespace(Step, frozen=True):
    """Make a user namespace without any process, with these ID maps (lines as in uid_map), and hold it open as
    descriptor ``fd``, so that mounts can take their mapping from it."""

    purpose = purposes.ROOT

    fd: Positive
    uid_map: str
    gid_map: str

    def describe(self) -> str:
        maps = f"uids {self.uid_map.strip()!r}, gids {self.gid_map.strip()!r}"
        return f"clone3 CLONE_NEWUSER with {maps}, held as descriptor {self.fd}"


class SetHostname(Step, frozen=True):
    words = "sethostname {hostname}"
    purpose = purposes.IDENTITY

    hostname: str


class SetDomainname(Step, frozen=True):
    words = "setdomainname {domainname}"
    purpose = purposes.IDENTITY

    domainname: str


class SetRlimit(Step, frozen=True):
    purpose = purposes.SESSION

    resource: Positive
    soft: Long
    hard: Long

    def describe(self) -> str:
        return f"setrlimit {RLIMITS[self.resource]} soft={self.soft} hard={self.hard}"


class Umask(Step, frozen=True):
    words = "umask {mask:04o}"
    purpose = purposes.SESSION

    mask: Mode


class Setsid(Step, frozen=True):
    words = "setsid"
    purpose = purposes.SESSION


class CloseOnExec(Step, frozen=True):
    """Mark every descriptor from ``first`` up close-on-exec."""

    words = "close_range from {first}: close on exec"
    purpose = purposes.DESCRIPTORS

    first: Positive = 3


class SetScheduler(Step, frozen=True):
    """Call sched_setattr(2); times are in nanoseconds."""

    words = "sched_setattr policy={policy} nice={nice} priority={priority} flags={flags:#x}"
    purpose = purposes.SESSION

    policy: Word
    flags: Word = 0
    nice: Signed = 0
    priority: Word = 0
    runtime: Long = 0
    deadline: Long = 0
    period: Long = 0


def _processors(numbers: tuple[int, ...]) -> bytes:
    return bits(numbers) if numbers else b"\xff" * _MASK_BYTES


class Affinity(Step, frozen=True):
    """Call sched_setaffinity(2) with the processors to run on, of those that the cgroup has; empty means all."""

    purpose = purposes.SESSION

    processors: Annotated[tuple[int, ...], String(_processors, raw=True)] = ()

    def describe(self) -> str:
        return f"sched_setaffinity {','.join(map(str, self.processors)) or 'all that the cgroup has'}"


class MemoryPolicy(Step, frozen=True):
    """Call set_mempolicy(2) with the ``mode``, which includes its flags, and the memory nodes that it applies to."""

    purpose = purposes.SESSION

    mode: Word
    nodes: Bits = ()

    def describe(self) -> str:
        modes = [name for name, number in MEMORY_POLICIES.items() if number == self.mode & 0xFFF]
        flags = [name for name, bit in MEMORY_POLICY_FLAGS.items() if bit & self.mode]
        return f"set_mempolicy {'|'.join((*modes, *flags))} nodes={','.join(map(str, self.nodes))}"


class IOPriority(Step, frozen=True):
    """Call ioprio_set(2); ``value`` has the class in the bits from 13 up, and the level below."""

    purpose = purposes.SESSION

    value: Word

    def describe(self) -> str:
        return f"ioprio_set class={self.value >> 13} priority={self.value & 0x1FFF}"


class Personality(Step, frozen=True):
    words = "personality {persona:#x}"
    purpose = purposes.SESSION

    persona: Word


class SessionKeyring(Step, frozen=True):
    """Join a new session keyring (keyctl(2) KEYCTL_JOIN_SESSION_KEYRING), so the caller's keys stay out of reach."""

    words = "keyctl KEYCTL_JOIN_SESSION_KEYRING {name}"
    purpose = purposes.SESSION

    name: str


class DeathSignal(Step, frozen=True):
    """Call prctl PR_SET_PDEATHSIG, so that the kernel sends signal ``number`` when the parent ends. A change of user
    clears this."""

    words = "prctl PR_SET_PDEATHSIG {number}"
    purpose = purposes.SESSION

    number: Positive


class ChownStdio(Step, frozen=True):
    """Give pipes among the standard streams to ``uid`` with fchown(2), so that it can open /dev/stdin and the like."""

    words = "fchown the standard streams that are pipes to {uid}"
    purpose = purposes.SESSION

    uid: Id


class CheckExecutable(Step, frozen=True):
    """Fail as Exec would when the program is absent or not executable."""

    purpose = purposes.SESSION

    program: str
    search: str = ""

    def describe(self) -> str:
        return f"faccessat {self.program} X_OK" + (f" along {self.search}" if self.search else "")


class Exec(Step, frozen=True):
    """Call execve(2). A name without a slash is looked up in ``search``, a PATH, as execvpe would. ``program``, if
    given, is executed instead, whatever the first argument says.

    ``append_arguments`` adds the launcher's own command-line arguments and keeps its environment: the launcher is then
    a wrapper around the program. ``at_home``: the last variable is HOME, and becomes what FindHome found.
    """

    purpose = purposes.EXEC
    subject = "args"

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    search: str = ""
    append_arguments: bool = False
    at_home: bool = False
    program: str = ""

    def describe(self) -> str:
        return f"execve {self.program or ''}{' as ' if self.program else ''}{' '.join(self.args)}"


class FindHome(Step, frozen=True):
    """Look up the home directory of ``uid`` for Exec's HOME in /etc/passwd below the root, which must be a regular file
    of at most 1 MiB. Where none is found, HOME stays as it is."""

    words = "read the home directory of user {uid} from etc/passwd"
    purpose = purposes.SESSION

    uid: Id


class Fork(Step, frozen=True):
    """Call clone3(2) with ``flags``: the next ``count`` steps are performed by a new process, which ends with them
    unless one of them is Exec. The plan goes on after them without waiting. A forked process does not fork again.
    """

    purpose = purposes.BESIDE

    count: Positive
    flags: Word = 0

    def describe(self) -> str:
        own = f" in {flag_names(self.flags, CLONE_FLAGS)}" if self.flags else ""
        return f"clone3{own}: the next {self.count} steps are a process of its own"


def forked(*steps: Step, flags: int = 0) -> tuple[Step, ...]:
    """Wrap the steps so that a process of their own performs them, beside the one whose plan they are in."""
    return (Fork(len(steps), flags), *steps)


class OpenForked(Step, frozen=True):
    """Open the process that was forked as number ``number``, from 0, as descriptor ``fd`` (pidfd_open(2))."""

    words = "pidfd_open forked process {number} as descriptor {fd}"
    purpose = purposes.COMMANDS

    number: Positive
    fd: Positive


class OpenProcess(Step, frozen=True):
    """Open the process ``pid`` as descriptor ``fd`` (pidfd_open(2))."""

    words = "pidfd_open process {pid} as descriptor {fd}"
    purpose = purposes.COMMANDS

    pid: Positive
    fd: Positive


class WaitFirstExit(Step, frozen=True):
    """Wait for the first named forked process to end, report ``testbed: NAME: ended: STATUS`` on descriptor 2, and end
    with its status, 128 + n for signal n. ``names`` are those of the forked processes in the order of their forks;
    the end of a process without a name is ignored. One whose bit is set in ``leaving`` (the first's is 1) leaves the
    others instead, with ``testbed: NAME: left: STATUS``, unless it is the last.
    """

    purpose = purposes.TOGETHER

    names: tuple[str, ...]
    leaving: Long = 0

    def describe(self) -> str:
        names = ", ".join(filter(None, self.names))
        leaving = ", ".join(name for number, name in enumerate(self.names) if self.leaving >> number & 1)
        apart = f", but for {leaving}, as long as another is there" if leaving else ""
        return f"wait4 for the first of {names} to end{apart}, exit_group with its status"

"""Define the steps that talk to the parent, the kernel and whoever reads the console."""

from runtime.plan.steps import purposes
from runtime.plan.steps.arguments import Comment, Id, Line, Long, Positive, Size
from runtime.plan.steps.base import LISTEN_FD, Step
from runtime.plan.steps.words import quoted


class Sync(Step, frozen=True):
    """Tell the parent that point ``number`` is reached and wait until it says to go on."""

    words = "tell the parent: {what}; wait for its word"
    purpose = purposes.SYNC

    number: Positive
    what: Comment = ""


class NoteTimes(Step, frozen=True):
    """Note from here on when each step ends, in nanoseconds of CLOCK_MONOTONIC: in the file of memory at descriptor
    ``fd``, 8 bytes for each step of the plan at its index, then 8 for the begin of the cloned process. The descriptor
    is closed; what forks notes in the same memory."""

    words = "note when each step ends, in the memory behind descriptor {fd}"
    purpose = purposes.PHASE

    fd: Positive


class WaitStart(Step, frozen=True):
    """Wait, now that the container is created, until somebody connects to LISTEN_FD and says to start it."""

    words = f"accept on descriptor {LISTEN_FD}: wait until it is started"
    purpose = purposes.SYNC


class RequestAdmission(Step, frozen=True):
    """Connect to the Unix socket at ``path`` and wait until its listener says to go on. The listener knows who asks,
    and may put the process into cgroups or grant it other things that the process has no right to take. A descriptor
    that comes with the answer becomes standard input. Fails with EACCES when the listener refuses."""

    words = "connect to {path} and wait for the word to go on"
    purpose = purposes.SYNC

    path: str


class Terminal(Step, frozen=True):
    """Make a new terminal of the devpts at dev/pts the standard streams, and send its master to the parent."""

    words = "open dev/pts/ptmx, ioctl TIOCGPTPEER for user {uid}, send the master to the parent"
    purpose = purposes.SESSION

    uid: Id
    rows: Size = 0
    columns: Size = 0
    console: bool = True


class LogLine(Step, frozen=True):
    """Write one line to descriptor 2 (in a guest: the console), for whoever times the phases."""

    purpose = purposes.PHASE

    text: Line

    def describe(self) -> str:
        return f"write {quoted(self.text)} to the console"


class ServePlans(Step, frozen=True):
    """Read encoded plans from descriptor ``fd``, a terminal, and perform each as it comes, until end of file.

    The plans hold no Exec. When a step fails, the error is reported on standard error as usual, and the next plan is
    awaited.
    """

    words = "perform the plans that come through descriptor {fd}"
    purpose = purposes.SERVE

    fd: Positive


class WaitInput(Step, frozen=True):
    """Wait until descriptor ``fd`` has something to read, and take one byte of it; end of file is a failure."""

    words = "read a byte from descriptor {fd}: wait for the word to go on"
    purpose = purposes.SYNC

    fd: Positive


class ServeFile(Step, frozen=True):
    """Whenever input arrives on descriptor ``fd``, write the current content of the file ``path`` there, then ``end``.

    This goes on for as long as the other side is there, so it is a step for a forked process.
    """

    words = "read descriptor {fd}, each time write {path} there"
    purpose = purposes.TELL

    path: str
    fd: Positive
    end: Line


class ServeCommands(Step, frozen=True):
    """Execute the programs that frames through a port ask for, several at a time, each by a plan of its own, and pass
    their streams on (launcher/frames.py). The port is the first of the ``paths`` that there is, within ``timeout_ms``.
    This goes on for as long as it is there, so it is a step for a forked process."""

    purpose = purposes.COMMANDS

    paths: tuple[str, ...]
    timeout_ms: Positive = 10_000

    def describe(self) -> str:
        at = self.paths[0] if len(self.paths) == 1 else f"{self.paths[0]} to {self.paths[-1]}"
        return f"execute what frames through {at} ask for, and pass its streams on"


class NetlinkSocket(Step, frozen=True):
    """Open a NETLINK_ROUTE socket in the current network namespace, as descriptor ``fd``."""

    words = "open a route netlink socket as descriptor {fd}"
    purpose = purposes.NETWORK

    fd: Positive


class Netlink(Step, frozen=True):
    """Send one rtnetlink request on ``fd`` and receive the kernel's answer; ``what`` is for the reader."""

    words = "netlink on descriptor {fd}: {what}"
    purpose = purposes.NETWORK

    fd: Positive
    message: bytes
    what: Comment = ""


class SetClock(Step, frozen=True):
    """Set CLOCK_REALTIME with clock_settime(2), in nanoseconds since 1970."""

    purpose = purposes.AFRESH

    realtime_ns: Long

    def describe(self) -> str:
        return f"clock_settime CLOCK_REALTIME to {self.realtime_ns / 1e9:.9f} s since 1970"


class AddEntropy(Step, frozen=True):
    """Call RNDADDENTROPY on ``device`` (random(4)), credited in full, then RNDRESEEDCRNG.

    ``entropy`` is at most 512 bytes, all of them secret."""

    purpose = purposes.AFRESH

    entropy: bytes
    device: str = "/dev/urandom"

    def describe(self) -> str:
        return f"ioctl {self.device} RNDADDENTROPY with {len(self.entropy)} fresh bytes, then RNDRESEEDCRNG"

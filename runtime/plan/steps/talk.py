"""Talking: with the parent, the kernel's network, and whoever reads the console."""

from runtime.plan.steps import purposes
from runtime.plan.steps.arguments import Comment, Id, Line, Long, Positive, Size
from runtime.plan.steps.base import LISTEN_FD, Step
from runtime.plan.steps.words import quoted


class Sync(Step, frozen=True):
    """Tell the parent that point ``number`` is reached and wait for its word to go on."""

    words = "tell the parent: {what}; wait for its word"
    purpose = purposes.SYNC

    number: Positive
    what: Comment = ""


class WaitStart(Step, frozen=True):
    """The container is created: wait until somebody connects to LISTEN_FD and gives the word."""

    words = f"accept on descriptor {LISTEN_FD}: wait until it is started"
    purpose = purposes.SYNC


class RequestAdmission(Step, frozen=True):
    """Connect to the Unix socket at ``path`` and wait for the word of who listens there: it knows who asks, and may put
    the process into cgroups or grant it other things that it has no right to take; a descriptor that comes with the
    word becomes standard input. EACCES when it is refused."""

    words = "connect to {path} and wait for the word to go on"
    purpose = purposes.SYNC

    path: str


class Terminal(Step, frozen=True):
    """A new terminal of the devpts at dev/pts becomes the standard streams; its master goes to the parent."""

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
    """Read encoded plans from descriptor ``fd``, a terminal, and perform each as it comes, until its end.

    They hold no Exec. One of which a step fails is reported as ever, on standard error, and the next is awaited.
    """

    words = "perform the plans that come through descriptor {fd}"
    purpose = purposes.SERVE

    fd: Positive


class ServeFile(Step, frozen=True):
    """Whenever something comes in on descriptor ``fd``, write there what the file ``path`` says now, then ``end``.

    It goes on for as long as the other side is there: a step of a forked process.
    """

    words = "read descriptor {fd}, each time write {path} there"
    purpose = purposes.TELL

    path: str
    fd: Positive
    end: Line


class NetlinkSocket(Step, frozen=True):
    """Open a route netlink socket in the current network namespace, at descriptor ``fd``."""

    words = "open a route netlink socket as descriptor {fd}"
    purpose = purposes.NETWORK

    fd: Positive


class Netlink(Step, frozen=True):
    """Send one rtnetlink request on ``fd`` and take the kernel's answer; ``what`` is for the reader."""

    words = "netlink on descriptor {fd}: {what}"
    purpose = purposes.NETWORK

    fd: Positive
    message: bytes
    what: Comment = ""


class SetClock(Step, frozen=True):
    """clock_settime(2) CLOCK_REALTIME, in nanoseconds since 1970."""

    purpose = purposes.AFRESH

    realtime_ns: Long

    def describe(self) -> str:
        return f"clock_settime CLOCK_REALTIME to {self.realtime_ns / 1e9:.9f} s since 1970"


class AddEntropy(Step, frozen=True):
    """random(4) RNDADDENTROPY on ``device``, credited in full, then RNDRESEEDCRNG: at most 512 bytes, all secret."""

    purpose = purposes.AFRESH

    entropy: bytes
    device: str = "/dev/urandom"

    def describe(self) -> str:
        return f"ioctl {self.device} RNDADDENTROPY with {len(self.entropy)} fresh bytes, then RNDRESEEDCRNG"

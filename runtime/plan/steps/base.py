"""Define what all steps share, and the plan that holds them.

Adding an operation takes two things:

1. A class in this package, which is a frozen ``Step`` with a verb for a name (``SetHostname``). Its fields are the
   operation's arguments, and their annotations say how the launcher gets them (``arguments.py``). ``words``, a format
   string of the fields, or else ``describe``, describes it in one line that begins with the system call; ``purpose``,
   or else ``reason``, says why it is in a plan (``purposes.py`` has the sentences).
2. A C function in launcher/executor/ that performs it: ``int perform_set_hostname(const struct step *s)`` finds the
   arguments by their names, ``s->set_hostname.hostname``, and returns 0, or a negative errno.

Everything else is derived from the class when the launcher is compiled (launcher/header.py): the operation's code, its
prototype and dispatch, the checks of its numbers and strings, its name in errors, and what the fuzzer tries.
"""

from collections.abc import Iterator
from typing import ClassVar

from msgspec import Struct
from msgspec.structs import asdict

# These descriptors outlive steps: the parent's socket, the plan, the container's root, where start connects, and the
# memory for the times of steps.
SYNC_FD, PLAN_FD, ROOT_FD, LISTEN_FD, TIMES_FD = range(100, 105)
# The command line uses these: the socket that becomes LISTEN_FD, the planner, the container's lock, the log, and the
# first of the descriptors that come with a plan.
LISTENING_FD, PLANNER_FD, LOCK_FD, LOG_FD, RECEIVED_FD = range(111, 116)


class Step(Struct, frozen=True, kw_only=True):
    """A step is one operation. The plan goes on after an errno that is in ``tolerate``."""

    words: ClassVar[str] = ""
    purpose: ClassVar[str] = ""
    # The launcher's own errors show this argument, or the first that is text where none is named.
    subject: ClassVar[str] = ""

    tolerate: tuple[int, ...] = ()

    def describe(self) -> str:
        """Describe the step in words: the system call, what it acts on, and its arguments."""
        return self.words.format_map(asdict(self)).rstrip()

    def reason(self) -> str:
        """Say why the step is in a plan, in one sentence that is never empty."""
        return self.purpose


class Plan(Struct, frozen=True):
    """A plan is what the launcher does: it performs the ``parent`` steps, calls clone3 with ``clone_flags``, and
    performs the ``child`` steps in the new process.

    ``into_cgroup`` is the cgroup v2 directory that the child is cloned into (CLONE_INTO_CGROUP), or empty.
    A launcher that is PID 1, or a wrapper, performs all of them in place, one after the other.
    """

    child: tuple[Step, ...]
    parent: tuple[Step, ...] = ()
    clone_flags: int = 0
    into_cgroup: str = ""

    def steps(self) -> Iterator[Step]:
        """Yield all steps in the order of their indexes in error reports: the parent's, then the child's."""
        yield from self.parent
        yield from self.child

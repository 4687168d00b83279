"""What all steps have, and the plan that holds them.

Adding an operation takes two things:

1. A class in this package: a frozen ``Step`` whose name says what it does, as a verb (``SetHostname``). Its fields are
   the operation's arguments, and their annotations say how the launcher gets them (``arguments.py``). ``words`` says
   it in one line that begins with the system call, as a format string of the fields, or ``describe`` does; ``purpose``
   says why it is in a plan, or ``reason`` does (``purposes.py`` has the sentences).
2. A C function in launcher/executor/ that performs it: ``int perform_set_hostname(const struct step *s)``, which finds
   the arguments by their names, ``s->set_hostname.hostname``, and returns 0, or a negative errno.

Everything else follows from the class when the launcher is compiled (launcher/header.py): the operation's code, its
prototype and dispatch, the checks of its numbers and strings, its name in errors, and what the fuzzer tries.
"""

from collections.abc import Iterator
from typing import ClassVar

from msgspec import Struct
from msgspec.structs import asdict

# Descriptors that outlive steps: the parent's socket, the plan, the container's root, and where start connects.
SYNC_FD, PLAN_FD, ROOT_FD, LISTEN_FD = range(100, 104)
# Those of the command line: the socket that becomes LISTEN_FD, the planner, the lock of the container, the log,
# and the first of those that come with a plan.
LISTENING_FD, PLANNER_FD, LOCK_FD, LOG_FD, RECEIVED_FD = range(111, 116)


class Step(Struct, frozen=True, kw_only=True):
    """One operation. After an errno that is one of ``tolerate`` the plan goes on."""

    words: ClassVar[str] = ""
    purpose: ClassVar[str] = ""
    # The argument that the launcher's own errors show: the first that is text, if it is not said.
    subject: ClassVar[str] = ""

    tolerate: tuple[int, ...] = ()

    def describe(self) -> str:
        """The step in words: the system call, what it acts on, and its arguments."""
        return self.words.format_map(asdict(self)).rstrip()

    def reason(self) -> str:
        """Why the step is in a plan, as one sentence; never empty."""
        return self.purpose


class Plan(Struct, frozen=True):
    """What the launcher does: ``parent`` steps, clone3 with ``clone_flags``, then, in the new process, ``child`` steps.

    ``into_cgroup`` is a cgroup v2 directory the child is cloned into (CLONE_INTO_CGROUP), or empty.
    A launcher that is PID 1, or a wrapper, performs all of them in place, one after the other.
    """

    child: tuple[Step, ...]
    parent: tuple[Step, ...] = ()
    clone_flags: int = 0
    into_cgroup: str = ""

    def steps(self) -> Iterator[Step]:
        """All steps in the order of their indexes in error reports: the parent's, then the child's."""
        yield from self.parent
        yield from self.child

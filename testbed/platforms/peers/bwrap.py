"""Bubblewrap: namespaces by a small program that stays as the sandbox's parent (bwrap(1))."""

from __future__ import annotations

from testbed.platforms.peers.entering import INSIDE, VARIABLE, EnteringPeer
from testbed.platforms.peers.peer import Place
from testbed.platforms.peers.plans import ENTRY
from testbed.platforms.peers.program import Found, Program


class BwrapPeer(EnteringPeer):
    """Sandboxes of bubblewrap, run by root without a user namespace."""

    name = "bwrap"
    program = Program("bwrap", "bubblewrap")

    def command(self, place: Place, found: Found) -> tuple[str, ...]:
        namespaces = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--as-pid-1")
        mounts = (
            *("--bind", str(place.root), "/", "--bind", str(place.entry), ENTRY),
            *("--proc", "/proc", "--dev", "/dev", "--mqueue", "/dev/mqueue", "--ro-bind", "/sys", "/sys"),
        )
        variable = ("--setenv", *VARIABLE.split("=", 1))
        return (found.path, *namespaces, *mounts, "--cap-add", "ALL", *variable, INSIDE)

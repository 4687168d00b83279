"""systemd-nspawn, without systemd: it registers nowhere and stays in the cgroup where it is (systemd-nspawn(1))."""

from __future__ import annotations

from errno import EEXIST
from pathlib import Path

from runtime.errors import PrerequisiteError
from runtime.plan.constants import MS_NODEV, MS_NOSUID
from runtime.plan.steps import Mkdir, Mount, Step
from testbed.platforms.peers.entering import INSIDE, VARIABLE, EnteringPeer
from testbed.platforms.peers.peer import Place
from testbed.platforms.peers.plans import ENTRY
from testbed.platforms.peers.program import Found, Program

# It makes directories there for each container and does not always take them away.
_STATE = Path("/run/systemd")
_QUIET = ("--quiet", "--register=no", "--keep-unit", "--settings=no", "--link-journal=no", "--console=pipe")
_AS_IT_IS = ("--resolv-conf=off", "--timezone=off")


class NspawnPeer(EnteringPeer):
    """Containers of systemd-nspawn, whose process stays as their supervisor."""

    name = "nspawn"
    program = Program("systemd-nspawn", "systemd-container")

    def check(self, found: Found) -> None:
        if not _STATE.is_dir():
            raise PrerequisiteError(
                f"systemd-nspawn keeps its state in {_STATE}, which is not there",
                f"mkdir {_STATE}: a host that systemd has not booted lacks it",
            )

    def root_steps(self, place: Place) -> tuple[Step, ...]:
        """Make the directory without which it takes nothing for a root, and hide the host's state from it."""
        return (
            Mkdir("usr", tolerate=(EEXIST,), inside=True),
            Mount("tmpfs", str(_STATE), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"),
        )

    def command(self, place: Place, found: Found) -> tuple[str, ...]:
        what = (f"--directory={place.root}", f"--machine={place.name}", f"--bind={place.entry}:{ENTRY}")
        return (found.path, *_QUIET, *_AS_IT_IS, *what, f"--setenv={VARIABLE}", INSIDE)

"""The task that lets a person be on a rung of the ladder: ladder shell."""

from __future__ import annotations

from invoke import Context, task

from reports.commands.exits import reporting
from reports.commands.options import ROOT
from testbed.progress import print_progress


@task(name="ladder-shell", positional=["rung"], help={"rung": "a rung of containers, such as chroot-1982"})
@reporting
def ladder_shell(context: Context, rung: str) -> int:
    """Open a shell on a rung: ./invoke ladder shell chroot-1982; says what is isolated there, and what is not."""
    from testbed.rung_shell import open_shell

    return open_shell(ROOT / "scenarios", rung, print_progress)

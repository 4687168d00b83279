"""What is checked on a host with cgroup v2 alone. It runs inside a guest, as PID 1, not under pytest.

Each function is a check; one that fails raises. The console gets a line for each, which
tests/runtime/test_version_two_guest.py reads.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.runtime import version_two_commands, version_two_containers, version_two_unions
from tests.runtime.guest_checks import be_init, work_off
from tests.runtime.version_two_commands import BUNDLE, OCI_CGROUP
from tests.runtime.version_two_containers import BUSYBOX, UNIFIED


def running() -> list[int]:
    """The processes that there are, but for the planner, which stays for a while."""
    found = (path for path in Path("/proc").glob("[0-9]*") if (path / "exe").exists())
    return sorted(int(path.name) for path in found if b"\0planner\0" not in (path / "cmdline").read_bytes())


def nothing_is_left() -> None:
    """Comes last."""
    directories = [path for path in UNIFIED.iterdir() if path.is_dir() and path.name.startswith("testbed")]
    left = [below for path in directories for below in path.iterdir() if below.is_dir()]
    assert left == [] and not OCI_CGROUP.exists(), left
    assert running() == PROCESSES
    assert Path("/proc/self/mountinfo").read_text() == MOUNTS


MOUNTS, PROCESSES = "", list[int]()
CHECKS = (*version_two_containers.CHECKS, *version_two_commands.CHECKS, *version_two_unions.CHECKS, nothing_is_left)


def check_all() -> None:
    global MOUNTS, PROCESSES
    MOUNTS = Path("/proc/self/mountinfo").read_text()
    PROCESSES = running()
    for name in ("proc", "sys", "dev", "etc"):
        (BUNDLE / "rootfs" / name).mkdir(parents=True)
    subprocess.run(["cp", "-a", f"{BUSYBOX}/bin", BUNDLE / "rootfs"], check=True)
    work_off(CHECKS)


def main() -> None:
    be_init(check_all)


if __name__ == "__main__":
    main()

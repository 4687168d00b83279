"""What the checks on a host with systemd have in common: where things are there, and podman as that host runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

UNIFIED = Path("/sys/fs/cgroup")
BUSYBOX = Path("/layers/busybox")
# Everybody may look into it: unprivileged users have bundles there too.
WORK = Path("/srv/checks")


def podman(*arguments: str, uid: int = 0) -> str:
    """podman as the distribution has it, but for the runtime."""
    runtime = f"/run/user/{uid}"
    own = dict(os.environ, HOME="/root")
    if uid:
        own |= {
            "HOME": "/home/user",
            "XDG_RUNTIME_DIR": runtime,
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
        }
    command = ["podman", "--runtime=/usr/bin/testbed-runtime", "--storage-driver=vfs", *arguments]
    output = subprocess.run(
        command, capture_output=True, text=True, timeout=90, env=own, user=uid, group=uid, extra_groups=[], cwd="/"
    )
    assert output.returncode == 0, f"{arguments}: {output.returncode}: {output.stderr}"
    return output.stdout.strip()

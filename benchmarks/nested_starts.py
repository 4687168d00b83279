"""Starts a guest under the reference machine's KVM again and again, and counts those that hang.

    sudo .venv/bin/python benchmarks/nested_starts.py [100]

Each start boots the guests' own kernel, as the probe of accelerators does, as far as its first process. Before
vm_images/reference.patch one in some ten hung; a reference that hangs is none.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from runtime import atomic  # noqa: E402
from runtime.home import store_root  # noqa: E402
from runtime.images.model import Layer  # noqa: E402
from runtime.images.store import Store  # noqa: E402
from runtime.lease import lease  # noqa: E402
from testbed.machine.emulation import emulate  # noqa: E402
from testbed.machine.inputs import assemble, ensure_machine_image, require_room  # noqa: E402
from testbed.machine.job import PROGRESS  # noqa: E402
from vm_images.guest import ensure_guest  # noqa: E402
from vm_images.reference import INTERPRETER  # noqa: E402

# What runs in the machine, as its first process.
INSIDE = f"""
import os
from pathlib import Path
from runtime import libc
from testbed.qemu.accelerator import try_accelerator
from testbed.qemu.emulator import find_qemu
from vm_images.guest import ensure_guest
guest, qemu = ensure_guest(Path("/var/lib/testbed/guest")), find_qemu()
for number in range(1, int(os.environ["STARTS"]) + 1):
    tried = try_accelerator(qemu, guest, "kvm", 60.0)
    print(f"{PROGRESS}start {{number}}: {{tried.reason}}", flush=True)
libc.call("reboot", 0x4321FEDC)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("starts", type=int, nargs="?", default=100)
    starts = parser.parse_args().starts
    require_room()
    image = ensure_machine_image(Store(store_root() / "images"), print)
    kernel = ensure_guest(store_root() / "guest").kernel.folder
    run_id = f"starts-{secrets.token_hex(3)}"
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    with atomic.scratch(store_root() / "guest" / f"machine-{run_id}") as folder, lease(run_id) as scratch:
        tree = folder / "inputs"
        guest = tree / "var/lib/testbed/guest"
        guest.mkdir(parents=True)
        (guest.parent / "sealed").touch()
        shutil.copytree(kernel, guest / kernel.name, copy_function=os.link)
        program = ("/usr/bin/env", f"STARTS={starts}", INTERPRETER, "-B", "-c", INSIDE)
        made = assemble(folder, image, (Layer("sha256:inputs", tree),), program)
        took = emulate(made, run_id, scratch / "console", scratch / "results", say)
    reached = sum("reached its first process" in line for line in lines)
    print(
        f"{reached} of {starts} starts reached their first process; {took.real_s:.0f} s, {took.machine_s:.0f} s inside"
    )
    return 0 if reached == starts else 3


if __name__ == "__main__":
    sys.exit(main())

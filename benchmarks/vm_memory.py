"""Where the memory of virtual machines goes, part by part, by what the host does about it.

    sudo .venv/bin/python benchmarks/vm_memory.py [--idle | --clickme] [--kinds vm,vm-ksm] [--copies 2] [--json]

For each kind of virtual machine so many idle guests (one processor, 128 MiB, a process that sleeps), then so many
copies of clickme, run at once; after a while to settle, and full scans of KSM where it is on, each part is the mean
of a copy. KSM merges pages of everybody on the host who offers them, and its counters are of all: nothing else with
guests should run. Beside them stand containers, and what the host's MemAvailable lost for a copy: an independent
ruler, which counts page cache as available. Last, what QEMU needs besides the guest's RAM, beside Firecracker's 5 MiB
(its SPECIFICATION.md, for one processor and 128 MiB) and with what the rest is for.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.applications import prepared  # noqa: E402
from benchmarks.command import perform  # noqa: E402
from benchmarks.container_start import make_rootfs  # noqa: E402
from runtime.images.model import Image, ImageConfig, Layer  # noqa: E402
from runtime.spec import Process, Resources, Spec  # noqa: E402
from testbed import breakdown  # noqa: E402
from testbed.breakdown import EMULATOR_PARTS, PARTS  # noqa: E402
from testbed.host import ksm  # noqa: E402
from testbed.measures.application import Application  # noqa: E402
from testbed.measures.context import RunContext  # noqa: E402
from testbed.platforms.protocol import Instance  # noqa: E402
from testbed.sample import read_host  # noqa: E402

Parts = dict[str, float]

KINDS = ("container", "vm", "vm-balloon", "vm-reporting", "vm-ksm", "vm-hugepages")
FIRECRACKER_BYTES = 5 << 20
IDLE = Resources(memory_bytes=128 << 20, cpus=1.0)
SETTLE_S = 4.0
SCANS, SCANS_TIMEOUT_S = 3, 90.0
LOST = "host: MemAvailable lost"
_MIB = 1 << 20


def idle_image(directory: Path) -> Image:
    """An image of a static busybox alone."""
    rootfs = make_rootfs(directory)
    digest = hashlib.sha256((rootfs / "bin" / "true").read_bytes()).hexdigest()
    (rootfs / "bin" / "sleep").symlink_to("true")
    return Image("benchmark/idle", f"sha256:{digest}", ImageConfig(), (Layer(f"sha256:{digest}", rootfs),))


def start_idle(context: RunContext, kind: str, image: Image, number: int, undo: ExitStack) -> list[Instance]:
    """An instance that sleeps."""
    platform = context.platforms[kind]
    spec = Spec(Process(args=("/bin/sleep", "3600")), (str(image.layers[0].path),), "idle", IDLE)
    name = f"{kind}-idle-{number}"
    one = Instance(name, number, {"idle": spec}, context.folder.log_path(name))
    undo.callback(platform.stop, one)
    platform.start(one)
    platform.started(one, context.settings.ready.timeout_vm_s)
    platform.reclaim(one)
    return [one]


def start_clickme(context: RunContext, kind: str, number: int, undo: ExitStack) -> list[Instance]:
    """A copy of the application, once it is ready."""
    platform = context.platforms[kind]
    found = undo.enter_context(Application(context, platform, number, f"{kind}-clickme-{number}"))
    for one in found.instances:
        platform.reclaim(one)
    return list(found.instances)


def held(context: RunContext, kind: str, copies: int, start: Callable[[int, ExitStack], list[Instance]]) -> Parts:
    """Bytes of a copy by part, and by MemAvailable, with so many running."""
    time.sleep(SETTLE_S)  # the host takes back what ran before
    before = read_host().available_bytes
    with ExitStack() as undo:
        instances = [one for number in range(copies) for one in start(number, undo)]
        time.sleep(SETTLE_S)
        if kind == "vm-ksm":
            found = ksm.wait_for_scans(SCANS, SCANS_TIMEOUT_S)
            print(f"  KSM: {found.shared} pages kept for {found.sharing} more", file=sys.stderr)
        lost = before - read_host().available_bytes
        sums = breakdown.sum_parts(context.platforms[kind].memory_parts(one) for one in instances)
    return {**{name: size / copies for name, size in sums.items()}, LOST: lost / copies}


def print_parts(title: str, found: Mapping[str, Parts]) -> None:
    """A column a kind, a row a part, MiB."""
    print(f"\n{title}; MiB of a copy")
    print(f"  {'':28}" + "".join(f"{kind:>13}" for kind in found))
    names = [name for name in (*PARTS, LOST) if any(name in parts for parts in found.values())]
    for name in names:
        if name == LOST:
            sums = (sum(size for part, size in parts.items() if part != LOST) for parts in found.values())
            print(f"  {'sum':28}" + "".join(f"{size / _MIB:13.1f}" for size in sums))
        cells = (f"{parts[name] / _MIB:13.1f}" if name in parts else f"{'-':>13}" for parts in found.values())
        print(f"  {PARTS.get(name, name):28}" + "".join(cells))


def print_overhead(parts: Parts) -> None:
    """QEMU's own memory for an idle guest, and what takes it beyond Firecracker's."""
    own = {name: parts.get(name, 0) for name in (*EMULATOR_PARTS, "host_kernel")}
    files = own["boot_files"] + own["emulator_program"]
    print(f"\nQEMU beside the RAM of an idle guest: {sum(own.values()) / _MIB:.1f} MiB; Firecracker's limit: ", end="")
    print(f"{FIRECRACKER_BYTES / _MIB:.0f} MiB. Of the difference")
    print(f"  {own['translated_code'] / _MIB:6.1f} MiB are translated code, which only an emulated guest has;")
    print(f"  {files / _MIB:6.1f} MiB are files (kernel, initrd, QEMU, its libraries), shared by all guests;")
    rest = sum(own.values()) - own["translated_code"] - files
    print(f"  {rest / _MIB:6.1f} MiB remain: heap (devices, TCG's tables), stacks, firmware, the host's page tables.")


def measure(kinds: tuple[str, ...], copies: int, sorts: tuple[str, ...]) -> dict[str, dict[str, Parts]]:
    """Parts by sort (idle, clickme) and kind."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        image = idle_image(Path(directory))
        with prepared(kinds, ROOT / "scenarios", [image]) as context:
            found: dict[str, dict[str, Parts]] = {}
            for sort in sorts:
                for kind in kinds:
                    print(f"{sort} on {context.platforms[kind].label}", file=sys.stderr)
                    idle = sort == "idle"
                    start = partial(start_idle, context, kind, image) if idle else partial(start_clickme, context, kind)
                    found.setdefault(sort, {})[kind] = held(context, kind, copies, start)
            return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--idle", action="store_true", help="idle guests only")
    parser.add_argument("--clickme", action="store_true", help="clickme only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sorts = ("idle",) if options.idle else ("clickme",) if options.clickme else ("idle", "clickme")
    found = measure(tuple(options.kinds.split(",")), options.copies, sorts)
    if options.json:
        print(json.dumps(found))
        return
    for sort, by_kind in found.items():
        print_parts(f"{sort}, {options.copies} copies at once", by_kind)
    if plain := found.get("idle", {}).get("vm"):
        print_overhead(plain)


if __name__ == "__main__":
    perform(main)

"""What a run in the reference machine takes, and whether it is the same again beside other work.

    sudo .venv/bin/python benchmarks/reference_machine.py [--runs 2] [--loaded 1] [BENCH OPTIONS...]

The same `./invoke bench --machine reference` is run so often, with ``--quick`` unless other options are given; every
second time beside as many busy loops as ``--loaded`` says. For each: real and processor seconds of the emulation, the
seconds that passed in the machine, its memory, and the digests over inputs and results. Exits with 3 when results
differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def busy_loop() -> Iterator[None]:
    """Keep one processor busy."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def measure(options: list[str], loops: int) -> dict[str, Any]:
    """Run the bench beside busy loops and return the manifest's ``machine``."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as undo:
        for _ in range(loops):
            undo.enter_context(busy_loop())
        command = [str(ROOT / "invoke"), "bench", "--machine", "reference", "--wait", "--out", folder, *options]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=True)
        (run,) = Path(folder).iterdir()
        machine: dict[str, Any] = json.loads((run / "manifest.json").read_bytes())["machine"]
        return machine


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scenario", default="clickme")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--loaded", type=int, default=1, help="busy loops beside every second run")
    arguments, others = parser.parse_known_args()
    options = ["--scenario", arguments.scenario, *(others or ["--quick"])]
    digests = []
    for number in range(arguments.runs):
        loops = arguments.loaded if number % 2 else 0
        machine = measure(options, loops)
        took = machine["emulated"]
        print(
            f"beside {loops} busy loops: {took['real_s']:.0f} s, {took['cpu_s']:.0f} s of processor time, "
            f"{took['machine_s']:.0f} s in the machine, {took['memory_bytes'] / 2**20:.0f} MiB"
        )
        print(f"  inputs  {machine['inputs']}\n  results {machine['results']}", flush=True)
        digests.append((machine["inputs"], machine["results"]))
    same = len(set(digests)) == 1
    print("identical" if same else "different")
    return 0 if same else 3


if __name__ == "__main__":
    sys.exit(main())

"""The tasks that hand a run in the reference machine on: bundle, and reproduce where somebody else has it."""

from __future__ import annotations

from pathlib import Path

from invoke import Context, task

from reports.commands.exits import reporting
from reports.commands.options import RESULTS, ROOT
from testbed.progress import print_progress


@task(
    positional=["run"],
    help={
        "run": "a run in the reference machine, of the bench or the ladder: its folder, or its id in results/",
        "out": "the file (default: RUN.bundle)",
    },
)
@reporting
def bundle(context: Context, run: str, out: str = "") -> int:
    """Write all inputs of a run in the reference machine, and what it must give again, to one file."""
    from testbed.machine.bundle import bundle
    from testbed.run_folders import locate

    folder = locate(run, RESULTS)
    target = Path(out) if out else Path(f"{folder.resolve().name}.bundle")
    digest = bundle(folder, ROOT / "scenarios", target, print_progress)
    print(f"bundle: {target} ({target.stat().st_size >> 20} MiB), inputs {digest}")
    return 0


@task(
    positional=["file"],
    help={
        "file": "a file that bundle has written, here or elsewhere",
        "any-qemu": "also with an emulator of another version than the bundle names",
        "wait": "wait while another run is measured on this host, instead of being refused",
        "share": "run beside other runs: what it finds is the same, and theirs is disturbed",
    },
)
@reporting
def reproduce(context: Context, file: str, any_qemu: bool = False, wait: bool = False, share: bool = False) -> int:
    """Run a bundle again and say whether its results are identical, or which metric differs from which trial on."""
    from testbed.machine.bundle import reproduce

    differences = reproduce(Path(file), print_progress, any_qemu=any_qemu, wait=wait, share=share)
    for one in differences:
        print(one)
    if not differences:
        print("identical")
    return 3 if differences else 0

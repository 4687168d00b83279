"""Guests that work off a list of checks: what is in them, one boot, and what each check came to."""

from __future__ import annotations

import compileall
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

from runtime.errors import TestbedError
from runtime.home import store_root
from runtime.images.model import Image, ImageConfig, Layer
from runtime.images.store import Store
from testbed.qemu.emulator import find_qemu
from tests import scratches, waiting
from tests.scratches import name_run
from vm_images.container_host import INTERPRETER, PACKAGES, ensure_host_image, host_initrd
from vm_images.disk import ensure_layer_disk, layer_name
from vm_images.guest import COMMAND_LINE, ensure_guest
from vm_images.plans.container_host import LAYERS, ContainerHost

# Where a guest has the checks: the directory to import them from.
CHECKS = f"{LAYERS}/checks"


TESTS = Path(__file__).parents[1]

# From what our guests find to what systemd expects: a kernel's own /dev, and /sys as it is on a host.
BOOT = """
mount -t devtmpfs devtmpfs /dev
mount -o remount,rw /sys
exec /lib/systemd/systemd --unit=checks.service --show-status=0 </dev/console >/dev/console 2>&1
"""

# Without a fifth level of page tables, which an emulator would have to walk, too.
_CPU = "max,la57=off"
# After all that any layer holds: systemd takes /usr for unchanged since it has last brought its caches (of libraries,
# hardware, its journal's messages) up to date, which takes an emulated processor long.
_LATER_S = 86400


def layer_of_unit(
    directory: Path,
    module: str,
    wants: str,
    modules: tuple[str, ...] = (),
    environment: tuple[str, ...] = ("PYTHONDONTWRITEBYTECODE=1",),
) -> Layer:
    """A layer with the unit that BOOT has systemd start: it runs the checks of ``module`` in this ``environment``, once
    ``wants`` are there and the kernel has the ``modules`` of the layer of that name, and ends the guest. For systemd
    the system's caches are up to date."""
    inserted = "".join(f"ExecStartPre=/layers/busybox/bin/busybox insmod /layers/modules/{name}\n" for name in modules)
    units = directory / "units" / "etc" / "systemd" / "system"
    units.mkdir(parents=True)
    for parent in ("etc", "var"):
        updated = directory / "units" / parent / ".updated"
        updated.parent.mkdir(exist_ok=True)
        updated.touch()
        os.utime(updated, (time.time() + _LATER_S,) * 2)
    # The last line of the console must be out of the serial port before the machine is gone.
    (units / "checks.service").write_text(f"""[Unit]
Wants={wants}
After={wants} apparmor.service
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStopSec=2
WorkingDirectory={CHECKS}
Environment={" ".join(environment)}
{inserted}ExecStart=/usr/bin/python3 -m {module}
ExecStopPost=/bin/sh -c "sleep 0.3; echo b > /proc/sysrq-trigger"
""")
    return Layer("sha256:units", directory / "units")


def layers_of_checks(
    directory: Path, pattern: str, commands: tuple[str, ...], folder: Path = Path(__file__).parent
) -> Image:
    """An image with a busybox that is these commands, for containers, and the modules of checks of that name in the
    folder of tests, each a layer."""
    programs = directory / "busybox" / "bin"
    programs.mkdir(parents=True)
    shutil.copy2("/bin/busybox", programs / "busybox")
    for command in commands:
        (programs / command).symlink_to("busybox")
    for source in (*folder.glob(pattern), Path(__file__).with_name("guest_checks.py"), Path(waiting.__file__)):
        target = directory / "checks" / "tests" / source.relative_to(TESTS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    found = tuple(Layer(f"sha256:{name}", directory / name) for name in ("busybox", "checks"))
    return Image("test/checks", "sha256:checks", ImageConfig(), found)


def layer_of_code(directory: Path, packages: Iterable[Path]) -> Layer:
    """A layer with packages of Python beside those of the host image, which has the version of Python that runs this.
    They are compiled already: an emulated processor would take a minute to do it, at every boot."""
    code = directory / "code"
    for package in packages:
        target = code / PACKAGES.lstrip("/") / package.name
        shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__"))
    mode = PycInvalidationMode.UNCHECKED_HASH
    assert compileall.compile_dir(code, quiet=1, stripdir=code, prependdir="/", invalidation_mode=mode)
    return Layer("sha256:code", code)


def outcomes_of(
    host_image: Callable[[], Image],
    checks: Callable[[Path], Image],
    machine: Callable[[Image], ContainerHost],
    *,
    memory_mib: int,
    timeout_s: float,
    processors: int = 1,
) -> dict[str, str]:
    """What each check came to, ``ok`` or a traceback, by its name, in a guest of ``host_image`` with the layers that
    ``checks`` makes in a directory; the test is skipped where there can be no such guest. A second processor costs a
    quarter more of the host's time."""
    try:
        host = host_image()
        guest = ensure_guest(store_root() / "guest")
        qemu = find_qemu()
    except TestbedError as error:
        pytest.skip(f"no guest to do the checks in: {error}")
    # Hard links from the store's layers to a disk: on one file system. It is no image that anybody keeps.
    work = scratches.in_store(name_run())
    work.mkdir()
    try:
        disk = ensure_layer_disk(work / "disks", [host, checks(work / "layers")])
        (work / "initrd").write_bytes(host_initrd(guest, machine(host)))
        command = [
            *(str(qemu), "-machine", "q35", "-accel", "tcg", "-cpu", _CPU, "-smp", str(processors)),
            *("-m", str(memory_mib), "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
            *("-kernel", str(guest.kernel.image), "-initrd", str(work / "initrd"), "-append", COMMAND_LINE),
            *("-drive", f"file={disk},format=raw,if=virtio,readonly=on"),
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s)
    finally:
        shutil.rmtree(work)
    console = done.stdout.decode(errors="replace").replace("\r", "")
    print(console, done.stderr.decode())
    return read_outcomes(console)


def outcomes_on_version_two(
    checks: Callable[[Path], Image], program: str, timeout_s: float, processors: int = 1
) -> dict[str, str]:
    """What each check came to, as ``outcomes_of``, on a small host of containers with cgroup v2 alone; ``program`` is
    the module that works off the checks."""

    def machine(host: Image) -> ContainerHost:
        args = (INTERPRETER, "-m", program)
        return ContainerHost(tuple(map(layer_name, host.layers)), args, CHECKS, "host", None, "")

    host_image = partial(ensure_host_image, Store(store_root() / "images"), print)
    return outcomes_of(host_image, checks, machine, memory_mib=384, timeout_s=timeout_s, processors=processors)


def read_outcomes(console: str) -> dict[str, str]:
    """What each check came to, by what a guest's console shows, without carriage returns."""
    found = re.findall(r"^check: (\w+): [\d.]+ s: (.*)$", console, re.MULTILINE)
    return {check: said if said == "ok" else json.loads(said) for check, said in found}

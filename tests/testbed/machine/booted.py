"""The reference machine, booted as one of its systems, works off a list of checks: what is in it, and one boot."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import PrerequisiteError
from runtime.files import read_bounded
from runtime.home import SEAL, store_root
from runtime.images.model import Layer
from runtime.images.store import Store
from runtime.lease import lease
from testbed.machine.emulation import emulate
from testbed.machine.inputs import assemble, ensure_machine_image, require_room
from testbed.probes.build import PROGRAM as PROBES
from testbed.probes.image import PROGRAM
from tests import scratches
from tests.runtime.check_guest import CHECKS as CHECKS_FOLDER
from tests.runtime.check_guest import TESTS, layers_of_checks, read_outcomes
from tests.scratches import name_run
from tests.testbed.machine import served
from tests.testbed.machine.kvm_checks import IMAGE
from tests.testbed.platforms import answers
from vm_images.disk import ensure_disk
from vm_images.kernel import ensure_kernel
from vm_images.reference import INTERPRETER, PACKAGES, System

LONGEST_CONSOLE = 16 << 20


def store_layer(directory: Path) -> Layer:
    """A layer with the sealed store of the machine: the guests' kernel and their disk, of the layer of busybox."""
    store = directory / "store" / "var" / "lib" / "testbed"
    guest = store / "guest"
    guest.mkdir(parents=True)
    (store / SEAL).touch()
    kernel = ensure_kernel(store_root() / "guest").folder
    shutil.copytree(kernel, guest / kernel.name, copy_function=os.link)
    ensure_disk(guest / "disks", replace(IMAGE, layers=(Layer("sha256:busybox", directory / "busybox"),)))
    return Layer("sha256:store", directory / "store")


def add_answers(layers: Path) -> None:
    """Have the layer of checks ask machines for answers, too."""
    _add(layers, Path(answers.__file__))


def _add(layers: Path, module: Path) -> None:
    copy = layers / "checks" / "tests" / module.relative_to(TESTS)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(module, copy)


def outcomes_booted_as(system: System, module: str) -> dict[str, str]:
    """What each check of a ``module`` beside this one came to, where the layer of busybox has the probes' program, too.

    The machine counts instructions, so that it does the same each time, however busy the host is. The test is skipped
    where it cannot be had.
    """
    name = name_run()
    work = scratches.in_store(name)
    layers = work / "layers"
    becomes = (
        f"PYTHONPATH={PACKAGES}:{CHECKS_FOLDER} PYTHONDONTWRITEBYTECODE=1 exec {INTERPRETER} -m "
        f"tests.testbed.machine.{module}"
    )
    try:
        work.mkdir()
        require_room()
        own = ensure_machine_image(Store(store_root() / "images"), print, system)
        checks = layers_of_checks(layers, f"{module}.py", ("sh",), Path(__file__).parent)
        add_answers(layers)
        _add(layers, Path(served.__file__))
        shutil.copy2(PROBES.build(), layers / "busybox" / PROGRAM.lstrip("/"))
        made = assemble(work, own, [store_layer(layers)], ("/bin/sh", "-c", becomes), [checks], system)
        shutil.rmtree(layers)
        with lease(name) as scratch:
            emulate(made, name, scratch / "console", scratch / "results", print)
            console = read_bounded(scratch / "console", LONGEST_CONSOLE).decode(errors="replace").replace("\r", "")
    except PrerequisiteError as error:
        pytest.skip(f"no machine to do the checks in: {error}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(console)
    return read_outcomes(console)

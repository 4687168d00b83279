"""Guests of Xen's for real: the reference machine, which Debian's Xen has booted, works off a list of checks.

It counts instructions, so that it does the same each time, however busy the host is.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from runtime.files import read_bounded
from runtime.home import store_root
from runtime.images.store import Store
from runtime.lease import lease
from testbed.machine.emulation import emulate
from testbed.machine.inputs import assemble, ensure_machine_image, require_room
from testbed.probes.build import PROGRAM as PROBES
from testbed.probes.image import PROGRAM
from tests import scratches
from tests.runtime.check_guest import CHECKS as CHECKS_FOLDER
from tests.runtime.check_guest import layers_of_checks, read_outcomes
from tests.scratches import name_run
from tests.testbed.machine.test_kvm_machine import add_answers, store_layer
from tests.testbed.machine.xen_checks import CHECKS
from vm_images.reference import INTERPRETER, PACKAGES

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.machine, pytest.mark.network]

_BECOMES = (
    f"PYTHONPATH={PACKAGES}:{CHECKS_FOLDER} PYTHONDONTWRITEBYTECODE=1 exec {INTERPRETER} -m "
    "tests.testbed.machine.xen_checks"
)
_LONGEST_CONSOLE = 16 << 20


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What each check came to."""
    name = name_run()
    work = scratches.in_store(name)
    layers = work / "layers"
    try:
        work.mkdir()
        require_room()
        own = ensure_machine_image(Store(store_root() / "images"), print, "xen")
        checks = layers_of_checks(layers, "xen_checks.py", ("sh",), Path(__file__).parent)
        add_answers(layers)
        shutil.copy2(PROBES.build(), layers / "busybox" / PROGRAM.lstrip("/"))
        made = assemble(work, own, [store_layer(layers)], ("/bin/sh", "-c", _BECOMES), [checks], "xen")
        shutil.rmtree(layers)
        with lease(name) as scratch:
            emulate(made, name, scratch / "console", scratch / "results", print)
            console = read_bounded(scratch / "console", _LONGEST_CONSOLE).decode(errors="replace").replace("\r", "")
    except PrerequisiteError as error:
        pytest.skip(f"no machine to do the checks in: {error}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(console)
    return read_outcomes(console)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_in_domain_0(outcomes: dict[str, str], check: Callable[[], None]) -> None:
    assert outcomes.get(check.__name__, "it was never done") == "ok"

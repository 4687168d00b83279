"""What the reference machine is booted as, and what is refused or left out then."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.machine.emulator import PARTS, emulator_command
from testbed.machine.systems import NOT_INSIDE, choose_system, list_absent, require_platforms
from testbed.platforms import registry
from testbed.platforms.paravirtual import PARAVIRTUAL
from testbed.platforms.peers.names import PEERS
from testbed.platforms.registry import NAMES
from testbed.qemu.variants import VARIANTS
from testbed.request import Options, check_options
from testbed.scenario.new import create_scenario


def test_what_needs_a_program_or_a_daemon_is_refused_and_all_else_may_run_there() -> None:
    assert NOT_INSIDE == {*PEERS, "libvirt-lxc", "docker", "emulated-1988"} - {"process", "chroot"}
    inside = [name for name in NAMES if name not in NOT_INSIDE]
    require_platforms([name for name in inside if name != PARAVIRTUAL])
    require_platforms([name for name in inside if name not in VARIANTS])
    for name in sorted(NOT_INSIDE):
        with pytest.raises(UsageError, match=f"the reference machine has no {name}"):
            require_platforms(("container", name))


def test_xen_and_kvm_are_two_machines() -> None:
    assert choose_system(("container", PARAVIRTUAL)) == "xen" and choose_system(("container", "vm")) == "kvm"
    with pytest.raises(UsageError, match=rf"{PARAVIRTUAL} needs .* under Xen, and vm, vm-micro one with KVM") as raised:
        require_platforms((PARAVIRTUAL, "container", "vm", "vm-micro"))
    assert "two runs" in raised.value.hint


@pytest.mark.parametrize(
    ("asked", "there", "not_there"),
    [(("ladder",), "hardware-2006", PARAVIRTUAL), (("ladder", PARAVIRTUAL), PARAVIRTUAL, "hardware-2006")],
)
def test_a_group_has_what_one_boot_has_and_says_what_it_has_not(
    asked: tuple[str, ...], there: str, not_there: str
) -> None:
    told: list[str] = []
    names = registry.expand(asked, told.append, partial(registry.find_missing_in, list_absent(asked)))
    assert there in names and not_there not in names and "chroot-1982" in names
    (why,) = (line for line in told if line.startswith(f"without {not_there}: "))
    assert "KVM" in why
    require_platforms(names)


def test_xen_boots_linux_as_its_first_module() -> None:
    command = emulator_command(2 << 20, system="xen")
    kernel, modules = (command[command.index(option) + 1] for option in ("-kernel", "-initrd"))
    assert kernel == "/machine/xen" and modules.startswith("/machine/kernel console=hvc0 ")
    assert modules.endswith(",/machine/initrd") and "-icount" in command
    assert set(PARTS["xen"]) == {*PARTS["kvm"], "xen"}


@pytest.mark.parametrize("measure", ["consolidation", "neighbours"])
def test_measures_that_take_cgroups_are_refused_by_name(tmp_path: Path, measure: str) -> None:
    create_scenario("tiny", tmp_path)
    platforms = ("container", PARAVIRTUAL)
    options = Options("tiny", platforms, "auto", ("start", "density"), 1, True, 7, tmp_path, tmp_path, ())
    assert check_options(options, print).measures == ("start", "density")
    with pytest.raises(UsageError, match=rf"{PARAVIRTUAL}: {measure} \(.*\) cannot be measured there"):
        check_options(replace(options, measures=("density", measure)), print)

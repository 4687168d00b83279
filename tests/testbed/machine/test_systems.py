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
from testbed.platforms.virtualbox import VIRTUALBOX
from testbed.qemu.variants import VARIANTS
from testbed.request import Options, check_options
from testbed.scenario.new import create_scenario


def test_what_needs_a_program_or_a_daemon_is_refused_and_all_else_may_run_there() -> None:
    assert NOT_INSIDE == {*PEERS, "libvirt-lxc", "docker", "emulated-1988"} - {"process", "chroot"}
    inside = [name for name in (*NAMES, VIRTUALBOX) if name not in NOT_INSIDE]
    for others in ((PARAVIRTUAL, VIRTUALBOX), (*VARIANTS, VIRTUALBOX), (*VARIANTS, PARAVIRTUAL)):
        require_platforms([name for name in inside if name not in others])
    for name in sorted(NOT_INSIDE):
        with pytest.raises(UsageError, match=f"the reference machine has no {name}"):
            require_platforms(("container", name))


def test_kvm_xen_and_virtualbox_are_three_machines() -> None:
    for platform, system in ((PARAVIRTUAL, "xen"), (VIRTUALBOX, "virtualbox"), ("vm", "kvm"), ("chroot", "kvm")):
        assert choose_system(("container", platform)) == system
    xen, virtualbox, kvm = (
        f"Xen has {PARAVIRTUAL}",
        f"VirtualBox in KVM's place has {VIRTUALBOX}",
        "with KVM has vm, vm-micro",
    )
    for names, parts, number in (
        ((PARAVIRTUAL, "container", "vm", "vm-micro"), (xen, kvm), "two"),
        (("vm", VIRTUALBOX, "vm-micro"), (virtualbox, kvm), "two"),
        ((VIRTUALBOX, PARAVIRTUAL), (xen, virtualbox), "two"),
        ((VIRTUALBOX, "vm", "vm-micro", PARAVIRTUAL), (xen, virtualbox, kvm), "three"),
    ):
        with pytest.raises(UsageError) as raised:
            require_platforms(names)
        said = raised.value.message
        assert all(part in said for part in parts) and said.count(" has ") == len(parts) + 1, said
        assert f"they are {number} machines, so {number} runs: bench --platforms container," in raised.value.hint


@pytest.mark.parametrize(
    ("asked", "there", "not_there"),
    [
        (("ladder",), "hardware-2006", (PARAVIRTUAL,)),
        (("ladder", PARAVIRTUAL), PARAVIRTUAL, ("hardware-2006",)),
        (("ladder", VIRTUALBOX), VIRTUALBOX, ("hardware-2006", PARAVIRTUAL)),
    ],
)
def test_a_group_has_what_one_boot_has_and_says_what_it_has_not(
    asked: tuple[str, ...], there: str, not_there: tuple[str, ...]
) -> None:
    told: list[str] = []
    names = registry.expand(asked, told.append, partial(registry.find_missing_in, list_absent(asked)))
    assert there in names and not set(not_there) & set(names) and "chroot-1982" in names
    for name in not_there:
        (why,) = (line for line in told if line.startswith(f"without {name}: "))
        assert "it needs the machine " in why and ", and this one is " in why
    require_platforms(names)


def test_who_asks_for_no_boot_is_told_how_each_other_one_is_had_and_a_reason_stays_its_own() -> None:
    absent = list_absent(("ladder",))
    assert not (set(VARIANTS) - NOT_INSIDE) & absent.keys()
    for name, rung in ((PARAVIRTUAL, PARAVIRTUAL), (VIRTUALBOX, "virtualbox-2007")):
        assert f"bench --platforms container,{name}, or ladder --rungs process,{rung}, in" in absent[name]
    for asked in (PARAVIRTUAL, VIRTUALBOX):
        absent = list_absent((asked,))
        assert asked not in absent and absent["vm"].startswith("it needs the machine with KVM, and this one is ")
        assert "translated by the emulator" in absent["emulated-1988"]


def test_xen_boots_linux_as_its_first_module() -> None:
    command = emulator_command(2 << 20, system="xen")
    kernel, modules = (command[command.index(option) + 1] for option in ("-kernel", "-initrd"))
    assert kernel == "/machine/xen" and modules.startswith("/machine/kernel console=hvc0 ")
    assert modules.endswith(",/machine/initrd") and "-icount" in command
    assert set(PARTS["xen"]) == {*PARTS["kvm"], "xen"}


def test_with_virtualbox_linux_is_booted_as_with_kvm() -> None:
    assert emulator_command(2 << 20, system="virtualbox") == emulator_command(2 << 20)
    assert PARTS["virtualbox"] == PARTS["kvm"]


@pytest.mark.parametrize("measure", ["consolidation", "neighbours"])
def test_measures_that_take_cgroups_are_refused_by_name(tmp_path: Path, measure: str) -> None:
    create_scenario("tiny", tmp_path)
    platforms = ("container", PARAVIRTUAL)
    options = Options("tiny", platforms, "auto", ("start", "density"), 1, True, 7, tmp_path, tmp_path, ())
    assert check_options(options, print).measures == ("start", "density")
    with pytest.raises(UsageError, match=rf"{PARAVIRTUAL}: {measure} \(.*\) cannot be measured there"):
        check_options(replace(options, measures=("density", measure)), print)

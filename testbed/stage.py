"""Sets up what a run measures on: its platforms, prepared, and the lab that they live in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from runtime.images.model import Image
from testbed.aliases import describe_alias, find_original, is_again
from testbed.lab import Lab
from testbed.platforms import registry
from testbed.platforms.own_kernel import explained, try_kernel
from testbed.platforms.protocol import Platform
from testbed.platforms.registry import Machines
from testbed.qemu.variants import VARIANTS
from testbed.request import Options, Request
from testbed.scenario.model import Scenario
from testbed.temperature import find_temperature
from vm_images.kernel import GuestKernel


class Stage(Struct, frozen=True):
    """The platforms by name, prepared, and their lab, which is to be entered."""

    platforms: Mapping[str, Platform]
    lab: Lab

    @property
    def records(self) -> dict[str, dict[str, object]]:
        """What the manifest records of each platform."""
        return {name: describe_platform(name, platform) for name, platform in self.platforms.items()}


def describe_platform(name: str, platform: Platform) -> dict[str, object]:
    """Return what the manifest records of a platform; ``again`` names the one that an alias measures once more."""
    return {
        "label": describe_alias(name, platform.label),
        "emulated": platform.emulated,
        "temperature": find_temperature(name),
        **({"again": find_original(name)} if is_again(name) else {}),
        **platform.facts(),
    }


def prepare(
    platform: Platform, kernel: GuestKernel | None, scenario: Scenario, images: Mapping[str, Image], scratch: Path
) -> None:
    """Prepare a platform, and try a kernel of one's own in it. Raises PrerequisiteError with what the kernel lacks."""
    variant = VARIANTS.get(platform.name)
    if kernel is None or variant is None or not variant.boots_kernel:
        platform.prepare(scenario, images)
        return
    cold = variant.start == "cold"
    with explained(kernel, variant, starts=not cold):
        platform.prepare(scenario, images)
    if cold:  # to save those that are restored, each service was booted
        try_kernel(platform, kernel, variant, scenario, images, scratch / f"kernel-{platform.name}.log")


def set_stage(
    undo: ExitStack,
    run_id: str,
    scratch: Path,
    names: Sequence[str],
    request: Request,
    images: Mapping[str, Image],
    machines: Machines,
    options: Options,
) -> Stage:
    """Return the stage with these platforms, made and prepared; ``undo`` takes it down. Raises what they raise."""
    lab = Lab()
    platforms: dict[str, Platform] = {}
    for name in names:
        platforms[name] = registry.create(
            find_original(name), run_id, scratch, lab, options.accelerator, options.connect, machines
        )
        undo.callback(platforms[name].close)
        prepare(platforms[name], machines.kernel, request.scenario, images, scratch)
    return Stage(platforms, lab)

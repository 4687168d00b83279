"""What a run is, as its folder's manifest records it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from msgspec import to_builtins

from runtime.images.model import Image
from runtime.plan.root import DRIVER
from testbed.host import kvm
from testbed.host.facts import read_facts, read_source, read_versions
from testbed.host.quiet import watch_noise
from testbed.host.turn import SHARED
from testbed.images import find_base
from testbed.request import Options, Request
from testbed.scenario.model import Scenario
from vm_images.kernel import GuestKernel


def image_record(image: Image) -> dict[str, object]:
    """Return an image's name and digests, and those of the base image it stands on, if it does."""
    base = find_base(image)
    return {
        "reference": image.reference,
        "id": image.id,
        "layers": [layer.diff_id for layer in image.layers],
        "base": {"reference": base.reference, "id": base.id, "layer": base.layers[0].diff_id} if base else None,
    }


def filters(scenario: Scenario) -> dict[str, str]:
    """Return which filter of system calls stands before each service, on every platform."""
    return {service.name: "the default profile" if service.seccomp else "none" for service in scenario.services}


def describe_files(scenario: Scenario, said: Sequence[str] = ()) -> dict[str, object]:
    """Return which compose files a scenario was read from, the variables that they used, whose values may be secret,
    and what the user was told: the files' own notes, and what else was ``said``."""
    return {
        "files": [str(file) for file in scenario.files],
        "variables": [name for name, _ in scenario.application.variables],
        "notes": [*scenario.application.notes, *said],
    }


def kernel_record(file: str, kernel: GuestKernel | None) -> dict[str, object] | None:
    """Return what the manifest records of a kernel of one's own: the file's digest is that of what was given."""
    if kernel is None:
        return None
    return {"file": file, "digest": kernel.version, "release": kernel.release, "booted_sha256": kernel.sha256}


def make_manifest(run_id: str, options: Options, request: Request, images: Mapping[str, Image]) -> dict[str, object]:
    """Return what the run is; platforms are added once they are prepared."""
    scenario = request.scenario
    return {
        "run": run_id,
        "scenario": scenario.name,
        "quick": options.quick,
        "accelerator_asked_for": options.accelerator,
        "seed": options.seed,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(options.command),
        "measures": list(request.measures),
        "settings": to_builtins(request.settings),
        "design": {**to_builtins(request.design), "groups": to_builtins(request.groups)},
        "options": to_builtins(options, enc_hook=str),  # paths
        "images": {name: image_record(image) for name, image in images.items()},
        "seccomp": filters(scenario),
        "root_driver": DRIVER,
        "compose": describe_files(scenario, request.said),
        "host_network": list(request.on_host),
        "source": read_source(),
        "versions": read_versions(),
        "host": {**read_facts(), "kvm": kvm.detect().words},
        "noise": [*watch_noise(), *([SHARED] if options.share else ())],
    }

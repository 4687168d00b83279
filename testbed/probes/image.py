"""The image of the probes: the one static program, from nothing, for every platform alike."""

from __future__ import annotations

from collections.abc import Callable

from runtime.builder.program import build_program_image
from runtime.images.model import Image
from runtime.images.store import Store
from testbed.probes.build import PROGRAM as BINARY

# What it is called in the store, and among the images of a run by service: no service has a name with a slash.
REFERENCE = "testbed/probe"
PROGRAM = "/testbed-probe"


def ensure_probe_image(store: Store, progress: Callable[[str], None]) -> Image:
    """Build the image, unless the store has its layer; errors as ``build_program_image``, and PrerequisiteError without
    a compiler."""
    return build_program_image(store, BINARY.build(), PROGRAM, REFERENCE, progress)

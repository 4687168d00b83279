"""The gauge's image: the one static program, from nothing, for every platform alike."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from runtime.builder.build import build
from runtime.images.model import Image
from runtime.images.store import Store
from testbed.ladder.build import GAUGE

# What it is called in the store, and among the images of a run by service: no service has a name with a slash.
REFERENCE = "testbed/gauge"
PROGRAM = "/testbed-gauge"
_DOCKERFILE = f"""FROM scratch
COPY {GAUGE.binary.name} {PROGRAM}
ENTRYPOINT ["{PROGRAM}"]
"""


def ensure_gauge_image(store: Store, progress: Callable[[str], None]) -> Image:
    """Build the image, unless the store has its layer; errors as ``runtime.builder.build.build``, and PrerequisiteError
    without a compiler."""
    binary = GAUGE.build()
    with tempfile.TemporaryDirectory(prefix="testbed-") as scratch:
        context = Path(scratch)
        shutil.copy2(binary, context / binary.name)
        (context / "Dockerfile").write_text(_DOCKERFILE)
        return build(store, context=context, dockerfile=context / "Dockerfile", reference=REFERENCE, progress=progress)

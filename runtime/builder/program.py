"""Builds the image of one static program, from nothing, which every platform runs alike."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from runtime.builder.build import build
from runtime.images.model import Image
from runtime.images.store import Store


def build_program_image(
    store: Store, binary: Path, program: str, reference: str, progress: Callable[[str], None]
) -> Image:
    """Build the image ``reference``, whose command is ``program``, an absolute path at which it has ``binary``, with
    an empty /tmp, unless the store has its layer; errors as ``runtime.builder.build.build``."""
    with tempfile.TemporaryDirectory(prefix="testbed-") as scratch:
        context = Path(scratch)
        (context / "root" / "tmp").mkdir(parents=True)
        target = context / "root" / program.lstrip("/")
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(binary, target)
        dockerfile = context / "Dockerfile"
        dockerfile.write_text(f'FROM scratch\nCOPY root /\nENTRYPOINT ["{program}"]\n')
        return build(store, context=context, dockerfile=dockerfile, reference=reference, progress=progress)

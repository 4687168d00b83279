"""Builds the substitute of an image that cannot be had, and says so."""

from __future__ import annotations

from collections.abc import Callable

from runtime.builder.build import build
from runtime.images.model import Image
from runtime.images.store import Store
from testbed.substitutes.table import SHARED, Substitute


def ensure_substitute(
    store: Store, wanted: str, substitute: Substitute, progress: Callable[[str], None], base: str = ""
) -> Image:
    """Return the image that takes the place of the one ``wanted``; it is built, unless the store has it.

    ``base`` is the release whose packages it has, "" the host's. Errors as ``runtime.builder.build.build``.
    """
    tag = f":{base}" if base else ""
    progress(f"{wanted} is not to be had: {substitute.package} of the distribution, built here, takes its place")
    return build(
        store,
        context=substitute.context,
        dockerfile=substitute.context / "Dockerfile",
        reference=f"{substitute.reference}{tag}",
        progress=progress,
        arguments=dict(substitute.arguments),
        contexts={"shared": SHARED},
        base=base,
    )

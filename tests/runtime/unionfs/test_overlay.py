"""Overlay options: order, separators, and the page that mount(2) copies."""

from __future__ import annotations

import pytest

from runtime.errors import UsageError
from runtime.unionfs.overlay import WritableLayer, mount_steps, options

WRITABLE = WritableLayer("/u", "/w")


def test_the_top_layer_is_named_first() -> None:
    assert options(("base", "top"), WRITABLE) == "lowerdir=top:base,upperdir=/u,workdir=/w"


@pytest.mark.parametrize("path", ["a:b", "a,b"])
def test_separators_in_a_path_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match="colon or a comma"):
        options((path,), WRITABLE)


def test_more_than_a_page_is_refused() -> None:
    with pytest.raises(UsageError, match="4095"):
        options(tuple(f"layer-{number:030}" for number in range(120)), WRITABLE)


def test_an_image_without_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="without layers"):
        mount_steps((), WRITABLE, "/target")

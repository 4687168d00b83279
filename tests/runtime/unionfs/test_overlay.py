"""Overlay options: order, separators, and the page that mount(2) copies."""

from __future__ import annotations

import pytest

from runtime.errors import UsageError
from runtime.plan.steps import Chdir, Mount, Open
from runtime.unionfs.depth import LAYERS_LIMIT, effective, merged_count
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


@pytest.mark.parametrize(
    ("layers", "once"), [("abc", "abc"), ("aab", "ab"), ("aba", "ba"), ("abcab", "cab"), ("aaaa", "a"), ("", "")]
)
def test_of_a_repeated_layer_the_topmost_counts(layers: str, once: str) -> None:
    assert effective(tuple(layers)) == tuple(once)


def test_many_layers_are_named_by_descriptors() -> None:
    layers = tuple(f"/store/layers/{number:026}" for number in range(LAYERS_LIMIT))
    *opened, chdir, mount = mount_steps(layers, WRITABLE, "/target")
    assert chdir == Chdir("/proc/self/fd") and isinstance(mount, Mount)
    assert [step.path for step in opened if isinstance(step, Open)] == list(layers)
    last = opened[-1]
    assert isinstance(last, Open) and mount.data.startswith(f"lowerdir={last.fd}:{last.fd - 1}:")
    with pytest.raises(UsageError, match="at most 500 layers, and here are 501"):
        mount_steps((*layers, "/store/layers/one-more"), WRITABLE, "/target")


def test_an_image_without_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="without layers"):
        mount_steps((), WRITABLE, "/target")


@pytest.mark.parametrize("count", [0, 1, 499, 500])
def test_what_an_overlay_has_is_not_merged(count: int) -> None:
    assert merged_count(count) == 0


@pytest.mark.parametrize("count", [501, 502, 749, 750, 751, 999, 1000, 1001, 1249, 2000, 100_000])
def test_of_more_layers_as_many_are_merged_that_an_overlay_has_all(count: int) -> None:
    merged = merged_count(count)
    assert 0 < merged <= count and count - merged + 1 <= LAYERS_LIMIT
    assert merged % (LAYERS_LIMIT // 2) == 0 and count - (merged - LAYERS_LIMIT // 2) + 1 > LAYERS_LIMIT

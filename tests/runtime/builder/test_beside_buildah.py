"""What instructions make of files and of a configuration, beside what buildah makes of the same Dockerfile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.dockerfile_semantics import CASES, Bench

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed"),
]
# benchmarks/dockerfile_semantics.py has all.
CHOSEN = ("copy", "links", "variables")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("bench"))
    yield made
    made.buildah.remove()


@pytest.mark.parametrize("name", CHOSEN)
def test_every_file_and_member_is_as_buildah_has_it_or_as_the_file_says(bench: Bench, name: str) -> None:
    compared = bench.compare(CASES / f"{name}.Dockerfile")
    assert not compared.different and compared.same > 250


@pytest.mark.parametrize("line", ["COPY nothing/* /x/"])
def test_what_is_refused_there_is_refused(bench: Bench, tmp_path: Path, line: str) -> None:
    assert not bench.refuse(line).different
    assert bench.refuse("COPY no*here /x/").different, "accepted here: wildcards may match nothing"

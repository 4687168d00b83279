"""Unions that are gone when a test ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.errors import TestbedError
from runtime.unionfs import unions
from tests.runtime.unionfs.union_site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    for record in made.records.all():
        with suppress(TestbedError):
            unions.unmount(record.target, lazy=True, records=made.records)
    with made.records.locked():  # which takes away what is dead
        pass
    assert made.left() == [], "a test left a union"

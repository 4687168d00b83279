"""The OCI command line for a test, after which nothing of it may be left."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.cgroups.placing import all_hierarchies
from tests.runtime.command_line import Runtime, make_runtime


@pytest.fixture
def oci(busybox_layer: Path, run_name: str) -> Iterator[Runtime]:
    with tempfile.TemporaryDirectory(prefix="oci-", dir="/tmp") as name:
        Path(name).chmod(0o711)  # the root of a user namespace must be able to reach it
        runtime = make_runtime(Path(name), busybox_layer, f"{run_name}/oci")
        yield runtime
        left = json.loads(runtime("list", "--format", "json").stdout)
        for row in left:
            runtime("delete", "--force", row["id"])
        assert not left, "a test deletes its containers"
        assert not Cgroup(f"{run_name}/oci", all_hierarchies()).exists()
        Cgroup(run_name, all_hierarchies()).remove()

"""Bundles for command lines to be measured with, each of them new to all."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.container_start import make_rootfs


class Bundles:
    """Makes bundles in ``directory``, whose containers have their cgroups below ``cgroup``; the configuration is what
    a command line's ``spec`` writes, without limits."""

    def __init__(self, directory: Path, cgroup: str, command: Sequence[str]) -> None:
        self.directory = directory
        self.cgroup = cgroup
        self._numbers = count()
        with tempfile.TemporaryDirectory(dir=directory) as work:
            subprocess.run([*command, "spec"], cwd=work, check=True)
            self._config: dict[str, Any] = json.loads((Path(work) / "config.json").read_text())
        self._config["ociVersion"] = "1.0.0"  # which all understand
        self._config["process"].pop("rlimits", None)  # hard limits cannot be raised without CAP_SYS_RESOURCE

    @contextmanager
    def make(self, *args: str) -> Iterator[Path]:
        """A bundle with this program and a root file system of its own, removed at the end. Its directory has the
        container's name, which no other has had; ``process.json`` is there, for a second process: /bin/true."""
        name = f"c{next(self._numbers)}"
        with tempfile.TemporaryDirectory(dir=self.directory) as parent:
            bundle = Path(parent) / name
            rootfs = make_rootfs(bundle)
            (rootfs / "bin" / "sleep").hardlink_to(rootfs / "bin" / "true")
            process = {**self._config["process"], "args": list(args), "terminal": False}
            linux = {**self._config["linux"], "cgroupsPath": f"/{self.cgroup}/{name}"}
            root = {"path": "rootfs", "readonly": False}
            config = {**self._config, "process": process, "linux": linux, "root": root, "hostname": name}
            (bundle / "config.json").write_text(json.dumps(config))
            (bundle / "process.json").write_text(json.dumps({**process, "args": ["/bin/true"]}))
            yield bundle

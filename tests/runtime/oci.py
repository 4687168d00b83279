"""A bundle and the command line, for tests of the OCI runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.config.decode import encode
from runtime.config.default import default_config


@dataclass
class Runtime:
    """The command line with a state root of its own, and the bundle that its containers are made from."""

    root: Path
    bundle: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "runtime.cli", "--root", str(self.root), *arguments]

    def __call__(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:  # a container may keep them open
            code = subprocess.run(
                self.command(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=60,
                cwd=self.bundle,
                **options,
            ).returncode
            out.seek(0)
            err.seek(0)
            done = subprocess.CompletedProcess(arguments, code, out.read(), err.read())
        assert not check or done.returncode == 0, done.stderr
        return done

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("state", name).stdout)
        return found

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.bundle / "config.json").read_text())
        return found

    def configure(self, config: dict[str, Any]) -> None:
        (self.bundle / "config.json").write_text(json.dumps(config))

    def shell(self, script: str, **process: Any) -> None:
        """Make the container's process a shell with this script."""
        config = self.config()
        config["process"].update({"args": ["sh", "-c", script], "terminal": False, **process})
        self.configure(config)


def make_runtime(directory: Path, layer: Path, cgroup: str) -> Runtime:
    """A bundle with busybox and the default configuration, without a terminal and with a writable root."""
    bundle = directory / "bundle"
    bundle.mkdir()
    shutil.copytree(layer, bundle / "rootfs", symlinks=True)
    for empty in ("proc", "sys", "dev", "etc"):
        (bundle / "rootfs" / empty).mkdir(exist_ok=True)
    runtime = Runtime(directory / "state", bundle)
    config = encode(default_config())
    config["root"]["readonly"] = False
    config["linux"]["cgroupsPath"] = f"/{cgroup}"
    runtime.configure(config)
    runtime.shell("true")
    return runtime

"""A bundle and the command line, for tests of the OCI runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.config.decode import encode
from runtime.config.default import default_config
from runtime.launcher.build import COMMAND


@dataclass
class Runtime:
    """The command line with a state root of its own, and the bundle that its containers are made from."""

    root: Path
    bundle: Path

    def command(self, *arguments: str) -> list[str]:
        return [str(COMMAND), "--root", str(self.root), *arguments]

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

    def calls(self, *arguments: str, of_children: bool = False) -> list[tuple[str, int]]:
        """The system calls that a command makes, in order, each with how often it has been made by then; or those that
        only the processes make that it starts."""
        with tempfile.NamedTemporaryFile("r") as trace:
            command = ["strace", "-f", "-qq", "-o", trace.name, *self.command(*arguments)]
            subprocess.run(command, cwd=self.bundle, stdin=subprocess.DEVNULL, check=True, timeout=60)
            lines = [line.split(maxsplit=1) for line in trace.read().splitlines() if "(" in line]
        first = lines[0][0]
        own = [rest.partition("(")[0] for pid, rest in lines if pid == first]
        others = [rest.partition("(")[0] for pid, rest in lines if pid != first]
        seen: Counter[str] = Counter()
        found = []
        for call in [call for call in others if call not in own] if of_children else own:
            seen[call] += 1
            if call.isidentifier() and call not in ("execve", "exit_group"):
                found.append((call, seen[call]))
        return found

    def killed_at(self, call: str, number: int, *arguments: str, children: bool = False) -> bool:
        """Run a command, whose process, or one that it starts, is killed at its call of this number; whether it was."""
        inject = [
            "strace",
            *(["-f"] if children else []),
            "-qq",
            "-o/dev/null",
            f"-einject={call}:signal=KILL:when={number}",
        ]
        null = subprocess.DEVNULL
        command = [*inject, *self.command(*arguments)]
        return (
            subprocess.run(command, cwd=self.bundle, stdin=null, stdout=null, stderr=null, timeout=60).returncode != 0
        )

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

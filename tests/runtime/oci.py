"""A bundle and the command line, for tests of the OCI runtime."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.config.decode import encode
from runtime.config.default import default_config
from runtime.launcher.build import COMMAND


@dataclass
class Runtime:
    """The command line with a state root of its own, and the bundle that its containers are made from; ``inside`` is
    what leads a command into the namespaces where it is to run."""

    root: Path
    bundle: Path
    inside: tuple[str, ...] = ()

    def command(self, *arguments: str) -> list[str]:
        return [*self.inside, str(COMMAND), "--root", str(self.root), *arguments]

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

    def traced(self, options: Sequence[str], *arguments: str) -> list[tuple[str, str]]:
        """Run a command under strace: pairs of a pid and what it did. The first pid is the command's, after whose end
        nobody is traced any more."""
        null = subprocess.DEVNULL
        with tempfile.NamedTemporaryFile("r") as trace:
            command = ["strace", "-I2", "-f", "-q", "-o", trace.name, *options, *self.command(*arguments)]
            strace = subprocess.Popen(command, cwd=self.bundle, stdin=null, stdout=null, stderr=null)
            deadline = time.monotonic() + 60
            ended = re.compile(r"(\d+) .*^\1 +\+\+\+ ", re.MULTILINE | re.DOTALL)
            while strace.poll() is None and not ended.match(Path(trace.name).read_text()):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            strace.terminate()  # it lets go of a container that goes on
            strace.wait(30)
            lines = (line.split(maxsplit=1) for line in trace.read().splitlines())
            return [(pid, rest) for pid, rest in lines]

    def calls(self, *arguments: str, of_children: bool = False) -> list[tuple[str, int]]:
        """The system calls that a command makes, in order, each with how often it has been made by then; or those that
        only the processes make that it starts."""
        lines = [(pid, rest.partition("(")[0]) for pid, rest in self.traced([], *arguments) if "(" in rest]
        own = [call for pid, call in lines if pid == lines[0][0]]
        others = [call for pid, call in lines if pid != lines[0][0]]
        seen: Counter[str] = Counter()
        found = []
        for call in [call for call in others if call not in own] if of_children else own:
            seen[call] += 1
            if call.isidentifier() and call not in ("execve", "execveat", "exit_group"):
                found.append((call, seen[call]))
        return found

    def killed_at(self, call: str, number: int, *arguments: str) -> bool:
        """Run a command that is killed, or one of the processes that it starts is, at the call of this number; whether
        the command failed."""
        lines = self.traced([f"-einject={call}:signal=KILL:when={number}"], *arguments)
        return (lines[0][0], "+++ exited with 0 +++") not in lines

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


def said_on(master: int) -> bytes:
    """All that is written to a terminal, until nobody has its other side open; its master is closed then."""
    said = b""
    try:
        while data := os.read(master, 1000):
            said += data
    except OSError:  # EIO: the other side is closed
        pass
    os.close(master)
    return said

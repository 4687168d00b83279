"""Debian's docker-registry on loopback, for benchmarks and for tests: started and stopped by who asks for it."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import PrerequisiteError

_CONFIGURATION = """version: 0.1
log: {{level: info}}
storage:
  filesystem: {{rootdirectory: {folder}/data}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http:
  addr: 127.0.0.1:0
{more}
"""
_LISTENING = 'msg="listening on '


@contextmanager
def docker_registry(folder: Path, more: str = "") -> Iterator[str]:
    """Run docker-registry with its data in ``folder``, and yield its host and port. ``more`` are lines of its
    configuration. Raises PrerequisiteError if it is not installed, or does not start."""
    if shutil.which("docker-registry") is None:
        raise PrerequisiteError("docker-registry is not installed", "apt-get install docker-registry")
    configuration = folder / "registry.yml"
    configuration.write_text(_CONFIGURATION.format(folder=folder, more=more))
    command = ["docker-registry", "serve", str(configuration)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    try:
        said = ""
        for said in process.stderr:
            if _LISTENING in said:
                break
        if _LISTENING not in said:
            raise PrerequisiteError(f"docker-registry did not start: {said.strip()}")
        draining = threading.Thread(target=process.stderr.read, daemon=True)
        draining.start()
        yield said.partition(_LISTENING)[2].partition('"')[0].removesuffix(", tls")
    finally:
        process.kill()
        process.wait()

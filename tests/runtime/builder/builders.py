"""Builds in processes of their own, for tests that end them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from runtime.images.store import Store


def start_build(
    store: Store, context: Path, dockerfile: Path, number: signal.Signals, after_s: float = 0.5
) -> subprocess.Popen[str]:
    """A build in a process of its own that sends itself a signal some time after its start."""
    script = (
        "import os, sys, threading; from pathlib import Path\n"
        "from runtime.builder.build import build; from runtime.images.store import Store\n"
        "root, context, dockerfile = map(Path, sys.argv[1:4])\n"
        f"threading.Timer({after_s}, os.kill, (os.getpid(), int(sys.argv[4]))).start()\n"
        "build(Store(root), context=context, dockerfile=dockerfile, reference='x', progress=print)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, str(store.root), str(context), str(dockerfile), str(int(number))],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

"""images.pull, push and serve as a person calls them: one store is lent to another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.images.model import ImageConfig
from runtime.images.store import Store

pytestmark = pytest.mark.root
ROOT = Path(__file__).resolve().parents[3]
COMMAND = [str(Path(sys.executable).parent / "invoke"), "--search-root", str(ROOT)]


def variables(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "TESTBED_REGISTRY"}
    own = {"TESTBED_HOME": str(home), "CONTAINERS_REGISTRIES_CONF": "/dev/null", "REGISTRY_AUTH_FILE": "/none"}
    return {**kept, "PYTHONPATH": str(ROOT), **own, **more}


def run(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], cwd=ROOT, env=variables(home, **more), capture_output=True, text=True)


@pytest.fixture
def lent(tmp_path: Path) -> Iterator[str]:
    """The address of a store with the image ``team/app``, which ``images.serve`` lends."""
    store = Store(tmp_path / "lender" / "images")
    with store.building(print), store.scratch() as scratch:
        (scratch / "root").mkdir()
        store.tag("team/app", ImageConfig(cmd=("/x",)), [store.add_layer(scratch / "root", "test")])
    environment = variables(tmp_path / "lender")
    with subprocess.Popen([*COMMAND, "images.serve"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 130


def test_a_store_is_lent_to_another(lent: str, tmp_path: Path) -> None:
    done = run(tmp_path / "home", "images.pull", f"{lent}/team/app", "--plain-http")
    assert (done.returncode, done.stdout) == (0, f"{lent}/team/app:latest\n"), done.stderr
    short = run(tmp_path / "home", "images.pull", "team/app", TESTBED_REGISTRY=f"http://{lent}")
    assert short.returncode == 0, short.stderr
    assert Store(tmp_path / "home" / "images").get("team/app").config.cmd == ("/x",)
    pushed = run(tmp_path / "home", "images.push", "team/app", "--to", f"{lent}/team/copy", "--plain-http")
    assert pushed.returncode == 5 and "push to" in pushed.stderr and "Traceback" not in pushed.stderr


def test_what_is_wrong_is_said_in_words(tmp_path: Path) -> None:
    for words, said, code in (
        (("images.pull", "redis"), "which registry has 'redis:latest'?", 1),
        (("images.pull", "127.0.0.1:1/a", "--plain-http"), "Connection refused", 5),
        (("images.serve", "--port", "70000"), "serve images at", 5),
    ):
        done = run(tmp_path / "home", *words)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert said in done.stderr

"""What the supervisor passes on, and who may end; what it does besides is tested in a guest (test_vm_containers.py)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from runtime.cgroups import Cgroup
from runtime.description import to_json
from runtime.spec import Process, Spec
from runtime.supervisor import Output

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_each_line_has_its_containers_name(pipe: tuple[int, int]) -> None:
    written: list[bytes] = []
    output = Output("web", pipe[0], written.append)
    os.write(pipe[1], b"testbed: redis: exec\nhalf")
    assert output.take()
    assert written == [b"web: testbed: redis: exec\n"]
    os.write(pipe[1], b" a line\n")
    assert output.take()
    assert written[1:] == [b"web: half a line\n"]


def test_the_rest_is_taken_without_waiting_for_more() -> None:
    written: list[bytes] = []
    read, write = os.pipe()
    output = Output("web", read, written.append)
    os.write(write, b"one\n" * 1000)
    output.rest()  # the writer is there still
    assert b"".join(written) == b"web: one\n" * 1000
    os.write(write, b"no newline")
    os.close(write)
    output.rest()
    assert written[-1] == b"web: no newline\n"
    os.close(read)


def test_a_line_without_an_end_is_passed_on_in_parts() -> None:
    written: list[bytes] = []
    read, write = os.pipe()
    output = Output("web", read, written.append)
    for _ in range(300):
        os.write(write, b"x" * 50_000)
        assert output.take()
    os.close(write)
    output.rest()
    os.close(read)
    lines = b"".join(written).splitlines()
    assert max(map(len, lines)) < 5000 and all(line.startswith(b"web: ") for line in lines)
    assert sum(len(line) - len(b"web: ") for line in lines) == 300 * 50_000


def supervise(
    folder: Path,
    layer: Path,
    run: str,
    scripts: Mapping[str, str],
    tenants: tuple[str, ...] = (),
    leaving: tuple[str, ...] = (),
    held: Mapping[str, Path] = MappingProxyType({}),
    shared: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """Supervise containers of these scripts for real; their names begin with ``run``. Nothing of them is left. They
    have what is ``shared`` of others, by kind."""
    specs = {
        f"{run}-{name}": Spec(
            Process(("sh", "-c", script)),
            (str(layer),),
            "box",
            shared=tuple((kind, f"{run}-{of}") for kind, of in shared.get(name, ())),
        )
        for name, script in scripts.items()
    }
    description = folder / "description"
    named = {"tenants": [f"{run}-{name}" for name in tenants], "leaving": [f"{run}-{name}" for name in leaving]}
    description.write_text(to_json(specs, held={f"{run}-{name}": str(path) for name, path in held.items()}, **named))
    command = [sys.executable, "-m", "runtime.supervisor", str(description)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60)
    assert not any(Cgroup(f"testbed/{name}").exists() for name in specs)
    done.stdout = done.stdout.replace(f"{run}-", "")
    return done


@pytest.mark.root
def test_a_tenant_ends_alone_and_another_ends_all(busybox_layer: Path, run_name: str, tmp_path: Path) -> None:
    scripts = {"one": "echo bye; (sleep 99 &) ; exit 3", "last": "sleep 99", "web": "sleep 1; exit 5"}
    done = supervise(tmp_path, busybox_layer, run_name, scripts, ("one", "last"))
    said = done.stdout.splitlines()
    assert done.returncode == 5 and said[-1] == "testbed: web: ended: 5"
    assert said.index("testbed: one: left: 3") < len(said) - 1 and "one: bye" in said
    assert not any("ended" in line for line in said[:-1]), "a tenant's end is none of the guest's"


@pytest.mark.root
def test_who_is_no_tenant_ends_them(busybox_layer: Path, run_name: str, tmp_path: Path) -> None:
    done = supervise(
        tmp_path, busybox_layer, run_name, {"web": "sleep 99", "redis": "exit 4", "one": "sleep 99"}, ("one",)
    )
    assert done.returncode == 4 and done.stdout.splitlines()[-1] == "testbed: redis: ended: 4"


@pytest.mark.root
@pytest.mark.parametrize("first", ["app", "side", "other"])
def test_one_shares_anothers_namespaces(busybox_layer: Path, run_name: str, tmp_path: Path, first: str) -> None:
    """Whichever ends first, all end."""
    links = "; ".join(f"busybox readlink /proc/self/ns/{kind}" for kind in ("pid", "net", "ipc"))
    last = {name: "exit 6" if name == first else "exec sleep 99" for name in ("app", "side", "other")}
    waiting = "while [ ! -e /dev/shm/{} ]; do sleep 0.01; done"
    scripts = {
        "app": f"echo lent > /dev/shm/memory; {links}; {waiting.format('seen')}; {last['app']}",
        "side": f"{waiting.format('memory')}; {links}; echo > /dev/shm/seen; {last['side']}",
        "other": f"sleep 0.5; {last['other']}",
    }
    shared = {"side": tuple((kind, "app") for kind in ("pid", "network", "ipc"))}
    done = supervise(tmp_path, busybox_layer, run_name, scripts, shared=shared)
    said = [line.split(": ", 1) for line in done.stdout.splitlines()]
    app, side = ([text for name, text in said if name == one and ":[" in text] for one in ("app", "side"))
    assert len(app) == 3 and app == side
    assert done.returncode in (6, 137), "with a namespace's first process all end that are in it"


@pytest.mark.root
def test_a_tenant_that_cannot_start_ends_the_start(busybox_layer: Path, run_name: str, tmp_path: Path) -> None:
    (busybox_layer / "bin" / "sh").unlink()
    done = supervise(tmp_path, busybox_layer, run_name, {"one": "true"}, ("one",))
    assert done.returncode == 1 and "testbed: one: failed: step" in done.stdout


@pytest.mark.root
def test_one_that_may_leave_takes_the_others_with_it_when_it_is_the_last(
    busybox_layer: Path, run_name: str, tmp_path: Path
) -> None:
    scripts = {"setup": "exit 4", "web": "sleep 1; exit 6", "one": "sleep 99"}
    done = supervise(tmp_path, busybox_layer, run_name, scripts, ("one",), ("setup", "web"))
    said = [line for line in done.stdout.splitlines() if "exec" not in line and "created" not in line]
    assert (said, done.returncode) == (["testbed: setup: left: 4", "testbed: web: ended: 6"], 6)


@pytest.mark.root
def test_one_that_is_held_begins_at_the_word(busybox_layer: Path, run_name: str, tmp_path: Path) -> None:
    fifo = tmp_path / "web"
    os.mkfifo(fifo)

    giving = threading.Thread(target=fifo.write_text, args=("go",))  # opened once the supervisor has
    giving.start()
    scripts = {"setup": "sleep 0.3; echo set up", "web": "echo begun; exit 5"}
    done = supervise(tmp_path, busybox_layer, run_name, scripts, leaving=("setup",), held={"web": fifo})
    giving.join()
    said = done.stdout.splitlines()
    assert done.returncode == 5 and said[-1] == "testbed: web: ended: 5"
    assert said.index("testbed: web: created") < said.index("testbed: web: exec") < said.index("web: begun")


@pytest.mark.root
def test_one_that_is_held_and_cannot_begin_says_why(busybox_layer: Path, run_name: str, tmp_path: Path) -> None:
    """The command is looked up when its container is made; only its execution fails, for it is no program."""
    (busybox_layer / "bin" / "broken").write_bytes(b"no program")
    (busybox_layer / "bin" / "broken").chmod(0o755)
    fifo = tmp_path / "web"
    os.mkfifo(fifo)
    giving = threading.Thread(target=fifo.write_text, args=("go",))
    giving.start()
    spec = Spec(Process(("/bin/broken",)), (str(busybox_layer),), "box")
    (tmp_path / "description").write_text(to_json({f"{run_name}-web": spec}, held={f"{run_name}-web": str(fifo)}))
    command = [sys.executable, "-m", "runtime.supervisor", str(tmp_path / "description")]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60)
    giving.join()
    assert done.returncode == 1 and "-web: failed: step" in done.stdout and "Exec format error" in done.stdout
    assert not Cgroup(f"testbed/{run_name}-web").exists()

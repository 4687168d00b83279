"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from runtime import speed
from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError
from runtime.home import store_root
from runtime.lease import CGROUP_ROOT, lease
from runtime.speed import REFERENCE_NS, Speed
from testbed import leftovers
from testbed.projects.control import bring_down
from testbed.projects.record import lease_name, list_projects
from tests import scratches
from tests.owned import own_mounts
from vm_images.kernel import Package, download, ensure_kernel

_BUSYBOX = Path("/bin/busybox")
# For a test that boots guests or builds from package sources, with its fixtures, on a busy host without KVM.
_GUESTS_TIMEOUT_S = 1200


def pytest_configure() -> None:
    """Take SIGINT, which a script that starts the tests in the background has them ignore, and with them each command
    that a test interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    """What tests that were killed left on this host, which would be in the way of the next, is taken away and told."""
    if os.geteuid() != 0:
        return
    for project in list_projects():  # their holders outlive a test that was killed
        if project.alive and scratches.is_dead(project.name):
            bring_down(project, 0)
            session.config.get_terminal_writer().line(f"removed what a killed test left: project {project.name}")
    tests = (scratches.TEST_RUN, lease_name(scratches.TEST_RUN))
    left = tuple(leftover for leftover in leftovers.find() if leftover.run.startswith(tests))
    leftovers.remove(left)
    for leftover in left:
        session.config.get_terminal_writer().line(f"removed what a killed test left: {leftover}")
    for path in scratches.find_dead():
        with suppress(FileNotFoundError):  # the other stream of tests begins at the same time
            scratches.remove(path)
        session.config.get_terminal_writer().line(f"removed what a killed test left: directory {path}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with guests get more time, and those that need root say so when they cannot have it."""
    for item in items:
        if item.get_closest_marker("vm") or item.get_closest_marker("network"):
            item.add_marker(pytest.mark.timeout(_GUESTS_TIMEOUT_S))
        if os.geteuid() != 0 and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root: namespaces, mounts and cgroups are real here"))


@pytest.fixture(autouse=True)
def keeps_mounts() -> Iterator[None]:
    """Fails a test that mounted or unmounted anything for others than itself, where no others do (tests.streams)."""
    if not own_mounts():
        yield
        return
    before = Path("/proc/self/mountinfo").read_text().splitlines()
    yield
    after = Path("/proc/self/mountinfo").read_text().splitlines()
    assert after == before, "a test changed the mounts of its host"


@pytest.fixture
def busybox_layer(tmp_path: Path) -> Path:
    """A layer directory with a static busybox and links for the commands that tests run."""
    layer = tmp_path / "layers" / "busybox"
    (layer / "bin").mkdir(parents=True)
    shutil.copy2(_BUSYBOX, layer / "bin" / "busybox")
    for command in ("sh", "true", "false", "cat", "id", "sleep", "mount", "ls", "grep", "ip", "hostname", "dd", "stat"):
        (layer / "bin" / command).symlink_to("busybox")
    return layer


@pytest.fixture
def no_tracker() -> Iterator[None]:
    """Ends the process in which multiprocessing keeps count of its resources: others look whether a child is left."""
    yield
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@pytest.fixture
def slow_host(monkeypatch: pytest.MonkeyPatch) -> float:
    """Has limits of time be those of a host that is so many times slower."""
    monkeypatch.setattr(speed, "measured", lambda: Speed(10 * REFERENCE_NS, 10.0))
    return 10.0


@pytest.fixture
def run_name() -> str:
    """A run id that nothing else uses; what a test puts below it must be gone when the test ends."""
    return scratches.name_run()


@pytest.fixture
def scratch(run_name: str) -> Iterator[Path]:
    """A directory for a run's files, in which none may be left. Its path is short, as the names of sockets must be."""
    directory = scratches.scratch_path(run_name)
    directory.mkdir()
    try:
        yield directory
        left = os.listdir(directory)
    finally:
        scratches.remove(directory)
    assert left == [], "a test left files"


@pytest.fixture
def cgroup_parent(run_name: str) -> Iterator[str]:
    """The name of a cgroup, held by a lease, below which a test makes its own; they must be gone at the end."""
    with lease(run_name):
        yield f"{CGROUP_ROOT}/{run_name}"
        for directory in Cgroup(f"{CGROUP_ROOT}/{run_name}").directories():
            assert [path for path in directory.iterdir() if path.is_dir()] == [], "a test left a cgroup"


@pytest.fixture(scope="session")
def kernel_package() -> Iterator[Path]:
    """The package of the guests' kernel, unpacked: it has more modules than the store."""
    work = scratches.in_store(scratches.name_run())
    try:
        kernel = ensure_kernel(store_root() / "guest")
        work.mkdir()
        yield download((Package(kernel.package, kernel.version, (), ""),), work)
    except PrerequisiteError as error:
        pytest.skip(f"no package of a kernel: {error}")
    finally:
        shutil.rmtree(work, ignore_errors=True)

"""Changes of unions that are interrupted, killed or disturbed: each is finished or undone."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import pytest

from runtime.errors import UsageError
from runtime.unionfs import branches, drivers, mount_api, unions
from runtime.unionfs.records import leftovers, lost_trials, sweep
from tests.runtime.unionfs.test_unions import KERNELS, usable
from tests.runtime.unionfs.union_site import Site
from tests.waiting import until

pytestmark = pytest.mark.root


@pytest.mark.parametrize("moment", ["drivers.make", "_check_writable", "mount_api.unmount"])
def test_a_change_that_is_interrupted_is_finished_or_undone(
    site: Site, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.mount("a=rw:b=ro")
    name, _, function = moment.rpartition(".")
    module = {"": unions, "drivers": drivers, "mount_api": mount_api}[name]
    original, own, calls = getattr(module, function), os.getpid(), list[int]()

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if os.getpid() == own and not calls:
            calls.append(1)
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(module, function, interrupted)
    with pytest.raises(KeyboardInterrupt):
        unions.change(str(site.target), lambda union: branches.add(union, f"{site.root}/c=ro"), site.records)
    record = site.records.find(str(site.target))
    assert len([line for line in mount_api.mounts() if line.target == str(site.target)]) == 1
    assert len(record.generations) == record.current == (2 if moment == "mount_api.unmount" else 1)
    assert len([one for one in site.left() if "/.union-" in one and " " not in one]) == record.current


def test_what_somebody_mounts_over_a_union_is_let_alone(site: Site) -> None:
    site.mount("a=rw:b=ro")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(site.target)], check=True)
    try:
        for act in (site.umount, lambda: unions.change(str(site.target), lambda union: union, site.records)):
            with pytest.raises(UsageError, match="another mount covers"):
                act()
        with pytest.raises(UsageError, match="another mount covers"):
            unions.which(str(site.target / "file"), site.records)
    finally:
        subprocess.run(["umount", str(site.target)], check=True)
    assert (site.target / "file").read_text() == "of b"


def test_a_union_in_use_is_unmounted_only_lazily(site: Site) -> None:
    site.mount("a=rw:b=ro")
    with (site.target / "file").open() as reader:
        with pytest.raises(UsageError, match="busy") as refused:
            site.umount()
        assert str(os.getpid()) in refused.value.hint
        unions.unmount(str(site.target), lazy=True, records=site.records)
        assert reader.read() == "of b"


def change_and_be_killed(site: Site, moment: str) -> None:
    """Change a union as a process that is killed before it does what ``moment`` names."""
    name, _, function = moment.rpartition(".")
    module = {"": unions, "drivers": drivers, "mount_api": mount_api}[name]
    original, own = getattr(module, function), os.getpid()

    def killed(*arguments: Any, **options: Any) -> Any:
        if os.getpid() == own:
            os.kill(own, signal.SIGKILL)
        return original(*arguments, **options)

    try:
        setattr(module, function, killed)
        unions.change(str(site.target), lambda union: branches.add(union, f"{site.root}/c=ro"), site.records)
    finally:
        os._exit(0)


@pytest.mark.parametrize("driver", KERNELS)
# The record is written; the new union is made, and attached nowhere; it is beneath the old one.
@pytest.mark.parametrize("moment", ["drivers.make", "_check_writable", "mount_api.unmount"])
def test_a_change_that_is_killed_is_finished_or_undone(site: Site, moment: str, driver: str) -> None:
    site.mount("a=rw:b=ro", usable(driver))
    pid = os.fork()
    if pid == 0:
        change_and_be_killed(site, moment)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with site.records.locked():
        pass
    record = site.records.find(str(site.target))
    assert len([line for line in mount_api.mounts() if line.target == str(site.target)]) == 1
    assert (site.target / "file").read_text() == "of b"
    assert len(record.generations) == record.current
    site.umount()
    assert site.left() == []


@pytest.mark.parametrize("driver", ["fuse-overlayfs", "mergerfs"])
def test_what_a_killed_trial_leaves_is_ended_by_the_next_call(site: Site, driver: str) -> None:
    usable(driver)
    pid = os.fork()
    if pid == 0:
        try:
            mount_api.clone_tree = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
            drivers.probe(driver)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert lost_trials()
    with site.records.locked():
        pass
    until(lambda: not lost_trials())


def test_what_a_union_needed_that_somebody_else_unmounted_is_found_and_removed(site: Site) -> None:
    site.mount("a=rw:b=ro")
    assert leftovers(site.records.root) == ()
    subprocess.run(["umount", str(site.target)], check=True)
    assert leftovers(site.records.root) == (f"record of the union at {site.target}",)
    assert [one for one in site.left() if ".union-" in one]
    sweep(site.records.root)
    assert site.left() == []

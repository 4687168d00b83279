"""VirtualBox's service: that it is waited for, what it is asked, and that nothing of it is left. The programs are
scripts that do what is to be dealt with; VirtualBox's own are in tests/testbed/machine/virtualbox_checks.py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup, hierarchies
from runtime.errors import PrerequisiteError, TestbedError
from runtime.lease import cgroup_name
from testbed.virtualbox import service as module
from testbed.virtualbox.installation import MANAGER, SERVER, VirtualBox
from testbed.virtualbox.service import Service
from tests import scratches
from tests.scratches import name_run

pytestmark = pytest.mark.root

_SERVES = 'echo $$ > "$2"; exec sleep 600'


@pytest.fixture
def make() -> Iterator[Callable[[str, str], Service]]:
    """Makes a service of two scripts, not below /tmp, which it has one of its own in place of."""
    name = name_run()
    cgroup, work = Cgroup(cgroup_name(name, "virtualbox"), hierarchies()), scratches.in_store(name)
    programs = work / "programs"
    programs.mkdir(parents=True)

    def made(server: str, manager: str = "") -> Service:
        for name, script in ((SERVER, server), (MANAGER, manager)):
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        return Service(VirtualBox(programs, "7.2"), work / "service", cgroup)

    try:
        yield made
        assert not cgroup.exists() and os.listdir(work) == ["programs"]
    finally:
        shutil.rmtree(work, ignore_errors=True)


def test_it_is_asked_apart_from_whoever_uses_virtualbox_here(make: Callable[..., Service]) -> None:
    service = make(_SERVES, 'echo "$VBOX_USER_HOME" "$HOME" "$*"; : > /tmp/socket; ls /tmp')
    service.start()
    try:
        home, own, words, *listed = service.ask("list", "vms").split(maxsplit=3)
        assert home == own and home.endswith("/service/home") and words == "list"
        assert listed == ["vms\nsocket\n"] and not Path("/tmp/socket").exists()
    finally:
        service.close()


def test_what_it_refuses_is_told_in_its_words(make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> None:
    refuses = (
        "echo 0%...; echo 'VBoxManage: error: no such machine' >&2; echo 'VBoxManage: error: Details: 1' >&2; exit 1"
    )
    service = make(_SERVES, f'[ "$1" = wait ] && exec sleep 600; {refuses}')
    service.start()
    try:
        with pytest.raises(TestbedError, match="VBoxManage showvminfo a: VBoxManage: error: no such machine"):
            service.ask("showvminfo", "a")
        monkeypatch.setattr(module, "scale", lambda seconds: 0.1)
        with pytest.raises(TestbedError, match=r"VBoxManage wait: no answer within 0.1 s"):
            service.ask("wait")
    finally:
        service.close()


def test_one_that_does_not_start_is_told_and_leaves_nothing(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PrerequisiteError, match=f"start {SERVER}: it ended at once: it is broken"):
        make("echo it is broken; exit 1").start()
    monkeypatch.setattr(module, "scale", lambda seconds: 0.1)
    with pytest.raises(PrerequisiteError, match=rf"start {SERVER}: it is not ready after 0.1 s: it said nothing"):
        make("exec sleep 600").start()

"""Hypervisors that are no platforms: each is refused with what is missing, or with why nothing runs there."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import PrerequisiteError
from testbed.checks_of_machines import check_hypervisors
from testbed.lab import Lab
from testbed.ladder.targets import choose_targets
from testbed.platforms import registry
from testbed.platforms.hypervisors import HYPERVISORS, ask_libvirt, find_lacking
from testbed.rungs.read import read_history


def test_what_is_missing_is_said_by_program_and_by_libvirt() -> None:
    one = HYPERVISORS["vmware"]
    lacking, fix = find_lacking(one, lambda program: None)
    assert "no vmplayer or vmware or vmrun on the PATH" in lacking and fix
    lacking, fix = find_lacking(one, lambda program: "/usr/bin/vmrun")
    assert lacking.startswith("VMware Player or Workstation is not here for libvirt: ") and fix
    here = replace(one, uri="test:///default")  # a driver of libvirt's that is always there
    assert find_lacking(here, lambda program: "/usr/bin/vmrun") == ("", "")


@pytest.mark.parametrize("name", HYPERVISORS)
def test_libvirt_is_asked_and_no_daemon_is_started_for_it(name: str) -> None:
    assert ask_libvirt(HYPERVISORS[name].uri) and ask_libvirt("test:///default") == ""
    assert not [one for one in Path("/proc").glob("[0-9]*/comm") if is_session(one)]


def is_session(comm: Path) -> bool:
    """Whether it is of a daemon of libvirt's that a library started: it ends by itself."""
    try:
        return comm.read_text().strip() == "libvirtd" and "--timeout" in comm.with_name("cmdline").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("name", HYPERVISORS)
def test_nothing_is_promised_even_where_it_is_installed(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for ask in (registry.check_names, registry.require_programs):
        with pytest.raises(PrerequisiteError, match=f"is not here: .*{HYPERVISORS[name].uri}") as raised:
            ask((name,))
        assert raised.value.hint
    with pytest.raises(PrerequisiteError, match="is not here"):
        registry.create(name, "run", tmp_path, Lab())
    monkeypatch.setattr("testbed.platforms.hypervisors.find_lacking", lambda one: ("", ""))
    with pytest.raises(PrerequisiteError, match=f"is here .* but .*: {HYPERVISORS[name].reason}"):
        registry.check_names(("container", name))
    assert name not in registry.NAMES and name in [check.name for check in check_hypervisors()]


def test_a_rung_on_one_is_missing_with_that_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteError, match="is not here: no "):
        registry.check_names(registry.expand(("vmware-1999",), print))
    with pytest.raises(PrerequisiteError, match=r"vmware-1999 cannot be run here: .* is not here"):
        choose_targets(read_history(), ("vmware-1999",), (), print)

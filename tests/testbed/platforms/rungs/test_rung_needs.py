"""What a host must have for a rung, and what is said where it has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.cgroups import Hierarchies
from runtime.errors import PrerequisiteError
from testbed.checks_of_peers import check_rungs
from testbed.platforms.rungs import needs
from testbed.rungs.read import find_rung


def test_what_a_kernel_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "hierarchies", lambda: Hierarchies({}, None, frozenset()))
    monkeypatch.setattr(needs, "find_version", lambda: 0)
    for name, said in (("jail-2000", "cgroup v2, which is not mounted"), ("sandboxed", "no Landlock")):
        with pytest.raises(PrerequisiteError, match=said) as caught:
            needs.check_rung(find_rung(name))
        assert caught.value.hint
    monkeypatch.setattr(needs, "_TIME_NAMESPACE", Path("/proc/self/ns/absent"))
    with pytest.raises(PrerequisiteError, match="no time namespaces"):
        needs.check_rung(find_rung("sandboxed"))
    needs.check_rung(find_rung("chroot-1982"))
    needs.check_rung(find_rung("container"))


def test_the_doctor_counts_the_rungs_that_can_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "hierarchies", lambda: Hierarchies({}, None, frozenset()))
    check = check_rungs()
    assert not check.ok and not check.required and "jail-2000: one address" in check.detail
    assert check.fix.count("mount -t cgroup2") == 1

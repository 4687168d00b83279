"""Whether a system is domain 0, by what its kernel says, and what is said where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from testbed.checks_of_machines import check_xen
from testbed.host.facts import is_domain_0
from testbed.platforms import registry
from testbed.platforms.paravirtual import PARAVIRTUAL


@pytest.mark.parametrize(("text", "is_it"), [("control_d\n", True), ("\n", False), (None, False)])
def test_domain_0_is_the_one_that_may_control_others(text: str | None, is_it: bool, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "capabilities").write_text(text)
    assert is_domain_0(tmp_path / "capabilities") is is_it


@pytest.mark.skipif(is_domain_0(), reason="this is domain 0")
def test_elsewhere_the_reference_machine_is_named() -> None:
    with pytest.raises(PrerequisiteError, match="Xen has not booted this system") as raised:
        registry.require_programs((PARAVIRTUAL,))
    assert "--machine reference" in raised.value.hint and f"container,{PARAVIRTUAL}" in raised.value.hint
    check = check_xen()
    assert not check.ok and not check.required and check.fix == raised.value.hint
    (missing,) = registry.find_missing((PARAVIRTUAL,))
    assert "--machine reference" in missing.why

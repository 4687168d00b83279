"""Names of platforms that are measured more than once."""

from __future__ import annotations

from testbed.aliases import describe_alias, find_original, is_again, is_alias, is_of_revision, name_again, name_at
from testbed.temperature import find_temperature


def test_an_alias_says_which_platform_it_is_and_how_it_differs() -> None:
    again, revision = name_again("container"), name_at("vm-restored", "1a2b3c4d5e6f7a8b")
    assert (again, revision) == ("container@again", "vm-restored@1a2b3c4d5e6f")
    assert [find_original(name) for name in (again, revision, "vm")] == ["container", "vm-restored", "vm"]
    assert [is_again(name) for name in (again, revision, "vm")] == [True, False, False]
    assert [is_of_revision(name) for name in (again, revision, "vm")] == [False, True, False]
    assert [is_alias(name) for name in (again, revision, "vm")] == [True, True, False]
    assert describe_alias(again, "container") == "container (again)"
    assert describe_alias("vm", "vm (KVM)") == "vm (KVM)"
    assert find_temperature(revision) == "restored"

"""What becomes of roots, as ZFS's words have it: pure."""

from __future__ import annotations

import pytest

from runtime.errors import UsageError
from runtime.images.model import ImageConfig
from runtime.roots.model import Root, Roots, split_name


def roots() -> Roots:
    """``base`` with snapshots s1, s2, s3, and ``clone`` of s2."""
    made = Roots().created(Root("base", "image", "id", ("d",), ImageConfig(), "u0"))
    for number in (1, 2, 3):
        made = made.snapshotted("base", f"s{number}", True, f"u{number}")
    return made.cloned("base", "s2", "clone", "c0")


def names(root: Root) -> list[str]:
    return [one.name for one in root.snapshots]


def test_a_snapshot_freezes_what_was_written() -> None:
    base = roots().get("base")
    assert base.chain == ("u0", "u1", "u2") and base.upper == "u3"
    assert base.snapshot("s2").chain == ("u0", "u1")


def test_nothing_written_is_not_frozen() -> None:
    base = roots().snapshotted("base", "again", False, "").get("base")
    assert base.chain == base.snapshot("again").chain == ("u0", "u1", "u2") and base.upper == "u3"


def test_a_snapshot_by_copy_leaves_the_writable_layer_where_it_is() -> None:
    base = roots().snapshotted_by_copy("base", "live", "copy").get("base")
    assert base.chain == ("u0", "u1", "u2") and base.upper == "u3"
    assert base.snapshot("live").chain == ("u0", "u1", "u2", "copy")


def test_a_clone_begins_above_its_snapshot() -> None:
    clone = roots().get("clone")
    assert (clone.chain, clone.upper, clone.origin, clone.snapshots) == (("u0", "u1"), "c0", "base@s2", ())


def test_a_rollback_keeps_later_snapshots() -> None:
    base = roots().rolled_back("base", "s1", "new").get("base")
    assert base.chain == ("u0",) and base.upper == "new" and names(base) == ["s1", "s2", "s3"]
    assert "u3" not in base.layer_names()


def test_a_promoted_clone_takes_over_and_its_origin_can_go() -> None:
    made = roots().cloned("base", "s1", "other", "o0")
    with pytest.raises(UsageError, match=r"clones come from its snapshots: clone, other"):
        made.removed("base")
    made = made.promoted("clone")
    assert names(made.get("clone")) == ["s1", "s2"] and names(made.get("base")) == ["s3"]
    assert made.get("base").origin == "clone@s2" and made.get("clone").origin == ""
    assert made.get("other").origin == "clone@s1"
    left = made.removed("base")
    assert [one.name for one in left.roots] == ["clone", "other"]
    assert left.layer_names() == {"u0", "u1", "c0", "o0"}


def test_a_clone_of_a_clone_keeps_its_origin_when_promoted() -> None:
    made = roots().snapshotted("clone", "x", True, "c1").cloned("clone", "x", "third", "t0").promoted("third")
    assert made.get("third").origin == "base@s2" and made.get("clone").origin == "third@x"


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (lambda made: made.get("none"), "there is no root none"),
        (lambda made: made.created(Root("base", "i", "i", (), ImageConfig(), "u")), "there is a root base"),
        (lambda made: made.snapshotted("base", "s1", True, "u"), "has a snapshot s1"),
        (lambda made: made.snapshotted("base", "a/b", True, "u"), "no name"),
        (lambda made: made.rolled_back("base", "none", "u"), "no snapshot none"),
        (lambda made: made.promoted("base"), "is no clone"),
        (lambda made: made.without_snapshot("base", "s2"), "clones come from"),
        (lambda made: made.snapshotted("clone", "s1", True, "c1").promoted("clone"), "both have a snapshot s1"),
    ],
)
def test_what_cannot_be_is_refused(act: object, problem: str) -> None:
    assert callable(act)
    with pytest.raises(UsageError, match=problem):
        act(roots())


@pytest.mark.parametrize("text", ["", "@s", "a@", "../a", "a@../s", ".hidden", "a" * 101, "a@b@c"])
def test_names_are_confined(text: str) -> None:
    with pytest.raises(UsageError):
        split_name(text)

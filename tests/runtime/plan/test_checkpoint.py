"""Plans of containers that are saved and restored."""

from __future__ import annotations

from ipaddress import IPv4Interface
from pathlib import Path

from runtime.cgroups import Hierarchies
from runtime.plan import steps as s
from runtime.plan.checkpoint import Saved, dump_command, original_plan, restore_plan
from runtime.plan.network import Attachment
from runtime.spec import Link, Process, Spec
from runtime.unionfs.overlay import WritableLayer

UNIFIED = Hierarchies({}, Path("/sys/fs/cgroup"), frozenset(("memory", "cpu", "pids")))
SPEC = Spec(
    Process(args=("/serve",)),
    ("/store/a", "/store/b"),
    "web",
    link=Link(IPv4Interface("10.77.1.10/16"), "02:00:0a:4d:01:0a"),
    hosts=(("redis", "10.77.1.11"),),
)
SAVED = Saved("/run/x/images", "/run/x/upper", "pipe:[1]", "pipe:[2]")


def test_an_original_writes_to_disk_and_has_mounts_that_can_be_saved() -> None:
    plan = original_plan(SPEC, UNIFIED, "testbed/r/o", Attachment(2, 7), WritableLayer("/run/x/upper", "/run/x/work"))
    mounts = [step for step in plan.child if isinstance(step, s.Mount)]
    (overlay,) = [one for one in mounts if "overlay" in one.describe()]
    assert "/run/x/upper" in overlay.describe()
    assert any(isinstance(step, s.Write) and step.path == "etc/hosts" for step in plan.child), "it is no mount of /dev"


def test_a_copy_has_what_was_saved_below_a_layer_of_its_own() -> None:
    plan = restore_plan(SPEC, UNIFIED, "testbed/r/c", Attachment(2, 8), SAVED, "/usr/sbin/criu", "/run/x/c")
    described = [step.describe() for step in plan.child]
    (overlay,) = [text for text in described if "overlay" in text and "upperdir" in text]
    assert "/run/x/upper" not in overlay.split("upperdir")[1], "the saved one stays as it is"
    assert plan.into_cgroup == "/sys/fs/cgroup/testbed/r/c"
    last = plan.child[-1]
    assert isinstance(last, s.Exec)
    assert plan.child[-2] == s.CloseOnExec(4), "the parent hears when CRIU has been executed"
    words = " ".join(last.args)
    assert words.startswith("/usr/sbin/criu restore --images-dir /run/x/images --work-dir /run/x/c")
    for inherited in ("fd[0]:lab", "fd[3]:pipe:[1]", "fd[1]:pipe:[2]", "fd[2]:pipe:[2]"):
        assert f"--inherit-fd {inherited}" in words
    assert any(isinstance(step, s.Write) and step.data == ("web\n",) for step in plan.child)


def test_an_older_criu_is_not_told_to_skip_what_it_does_not_know() -> None:
    assert "skip" in dump_command("criu", 7, 8, "/i", skips_lock=True)
    assert "skip" not in dump_command("criu", 7, 8, "/i", skips_lock=False)

"""Who makes cgroups and network of a container, and when; and that an engine's container is made by the same steps."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config.process import User
from runtime.config.types import Config, Hooks, Linux, Mount, Namespace
from runtime.plan import steps as s
from runtime.plan.bundle import Choices, bundle_plan
from runtime.plan.constants import CLONE_NEWCGROUP, CLONE_NEWNET
from runtime.plan.root import ImageRoot
from runtime.plan.workload import workload_plan
from runtime.spec import Process, Resources, Spec, configuration
from tests.runtime.plan.bundles import HOOK, HYBRID, V1, V2

SPEC = Spec(Process(("server",), user=User(33)), ("/store/a",), "web", Resources(64 << 20, 0.5, 32))
CONFIG = configuration(SPEC)
CGROUPS = Mount("/sys/fs/cgroup", "cgroup", "cgroup")


def with_linux(**changes: Any) -> Config:
    return replace(CONFIG, linux=replace(CONFIG.linux, **changes))


def with_kinds(*kinds: str) -> Config:
    return with_linux(namespaces=(*CONFIG.linux.namespaces, *(Namespace(kind) for kind in kinds)))


OTHERS = {
    "a user namespace owns its network": with_kinds("user"),
    "a time namespace is entered by the next process": with_kinds("time"),
    "a namespace is another's": with_linux(namespaces=(*CONFIG.linux.namespaces[1:], Namespace("mount", "/ns"))),
    "a parameter of its network is set": with_linux(sysctl={"net.ipv4.ip_forward": "1"}),
    "hooks look at it": replace(CONFIG, hooks=Hooks(prestart=(HOOK,))),
    "its cgroups are shown": replace(CONFIG, mounts=(*CONFIG.mounts[:-1], CGROUPS)),
    "something lies on /sys": replace(CONFIG, mounts=(*CONFIG.mounts, Mount("/sys/x", "tmpfs"))),
    "/sys has an option of its own": replace(
        CONFIG, mounts=(*CONFIG.mounts[:-1], replace(CONFIG.mounts[-1], options=("rshared",)))
    ),
}


def made(config: Config, hierarchies: Hierarchies) -> s.Plan:
    choices = Choices("/b", "c", start_immediately=True, makes_cgroup=True)
    return bundle_plan(config, hierarchies, "/b", choices, image=ImageRoot(("/a",)))


def of_cgroups(plan: s.Plan) -> list[s.Step]:
    return [step for step in plan.parent if "/cg/" in str(step)]


@pytest.mark.parametrize("hierarchies", [V1, HYBRID, V2], ids=["v1", "hybrid", "v2"])
@pytest.mark.parametrize("why", OTHERS)
def test_all_containers_get_their_cgroups_in_one_order_before_anything_looks_at_them(
    why: str, hierarchies: Hierarchies
) -> None:
    plan = made(OTHERS[why], hierarchies)
    assert of_cgroups(plan) == of_cgroups(made(CONFIG, hierarchies)) != []
    entered = plan.child.index(s.Unshare(CLONE_NEWCGROUP))
    looks = [index for index, step in enumerate(plan.child) if isinstance(step, s.Sync | s.Mount)]
    assert entered < min(looks) and plan.clone_flags & CLONE_NEWNET


def test_on_version_two_the_launcher_would_be_one_of_the_containers_tasks() -> None:
    plan = workload_plan(SPEC, V2, "c")
    assert plan.into_cgroup and not [step for step in plan.parent if "cgroup.procs" in str(step)]


@pytest.mark.parametrize("hierarchies", [V1, V2], ids=["v1", "v2"])
def test_an_engines_container_is_made_by_the_same_steps(hierarchies: Hierarchies) -> None:
    """What differs is the root, and who is waited for."""
    engines = bundle_plan(CONFIG, hierarchies, "/b", Choices("/b/rootfs", "testbed/c"))
    own = workload_plan(SPEC, hierarchies, "testbed/c")
    last = [step for step in engines.child if not isinstance(step, s.CheckExecutable | s.WaitStart)]
    ending = last.index(s.CloseOnExec(3))
    assert list(own.child[own.child.index(s.CloseOnExec(3)) :]) == last[ending:]

    def limits(plan: s.Plan) -> set[s.Step]:
        return {step for step in plan.steps() if isinstance(step, s.Write | s.CgroupProgram) and "/cg/" in str(step)}

    assert {step for step in limits(engines) if "tasks" not in str(step)} <= limits(own)
    for kind in (s.Mknod, s.Symlink, s.ReadonlyPath):
        assert [step for step in engines.child if isinstance(step, kind)] == [
            step for step in own.child if isinstance(step, kind)
        ]
    masked = [[step.path for step in plan.child if isinstance(step, s.MaskPath)] for plan in (engines, own)]
    assert sorted(masked[0]) == sorted(masked[1])


def test_a_tmpfs_of_the_configuration_costs_no_file_system_where_there_is_one() -> None:
    image = bundle_plan(CONFIG, V2, "", Choices("", "c"), image=ImageRoot(("/a",)))
    directory = bundle_plan(CONFIG, V2, "", Choices("/r", "c"))

    def of(plan: s.Plan) -> list[str]:
        return [step.target for step in plan.child if isinstance(step, s.Mount) and step.fstype == "tmpfs"]

    assert (of(image), of(directory)) == (["/tmp"], ["dev", "dev/shm"])
    bound = [step.target for step in image.child if isinstance(step, s.Bind)]
    assert bound == ["dev", "dev/shm"]
    plain = replace(CONFIG, linux=Linux(namespaces=CONFIG.linux.namespaces))
    assert of(bundle_plan(plain, V2, "", Choices("", ""), image=ImageRoot(("/a",)))) == ["/tmp"]

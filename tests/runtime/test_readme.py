"""The page that walks through a plan shows the plan as it is."""

from __future__ import annotations

from pathlib import Path

from runtime.cgroups import Hierarchies
from runtime.plan.explain import explain
from runtime.plan.workload import workload_plan
from runtime.spec import Process, Resources, Spec

README = Path(__file__).resolve().parents[2] / "runtime" / "README.md"
V1 = Hierarchies(
    {name: Path("/sys/fs/cgroup") / name for name in ("memory", "cpu", "cpuacct", "pids", "devices")}, None, frozenset()
)
TRUE = Spec(Process(args=("/bin/true",)), ("/var/lib/testbed/images/layer",), "true", Resources(64 << 20, 1.0, 64))


def test_the_listing_is_the_plan_of_today() -> None:
    listing = explain(workload_plan(TRUE, V1, "testbed/example/true"))
    shown = README.read_text().partition("```\n")[2].partition("\n```")[0]
    assert shown == listing

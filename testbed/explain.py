"""The plan that starts a service on a platform, as text: what a container is, and what a guest's userspace is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runtime.cgroups import Hierarchies, hierarchies
from runtime.errors import UsageError
from runtime.home import store_root
from runtime.lease import cgroup_name
from runtime.plan.container import Attachment, container_plan
from runtime.plan.container_host import BRIDGE_INDEX, CONTROLLERS
from runtime.plan.explain import explain
from runtime.plan.guest import guest_plan
from runtime.plan.steps import Plan
from runtime.spec import Spec
from testbed.images import build_images
from testbed.lab import link_of
from testbed.measures.application import specs
from testbed.platforms import known
from testbed.platforms.variants import VARIANTS
from testbed.scenario import load
from vm_images.guest import ensure_guest

# cgroup v2 as it is in a guest that is a host of containers.
_IN_GUEST = Hierarchies({}, Path("/sys/fs/cgroup"), frozenset(CONTROLLERS))


def service_plan(spec: Spec, platform: str) -> Plan:
    """The plan of ``spec`` in a run called ``example``; a guest's kernel is fetched when it is not there yet. Of
    containers in a guest it is the plan by which the runtime in the guest starts them."""
    if platform in VARIANTS and VARIANTS[platform].inside == "containers":
        return container_plan(spec, _IN_GUEST, f"testbed/{spec.hostname}", attachment=Attachment(BRIDGE_INDEX, 1))
    if platform in VARIANTS:
        return guest_plan(spec, ensure_guest(store_root() / "guest").module_paths)
    return container_plan(spec, hierarchies(), cgroup_name("example", spec.hostname), attachment=Attachment(2, 1))


def explain_service(
    scenarios: Path, scenario_name: str, service: str, platform: str, progress: Callable[[str], None]
) -> str:
    """The plan of ``service`` (empty: the first). Raises UsageError for an unknown name."""
    scenario = load(scenario_name, scenarios)
    known((platform,))
    names = [found.name for found in scenario.services]
    if service and service not in names:
        raise UsageError(f"unknown service {service}", f"services of {scenario.name}: {', '.join(names)}")
    images = build_images(scenario, progress)
    links = [link_of(0, index) for index in range(len(names))]
    chosen = dict(zip(names, specs(scenario, images, links), strict=True))[service or names[0]]
    return explain(service_plan(chosen, platform))

"""The plan that starts a service on a platform, as text: what a container is, and what a guest's userspace is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from runtime.cgroups import Hierarchies, hierarchies
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.home import store_root
from runtime.images.model import Image
from runtime.images.store import open_store
from runtime.lease import STATE_ROOT, cgroup_name
from runtime.plan.explain import explain
from runtime.plan.network import Attachment
from runtime.plan.steps import Plan
from runtime.plan.workload import workload_plan
from runtime.spec import Spec
from testbed.images import build_images
from testbed.lab import Lab, link_of
from testbed.measures.conditions import list_completing, list_held
from testbed.platforms.paravirtual import PARAVIRTUAL
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.peer import Place
from testbed.platforms.peers.plans import program_plan
from testbed.platforms.peers.program import Found
from testbed.platforms.registry import check_names, find_share_refusal
from testbed.platforms.rungs.names import ALIASES, RUNGS
from testbed.platforms.rungs.platform import RungPlatform
from testbed.platforms.virtualbox import VIRTUALBOX
from testbed.qemu.domain import name_disk
from testbed.qemu.shares import DRIVER, list_exports, place_in_guest
from testbed.qemu.variants import VARIANTS
from testbed.rungs.read import find_rung
from testbed.scenario.model import Scenario, Service, load
from testbed.services.contents import has_contents
from testbed.services.mounts import Places, describe_shared, find_shared, list_mounts, require_no_shared, split_shared
from testbed.services.specs import NOTHING_OF_HOST, Mounts, make_specs
from vm_images.guest import ensure_guest, scsi_guest_of, xen_guest_of
from vm_images.plans.container_host import BRIDGE_INDEX, CONTROLLERS
from vm_images.plans.guest import SCSI_DISK, XEN_DISK, guest_plan
from vm_images.plans.pod import pod_plan
from vm_images.plans.restored import ENTROPY_BYTES, restored_plan
from vm_images.plans.unit import unit_plan

# cgroup v2 as it is in a guest that is a host of containers.
_IN_GUEST = Hierarchies({}, Path("/sys/fs/cgroup"), frozenset(CONTROLLERS))


def plan_service(spec: Spec, platform: str) -> Plan:
    """Return the plan of ``spec`` in a run called ``example``; a guest's kernel is fetched when it is not there yet. Of
    containers in a guest it is the plan by which the runtime in the guest starts them."""
    if platform in VARIANTS and VARIANTS[platform].boot == "cloud":
        return unit_plan(spec)
    if platform in VARIANTS and VARIANTS[platform].inside == "containers":
        return workload_plan(spec, _IN_GUEST, f"testbed/{spec.hostname}", attachment=Attachment(BRIDGE_INDEX, 1))
    if platform in VARIANTS:
        variant = VARIANTS[platform]
        modules = ensure_guest(store_root() / "guest", variant.kernel).modules(variant.bus)
        return guest_plan(
            spec,
            modules,
            file_system=variant.disk.file_system,
            writable_disk=variant.disk.format == "qcow2",
            served=variant.start == "restored",
            pooled=variant.start == "pooled",
        )
    if platform == PARAVIRTUAL:
        kernel = ensure_guest(store_root() / "guest").kernel
        return guest_plan(spec, xen_guest_of(kernel).modules("pci"), disk=XEN_DISK)
    if platform == VIRTUALBOX:
        kernel = ensure_guest(store_root() / "guest").kernel
        return guest_plan(spec, scsi_guest_of(kernel).modules("pci"), disk=SCSI_DISK)
    name, pooled = cgroup_name("example", spec.hostname), platform == "container-pooled"
    if platform in PEERS:
        peer, scratch = PEERS[platform], STATE_ROOT / "example" / platform
        place = Place(f"example-{spec.hostname}", spec, scratch / "1", scratch, name, hierarchies())
        return program_plan(peer, place, Found(peer.program.name, ""), Attachment(2, 1))
    if platform in RUNGS:
        rung = RungPlatform(find_rung(platform), "example", STATE_ROOT / "example", Lab())
        return rung.plan(spec, hierarchies(), cgroup=name, attachment=Attachment(2, 1))
    return workload_plan(spec, hierarchies(), name, attachment=Attachment(2, 1), pooled=pooled)


def plan_application(services: Sequence[Service], wanted: Mapping[str, Spec]) -> Plan:
    """Return the plan of the one guest that runs all services, as it is measured, each from a disk of its own."""
    disks = {service: f"/dev/{name_disk(index)}" for index, service in enumerate(wanted)}
    link = next(iter(wanted.values())).link
    modules = ensure_guest(store_root() / "guest").modules("pci")
    return pod_plan(wanted, disks, link, modules, held=list_held(services), leaving=list_completing(services))


def explain_plan(spec: Spec, platform: str) -> str:
    """Return the plan of ``spec``, and where its guest is saved and copied, what each copy is given: names and numbers
    of an example."""
    text = explain(plan_service(spec, platform))
    if platform not in VARIANTS or VARIANTS[platform].start != "restored":
        return text
    plan = restored_plan(spec, "0" * 32, 0, bytes(ENTROPY_BYTES))
    return f"{text}\n\nThe guest is saved. What each copy of it performs when it is restored:\n{explain(plan)}"


def describe_mounts(scenario: Scenario, platform: str) -> str:
    """Return by what services have what their files mount of the host, in sentences; empty when they mount nothing."""
    alone = {one.name: split_shared(one, scenario.services)[0] for one in scenario.services}
    own = ", ".join(name for name, service in alone.items() if has_contents(service))
    lines = [f"What these mount for themselves is a further layer of their image: {own}."] if own else []
    if shared := describe_shared(scenario.services):
        driver = f"{DRIVER}, lent by a virtiofsd for each guest" if platform in VARIANTS else "bind mounts"
        lines.append(f"What services share are directories of the host, a copy's own, by {driver}: {shared}.")
    return "\n".join(lines)


def mount_example(scenario: Scenario, platform: str) -> Mounts:
    """Return what services share, in an example's directories. Raises UsageError where a platform has no driver."""
    services, folder = scenario.services, store_root() / "volumes" / "example"
    if not find_shared(services):
        return NOTHING_OF_HOST
    if refusal := find_share_refusal(platform):
        require_no_shared(services, platform, refusal)
    places = Places(folder / "volumes", folder / "files", folder / "bound")
    common = {service.name: split_shared(service, services)[1] for service in services}
    return {name: list_mounts(service, scenario.application, places) for name, service in common.items()}


def _built_images(scenario: Scenario) -> dict[str, Image]:
    """Return the images as they were built last: who is not root cannot build. Raises PrerequisiteError without
    them."""
    store = open_store()
    try:
        return {service.name: store.get(f"{scenario.name}/{service.name}") for service in scenario.services}
    except TestbedError as error:
        raise PrerequisiteError(error.message, "as root, ./invoke explain builds the images first") from error


def explain_service(
    scenarios: Path, scenario_name: str, service: str, platform: str, progress: Callable[[str], None]
) -> str:
    """Return the plan of ``service`` (empty: the first), or of all on a platform where they share an instance.

    Raises UsageError for an unknown name. Root has its images built first; anybody else sees those that there are.
    """
    scenario = load(scenario_name, scenarios)
    platform = ALIASES.get(platform, platform)
    check_names((platform,))
    names = [one.name for one in scenario.services]
    if service and service not in names:
        raise UsageError(f"unknown service {service}", f"services of {scenario.name}: {', '.join(names)}")
    images = build_images(scenario, progress) if os.geteuid() == 0 else _built_images(scenario)
    shared = platform in VARIANTS and VARIANTS[platform].guest_per == "application"
    pod = shared and VARIANTS[platform].inside == "process"
    links = [link_of(0, 0 if pod else index) for index in range(len(names))]
    mounts = mount_example(scenario, platform)
    wanted = dict(zip(names, make_specs(scenario, images, links, mounts), strict=True))
    if platform in VARIANTS:
        guests = [wanted] if shared else [{name: spec} for name, spec in wanted.items()]
        exports = {name: list_exports(guest) for guest in guests for name in guest}
        wanted = {name: place_in_guest(spec, exports[name]) for name, spec in wanted.items()}
    if pod:
        plan = explain(plan_application(scenario.services, wanted))
    else:
        plan = explain_plan(wanted[service or names[0]], platform)
    return "\n\n".join(filter(None, (plan, describe_mounts(scenario, platform))))

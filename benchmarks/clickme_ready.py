"""clickme ready as containers, beside the same two processes started bare in a chroot.

    sudo .venv/bin/python benchmarks/clickme_ready.py [--rounds 20] [--json]

Both start redis and web from the same overlay of the same image layers, with the same commands, users and
environment, and end at the first correct answer to the scenario's ready check. The bare side has no namespace
of its own, no cgroup, no limits and no network interface: its root is mounted and its /proc and /dev are there
before the clock starts, and it speaks over loopback. The sides alternate, in an order drawn for each round.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from msgspec.structs import replace

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from runtime import container  # noqa: E402
from runtime.images.model import Image  # noqa: E402
from runtime.images.process import image_process  # noqa: E402
from runtime.launcher import launch  # noqa: E402
from runtime.lease import cgroup_name, lease  # noqa: E402
from runtime.plan.execution import process_end  # noqa: E402
from runtime.plan.network import Attachment  # noqa: E402
from runtime.plan.steps import Chroot, Plan  # noqa: E402
from runtime.spec import Process, Spec, configured_process  # noqa: E402
from testbed.images import build_images  # noqa: E402
from testbed.lab import Lab  # noqa: E402
from testbed.progress import print_progress  # noqa: E402
from testbed.scenario.model import Scenario, Service, load  # noqa: E402
from testbed.services.specs import make_specs  # noqa: E402

Start = Callable[[], ExitStack]


def service_process(service: Service, image: Image, peers: dict[str, str]) -> Process:
    """The service's process; the names of other services in its environment become addresses where given."""
    environment = dict(service.environment)
    for name, address in peers.items():
        environment = {key: value.replace(f"//{name}:", f"//{address}:") for key, value in environment.items()}
    return image_process(image, command=service.command, entrypoint=service.entrypoint, environment=environment)


def bare_start(scenario: Scenario, images: dict[str, Image], roots: dict[str, Path], log: int) -> Start:
    """Start each service's process in a prepared root with chroot, its user and its privileges, and exec."""
    peers = {service.name: "127.0.0.1" for service in scenario.services}
    plans = []
    for service in scenario.services:
        process = service_process(service, images[service.name], peers)
        root = Chroot(str(roots[service.name]))
        plans.append(Plan(child=(root, *process_end(configured_process(process), check=False))))

    def start() -> ExitStack:
        undo = ExitStack()
        for plan in plans:
            spawned = launch(plan, stdin=log, stdout=log, stderr=log)
            undo.callback(end, spawned.pid)
        return undo

    return start


def end(pid: int) -> None:
    """Kill a child of ours and wait for it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def container_start(scenario: Scenario, images: dict[str, Image], lab: Lab, lease_name: str, log: int) -> Start:
    """Start each service as a container on the lab's bridge, with the scenario's limits."""
    links = [lab.link(0, index) for index in range(len(scenario.services))]
    workloads = make_specs(scenario, images, links)
    ports = iter(range(1, 1 << 20))

    def start() -> ExitStack:
        undo = ExitStack()
        for spec in workloads:
            started = container.start(
                spec,
                name=cgroup_name(lease_name, spec.hostname),
                stdout=log,
                attachment=Attachment(lab.bridge_index, next(ports)),
            )
            undo.callback(started.delete)
        return undo

    return start


@contextmanager
def chroots(scenario: Scenario, images: dict[str, Image], lease_name: str, log: int) -> Iterator[dict[str, Path]]:
    """A root of each service: that of a sleeping container of its image, seen through /proc.

    So the bare side has the same overlay, /proc, /dev and memory-backed writable layer, mounted in advance.
    """
    with ExitStack() as undo:
        roots = {}
        for service in scenario.services:
            image = images[service.name]
            sleeper = replace(image_process(image, environment={}), args=("sleep", "infinity"))
            hosts = tuple((other.name, "127.0.0.1") for other in scenario.services)
            spec = Spec(sleeper, tuple(str(layer.path) for layer in image.layers), service.name, hosts=hosts)
            started = container.start(spec, name=cgroup_name(lease_name, f"root-{service.name}"), stdout=log)
            undo.callback(started.delete)
            roots[service.name] = Path(f"/proc/{started.process.pid}/root")
        yield roots


def wait_ready(address: str, scenario: Scenario, deadline_s: float = 30.0) -> None:
    """Ask until the ready check is met, a millisecond apart."""
    ready = scenario.settings.ready
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(address, ready.port, timeout=1)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", ready.path)
            answer = connection.getresponse()
            if answer.status == ready.status and ready.body in answer.read().decode():
                return
        connection.close()
        time.sleep(0.001)
    raise TimeoutError(f"{address}:{ready.port}{ready.path} did not answer as expected within {deadline_s} s")


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds from the request to ready, by side, one a round."""
    scenario = load("clickme", ROOT / "scenarios")
    name = f"benchmark-{os.getpid()}"
    times: dict[str, list[float]] = {"chroot": [], "container": []}
    order = random.Random(1)
    with lease(name) as scratch:
        images = build_images(scenario, print_progress)
        log = os.open(scratch / "log", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        with Lab() as lab, chroots(scenario, images, name, log) as roots:
            index = [service.name for service in scenario.services].index(scenario.settings.ready.service)
            sides = {
                "chroot": ("127.0.0.1", bare_start(scenario, images, roots, log)),
                "container": (str(lab.link(0, index).address.ip), container_start(scenario, images, lab, name, log)),
            }
            for round_number in range(rounds + 1):
                for side in order.sample(list(sides), len(sides)):
                    address, start = sides[side]
                    began = time.monotonic()
                    with start():
                        wait_ready(address, scenario)
                        if round_number:  # the first fills the page cache
                            times[side].append(time.monotonic() - began)
        os.close(log)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    times = measure(options.rounds)
    medians = {side: statistics.median(values) for side, values in times.items()}
    if options.json:
        print(json.dumps(medians))
        return
    for side, value in medians.items():
        print(f"{side:10} {value * 1000:8.1f} ms {value / medians['chroot']:7.3f} x chroot")


if __name__ == "__main__":
    perform(main)

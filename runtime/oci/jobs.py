"""Run the jobs that need an interpreter in the client's process tree: ``interpreter.py PACKAGES job NAME``.

A planner only decides. Jobs act where a plan's steps cannot: in another network namespace, at a terminal, as a process
of a service, or on an image in the testbed's store.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from runtime.errors import TestbedError


def relay_terminal(arguments: Sequence[str]) -> int:
    """Copy bytes between our terminal and the one whose master side is descriptor 3."""
    from runtime.console import relay

    relay(3)
    return 0


def relay_notification(arguments: Sequence[str]) -> int:
    """Tell a service manager when a container is ready; the arguments are DIRECTORY PID START-TIME MANAGER MAIN-PID."""
    from runtime.oci.notify import wait_until_ready

    directory, pid, start_time, manager, main_pid = arguments
    wait_until_ready(directory, int(pid), int(start_time), manager, int(main_pid))
    return 0


def move_network_devices(arguments: Sequence[str]) -> int:
    """Move devices into a process's network namespace; the arguments are DEVICES (as JSON) and PID."""
    import msgspec

    from runtime.config.types import NetDevice
    from runtime.oci.netdevices import move_devices

    devices, pid = arguments
    move_devices(msgspec.json.decode(devices, type=dict[str, NetDevice]), int(pid))
    return 0


def run_image(arguments: Sequence[str]) -> int:
    """Start an image of the testbed's store and wait for it; the arguments are EXPLAIN IMAGE COMMAND..."""
    import os

    from runtime import container
    from runtime.cgroups import hierarchies
    from runtime.images.merging import directories
    from runtime.images.process import image_process
    from runtime.images.store import open_store
    from runtime.lease import cgroup_name, lease
    from runtime.plan.explain import explain
    from runtime.plan.workload import workload_plan
    from runtime.spec import Spec

    shown, reference, *command = arguments
    image = open_store().get(reference)
    process = image_process(image, command=tuple(command) or None, environment={})
    spec = Spec(process, directories(image.layers), hostname="container")
    name = f"cli-{os.getpid()}"
    if shown == "explain":
        print(explain(workload_plan(spec, hierarchies(), cgroup_name(name, "container"))))
        return 0
    with lease(name):
        return container.run(spec, name=cgroup_name(name, "container"))


JOBS: dict[str, Callable[[Sequence[str]], int]] = {
    "terminal": relay_terminal,
    "notify": relay_notification,
    "devices": move_network_devices,
    "image": run_image,
}


def main(arguments: Sequence[str]) -> int:
    """Run the job that the first argument names and return its exit status."""
    from runtime.output import printable

    name, *rest = arguments
    try:
        return JOBS[name](rest)
    except TestbedError as error:
        # other jobs print no prefix: run_job makes the text part of the command's own error
        print(f"{'error: ' if name == 'image' else ''}{printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130

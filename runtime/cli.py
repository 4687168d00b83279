"""testbed-runtime: the runtime on the command line.

    testbed-runtime [--explain] run IMAGE [COMMAND ...]

``run`` starts an image of the store as a container with a loopback network and waits for it. With
``--explain`` nothing is started: the plan is printed, each step with its system call and arguments.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from runtime import container
from runtime.cgroups import hierarchies
from runtime.errors import TestbedError
from runtime.home import store_root
from runtime.images.process import image_process
from runtime.images.store import Store
from runtime.lease import cgroup_name, lease
from runtime.plan.container import container_plan
from runtime.plan.explain import explain
from runtime.spec import Spec


def image_spec(reference: str, command: tuple[str, ...]) -> Spec:
    """The image's own process, or ``command`` in its place, as a workload with no limits."""
    image = Store(store_root() / "images").get(reference)
    process = image_process(image, command=command or None, environment={})
    return Spec(process, tuple(str(layer.path) for layer in image.layers), hostname="container")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="testbed-runtime", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--explain", action="store_true", help="print the plan instead of performing it")
    commands = parser.add_subparsers(dest="subcommand", required=True)
    run = commands.add_parser("run", help="start an image as a container and wait for it")
    run.add_argument("image", help="a reference in the store, such as testbed/base")
    run.add_argument("command", nargs=argparse.REMAINDER, help="instead of the image's own command")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the workload's exit status, or the error's exit code."""
    options = _parser().parse_args(arguments)
    name = f"cli-{os.getpid()}"
    try:
        spec = image_spec(options.image, tuple(options.command))
        if options.explain:
            print(explain(container_plan(spec, hierarchies(), cgroup_name(name, "container"))))
            return 0
        with lease(name):
            return container.run(spec, name=cgroup_name(name, "container"))
    except TestbedError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""testbed-runtime: an OCI runtime on the command line, with runc's and crun's flags.

With ``--explain``, create and run start nothing: the plan is printed, each step with its system call, its arguments
and why it is there.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

from msgspec.structs import replace

from runtime.arguments import parsed
from runtime.errors import TestbedError, UsageError
from runtime.invocation import debug, place_of, places_of, tell_error, warner
from runtime.log import open_log
from runtime.streams import open_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def _create(options: argparse.Namespace, console_socket: str = "") -> Any:
    from runtime import lifecycle

    of_service: tuple[int, str] = (0, "")
    if "LISTEN_FDS" in os.environ or "NOTIFY_SOCKET" in os.environ:
        from runtime.notify import passed_on

        of_service = passed_on(os.environ, os.getpid())
    creation = lifecycle.Creation(
        options.bundle,
        options.console_socket or console_socket,
        options.pid_file,
        options.preserve_fds,
        not options.no_pivot,
        not options.no_new_keyring,
        options.config,
        options.pidfd_socket,
        *of_service,
    )
    systemd = options.systemd_cgroup or options.cgroup_manager == "systemd"
    if options.explain:
        from runtime.plan.explain import explain

        config, record = lifecycle.checked(
            place_of(options), replace(creation, console_socket=None), systemd, warner(options)
        )
        print(explain(lifecycle.plan_of(config, record)))
        return None
    return lifecycle.create(place_of(options), creation, wants_systemd=systemd, warn=warner(options))


def _run(options: argparse.Namespace) -> int:
    import socket
    import tempfile

    from runtime import lifecycle
    from runtime.config import bundle
    from runtime.console import relay
    from runtime.processes import pass_signals_on, waited
    from runtime.state import UnknownContainer

    place = place_of(options)
    master = -1
    with tempfile.TemporaryDirectory(prefix="testbed-runtime-") as directory:
        terminal = ""
        process = bundle.load(options.bundle, options.config).process
        if process and process.terminal and not options.console_socket and not options.explain:
            if options.detach:
                raise UsageError("run --detach: a terminal needs --console-socket")
            terminal = f"{directory}/console"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            if terminal:
                listening.bind(terminal)
                listening.listen(1)
            record = _create(options, terminal)
            if terminal:
                with listening.accept()[0] as channel:
                    master = socket.recv_fds(channel, 256, 1)[1][0]
    if record is None:
        return 0
    if not options.detach:
        _prepare_next(options, place, record)
        pass_signals_on(record.pid)
    try:
        _start(options, place, record, beside=not options.detach)
    except BaseException:
        with suppress(UnknownContainer):  # start may have removed it
            lifecycle.delete(place, force=True, warn=warner(options))
        raise
    if options.detach:
        return 0
    try:
        if master >= 0:
            relay(master)
        return waited(record.pid)
    finally:
        if not options.keep:
            lifecycle.delete(place, force=True, warn=warner(options))


def _start(options: argparse.Namespace, place: Any, record: Any, *, beside: bool) -> None:
    """Start a created container, and tell a service manager that listens when it is ready: of us or of the container,
    as whose end is the service's."""
    from runtime import lifecycle

    if not record.choices.get("notify"):
        lifecycle.start(place, warn=warner(options))
        return
    from runtime.notify import listening

    with listening(place, os.environ.get("NOTIFY_SOCKET", "")) as relay:
        lifecycle.start(place, warn=warner(options))
        if relay and beside:
            relay.wait_beside(record, os.getpid())
        elif relay:
            relay.wait(record, record.pid)


def _prepare_next(options: argparse.Namespace, place: Any, record: Any) -> None:
    """Keep what this run was, for the launcher to do the next one of the bundle by itself."""
    from runtime import lifecycle, prepared
    from runtime.cgroups.placing import CGROUP_PARENT, all_hierarchies

    flags = (options.preserve_fds, options.no_pivot, options.no_new_keyring, options.systemd_cgroup)
    of_service = (record.choices.get("listen_fds"), record.choices.get("notify"))
    if (
        any(flags + of_service)
        or options.warned  # the launcher would not repeat it
        or options.config != "config.json"
        or options.cgroup_manager != "cgroupfs"
        or os.geteuid() != 0
    ):
        return
    config = lifecycle.config_of(record)
    if prepared.is_plain(config, record, CGROUP_PARENT):
        with suppress(OSError):  # the next one is slower, and that is all
            prepared.save(place.root, config, record, all_hierarchies())


def _exec(options: argparse.Namespace) -> int:
    from runtime import execution
    from runtime.console import relay

    place = place_of(options)
    further = execution.Execution(
        execution.wanted_process(options, place.read(), warner(options)),
        options.console_socket,
        options.pid_file,
        options.preserve_fds,
        options.detach,
        tuple(options.cgroup),
        options.ignore_paused,
        options.pidfd_socket,
    )
    return execution.execute(place, further, relay, warn=warner(options))


def _update(options: argparse.Namespace) -> int:
    from runtime import resources
    from runtime.config.bundle import load_resources
    from runtime.config.decode import checked
    from runtime.config.resources import BlockIO, Cpu, Memory, Pids, Resources

    if options.l3_cache_schema or options.mem_bw_schema:
        raise UsageError("update --l3-cache-schema, --mem-bw-schema: this runtime does not set Intel's RDT")
    if options.resources:
        path = Path("/dev/stdin" if options.resources == "-" else options.resources)
        wanted = load_resources(path, warner(options))
    else:
        wanted = Resources(
            memory=Memory(options.memory, options.memory_reservation, options.memory_swap,
                          options.kernel_memory, options.kernel_memory_tcp),
            cpu=Cpu(options.cpu_share, options.cpu_quota, options.cpu_burst, options.cpu_period,
                    options.cpu_rt_runtime, options.cpu_rt_period,
                    options.cpuset_cpus, options.cpuset_mems, options.cpu_idle),
            pids=Pids(options.pids_limit) if options.pids_limit is not None else None,
            block_io=BlockIO(options.blkio_weight) if options.blkio_weight else None,
        )  # fmt: skip
    resources.update(place_of(options), checked(wanted, "update"))
    return 0


def _image_run(options: argparse.Namespace) -> int:
    from runtime import container
    from runtime.cgroups import hierarchies
    from runtime.home import store_root
    from runtime.images.process import image_process
    from runtime.images.store import Store
    from runtime.lease import cgroup_name, lease
    from runtime.plan.explain import explain
    from runtime.plan.workload import workload_plan
    from runtime.spec import Spec

    image = Store(store_root() / "images").get(options.image)
    process = image_process(image, command=tuple(options.arguments) or None, environment={})
    spec = Spec(process, tuple(str(layer.path) for layer in image.layers), hostname="container")
    name = f"cli-{os.getpid()}"
    if options.explain:
        print(explain(workload_plan(spec, hierarchies(), cgroup_name(name, "container"))))
        return 0
    with lease(name):
        return container.run(spec, name=cgroup_name(name, "container"))


def _delete(options: argparse.Namespace) -> int:
    """All that are named, whatever becomes of one."""
    from runtime import lifecycle
    from runtime.state import UnknownContainer

    errors = list[TestbedError]()
    for place in places_of(options, options.ids):
        try:
            lifecycle.delete(place, force=options.force, warn=warner(options))
        except UnknownContainer as error:
            errors += [] if options.force else [error]
        except TestbedError as error:
            errors.append(error)
    for earlier in errors[:-1]:
        tell_error(options, earlier)
    if errors:
        raise errors[-1]
    return 0


def _simple(options: argparse.Namespace) -> int:
    from runtime import lifecycle
    from runtime.config.decode import is_number
    from runtime.processes import parse_signal

    match options.command:
        case "create":
            _create(options)
        case "start":
            if options.failed:
                step, _, errno = options.failed.partition(":")
                if not is_number(step) or not is_number(errno):
                    raise UsageError(f"--failed {options.failed}: not STEP:ERRNO")
                lifecycle.explain_start(place_of(options), int(step), int(errno))
            place = place_of(options)
            _start(options, place, place.read(), beside=False)
        case "kill":
            lifecycle.kill(place_of(options), parse_signal(options.signal), everything=options.all)
        case "pause" | "resume":
            lifecycle.pause(place_of(options), options.command == "pause")
    return 0


def _query(options: argparse.Namespace) -> int:
    from runtime import queries

    status: int = queries.COMMANDS[options.command](options)
    return status


_COMMANDS = {
    "run": _run,
    "exec": _exec,
    "update": _update,
    "delete": _delete,
    "image-run": _image_run,
    **dict.fromkeys(("state", "list", "ps", "spec", "events", "features"), _query),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the workload's exit status, or the error's exit code."""
    open_streams()
    options = parsed(sys.argv[1:] if arguments is None else arguments)
    options.journal, options.warned = None, False
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # paths need not fit the locale
    began = time.monotonic()
    try:
        if options.log:
            options.journal = open_log(options.log, options.log_format)
        debug(options, f"{' '.join(sys.argv[1:] if arguments is None else arguments)}, as user {os.geteuid()}")
        status = _COMMANDS.get(options.command, _simple)(options)
    except (TestbedError, OSError) as error:
        tell_error(options, error)
        status = error.exit_code if isinstance(error, TestbedError) else 1
    except KeyboardInterrupt:
        status = 130
    debug(options, f"{options.command}: exit status {status} after {time.monotonic() - began:.3f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())

"""testbed-runtime: an OCI runtime on the command line, with runc's and crun's flags.

With ``--explain``, create and run start nothing: the plan is printed, each step with its system call, its arguments
and why it is there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

from msgspec.structs import replace

from runtime.arguments import parsed
from runtime.errors import TestbedError, UsageError, in_words
from runtime.log import open_log
from runtime.streams import open_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def _place(options: argparse.Namespace) -> Any:
    return _places(options, [options.id])[0]


def _places(options: argparse.Namespace, names: Sequence[str]) -> list[Any]:
    from runtime.state import Place, default_root

    root = Path(options.root) if options.root else default_root()
    return [Place(root, name) for name in names]


def _warner(options: argparse.Namespace) -> Callable[[str], None]:
    """Where warnings go: to the log, if there is one, for an engine may take our standard error for the container's."""

    def warn(text: str) -> None:
        options.warned = True
        if options.journal:
            options.journal.write("warning", text)
        else:
            _say(f"warning: {text}")

    return warn


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
            _place(options), replace(creation, console_socket=None), systemd, _warner(options)
        )
        print(explain(lifecycle.plan_of(config, record)))
        return None
    return lifecycle.create(_place(options), creation, wants_systemd=systemd, warn=_warner(options))


def _run(options: argparse.Namespace) -> int:
    import socket
    import tempfile

    from runtime import lifecycle
    from runtime.config import bundle
    from runtime.console import relay
    from runtime.processes import pass_signals_on, waited
    from runtime.state import UnknownContainer

    place = _place(options)
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
            lifecycle.delete(place, force=True, warn=_warner(options))
        raise
    if options.detach:
        return 0
    try:
        if master >= 0:
            relay(master)
        return waited(record.pid)
    finally:
        if not options.keep:
            lifecycle.delete(place, force=True, warn=_warner(options))


def _start(options: argparse.Namespace, place: Any, record: Any, *, beside: bool) -> None:
    """Start a created container, and tell a service manager that listens when it is ready: of us or of the container,
    as whose end is the service's."""
    from runtime import lifecycle

    if not record.choices.get("notify"):
        lifecycle.start(place, warn=_warner(options))
        return
    from runtime.notify import listening

    with listening(place, os.environ.get("NOTIFY_SOCKET", "")) as relay:
        lifecycle.start(place, warn=_warner(options))
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

    place = _place(options)
    further = execution.Execution(
        execution.wanted_process(options, place.read(), _warner(options)),
        options.console_socket,
        options.pid_file,
        options.preserve_fds,
        options.detach,
        tuple(options.cgroup),
        options.ignore_paused,
        options.pidfd_socket,
    )
    return execution.execute(place, further, relay, warn=_warner(options))


def _state(options: argparse.Namespace) -> int:
    from runtime import state
    from runtime.cgroups.placing import hierarchies_for

    place = _place(options)
    record = place.read()
    word = state.status(place, record, hierarchies_for(record.cgroup))
    print(json.dumps(state.cli_state(place, record, word), indent=2))
    return 0


def _list(options: argparse.Namespace) -> int:
    from runtime import state
    from runtime.cgroups.placing import hierarchies_for

    rows = []
    for place in state.listing(Path(options.root) if options.root else state.default_root()):
        try:
            record = place.read()
            word = state.status(place, record, hierarchies_for(record.cgroup))
            rows.append(state.cli_state(place, record, word))
        except state.UnknownContainer:  # deleted meanwhile
            continue
        except state.Damaged as error:
            _warner(options)(str(error))
    if options.quiet:
        print("".join(f"{row['id']}\n" for row in rows), end="")
    elif options.format == "json":
        print(json.dumps(rows))
    else:
        line = "{:<24} {:<8} {:<10} {:<40} {:<22} {}"
        print(line.format("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"))
        for row in rows:
            print(line.format(*(str(row[key]) for key in ("id", "pid", "status", "bundle", "created", "owner"))))
    return 0


def _ps(options: argparse.Namespace) -> int:
    import subprocess

    from runtime.cgroups import Cgroup
    from runtime.cgroups.placing import hierarchies_for

    cgroup = _place(options).read().cgroup
    pids = Cgroup(cgroup, hierarchies_for(cgroup)).pids() if cgroup else ()
    if options.format == "json":
        print(json.dumps(pids))
        return 0
    if not pids:
        raise UsageError(f"ps {options.id}: container not running, or without a cgroup")
    return subprocess.run(["ps", "-f", "-p", ",".join(map(str, pids))]).returncode


def _update(options: argparse.Namespace) -> int:
    from runtime import resources
    from runtime.config.bundle import load_resources
    from runtime.config.decode import checked
    from runtime.config.resources import BlockIO, Cpu, Memory, Pids, Resources

    if options.l3_cache_schema or options.mem_bw_schema:
        raise UsageError("update --l3-cache-schema, --mem-bw-schema: this runtime does not set Intel's RDT")
    if options.resources:
        path = Path("/dev/stdin" if options.resources == "-" else options.resources)
        wanted = load_resources(path, _warner(options))
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
    resources.update(_place(options), checked(wanted, "update"))
    return 0


def _spec(options: argparse.Namespace) -> int:
    from runtime.config.decode import encode
    from runtime.config.default import default_config, rootless_config

    path = options.bundle / "config.json"
    if path.exists():
        raise UsageError(f"write {path}: it is there already", "remove it first")
    config = rootless_config(os.geteuid(), os.getegid()) if options.rootless else default_config()
    path.write_text(json.dumps(encode(config), indent=2) + "\n")
    return 0


def _events(options: argparse.Namespace) -> int:
    import gc

    from runtime import resources

    if not 0 < options.interval < 1e6:
        raise UsageError(f"--interval {options.interval}: give seconds, above 0")
    gc.enable()  # it may go on for long
    while True:
        print(json.dumps(resources.stats(_place(options))), flush=True)
        if options.stats:
            return 0
        time.sleep(options.interval)


def _features(_: argparse.Namespace) -> int:
    from runtime.config.features import features

    print(json.dumps(features(), indent=2))
    return 0


def _image_run(options: argparse.Namespace) -> int:
    from runtime import container
    from runtime.cgroups import hierarchies
    from runtime.home import store_root
    from runtime.images.process import image_process
    from runtime.images.store import Store
    from runtime.lease import cgroup_name, lease
    from runtime.plan.container import container_plan
    from runtime.plan.explain import explain
    from runtime.spec import Spec

    image = Store(store_root() / "images").get(options.image)
    process = image_process(image, command=tuple(options.arguments) or None, environment={})
    spec = Spec(process, tuple(str(layer.path) for layer in image.layers), hostname="container")
    name = f"cli-{os.getpid()}"
    if options.explain:
        print(explain(container_plan(spec, hierarchies(), cgroup_name(name, "container"))))
        return 0
    with lease(name):
        return container.run(spec, name=cgroup_name(name, "container"))


def _delete(options: argparse.Namespace) -> int:
    """All that are named, whatever becomes of one."""
    from runtime import lifecycle
    from runtime.state import UnknownContainer

    errors = list[TestbedError]()
    for place in _places(options, options.ids):
        try:
            lifecycle.delete(place, force=options.force, warn=_warner(options))
        except UnknownContainer as error:
            errors += [] if options.force else [error]
        except TestbedError as error:
            errors.append(error)
    for earlier in errors[:-1]:
        _tell(options, earlier)
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
                lifecycle.explain_start(_place(options), int(step), int(errno))
            place = _place(options)
            _start(options, place, place.read(), beside=False)
        case "kill":
            lifecycle.kill(_place(options), parse_signal(options.signal), everything=options.all)
        case "pause" | "resume":
            lifecycle.pause(_place(options), options.command == "pause")
    return 0


_COMMANDS = {
    "run": _run,
    "exec": _exec,
    "state": _state,
    "list": _list,
    "ps": _ps,
    "update": _update,
    "delete": _delete,
    "spec": _spec,
    "events": _events,
    "features": _features,
    "image-run": _image_run,
}


def _say(text: str) -> None:
    from runtime.output import printable

    print(printable(text), file=sys.stderr)


def _tell(options: argparse.Namespace, error: Exception) -> None:
    _say(f"error: {in_words(error)}")
    if options.journal:
        options.journal.write("error", in_words(error))


def _debug(options: argparse.Namespace, message: str) -> None:
    if options.debug and options.journal:
        options.journal.write("debug", message)
    elif options.debug:
        _say(f"debug: {message}")


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
        _debug(options, f"{' '.join(sys.argv[1:] if arguments is None else arguments)}, as user {os.geteuid()}")
        status = _COMMANDS.get(options.command, _simple)(options)
    except (TestbedError, OSError) as error:
        _tell(options, error)
        status = error.exit_code if isinstance(error, TestbedError) else 1
    except KeyboardInterrupt:
        status = 130
    _debug(options, f"{options.command}: exit status {status} after {time.monotonic() - began:.3f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())

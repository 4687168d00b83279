"""The arguments of testbed-runtime: runc's and crun's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime.config.decode import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

_DESCRIPTION = """testbed-runtime: an OCI runtime on the command line, with runc's and crun's flags.

With ``--explain``, create and run start nothing: the plan is printed, each step with its system call, its arguments
and why it is there.
"""


# What engines pass: flags with the type of their value, with the values there are, or, without one, None.
_GLOBAL: dict[str, Any] = {
    "--root": str,
    "--log": str,
    "--log-format": ("text", "json"),
    "--cgroup-manager": ("cgroupfs", "systemd", "disabled"),
    "--systemd-cgroup": None,
    "--rootless": ("true", "false", "auto"),
}
_OF_COMMAND: dict[str, dict[str, Any]] = {
    "create": {
        "--bundle": Path,
        "--console-socket": str,
        "--pid-file": str,
        "--preserve-fds": int,
        "--no-pivot": None,
        "--no-new-keyring": None,
        "--no-subreaper": None,
        "--config": str,
        "--pidfd-socket": str,
    },
    "exec": {
        "--process": Path,
        "--console-socket": str,
        "--pid-file": str,
        "--preserve-fds": int,
        "--detach": None,
        "--tty": None,
        "--cwd": str,
        "--user": str,
        "--no-new-privs": None,
        "--apparmor": str,
        "--process-label": str,
        "--pidfd-socket": str,
        "--ignore-paused": None,
    },
}
_SHORT = {
    "create": {"-b": "--bundle", "-f": "--config"},
    "exec": {"-p": "--process", "-d": "--detach", "-t": "--tty", "-u": "--user"},
}
_DEFAULTS: dict[str, Any] = {
    "--log-format": "text",
    "--cgroup-manager": "cgroupfs",
    "--bundle": Path("."),
    "--config": "config.json",
}


class Plain:
    """The options of a plain command line, as argparse's namespace has them."""

    def __init__(self, command: str, values: dict[str, Any]) -> None:
        known = {**_GLOBAL, **_OF_COMMAND[command]}
        without = {None: False, int: 0, str: "", Path: None}
        for flag, kind in known.items():
            absent = None if flag in _GLOBAL and kind is not None else without.get(kind)
            setattr(self, flag[2:].replace("-", "_"), values.get(flag, _DEFAULTS.get(flag, absent)))
        self.command, self.debug, self.explain = command, False, False
        self.id: str = values[""]
        if command == "exec":
            self.arguments: list[str] = values["arguments"]
            self.env: list[str] = []
            self.additional_gids: list[int] = []
            self.cap: list[str] = []
            self.cgroup: list[str] = []


def _take(flags: dict[str, Any], short: dict[str, str], words: list[str], values: dict[str, Any]) -> bool:
    """Take flags off the reversed words; False when one is not plain."""
    while words and words[-1].startswith("-"):
        flag, equals, value = words.pop().partition("=")
        flag = short.get(flag, flag)
        kind = flags.get(flag, False)
        if kind is False or (kind is None and equals):
            return False
        if kind is None:
            values[flag] = True
            continue
        if not equals:
            value = words.pop() if words else ""
        if not value or (not equals and value.startswith("-")):
            return False
        if (isinstance(kind, tuple) and value not in kind) or (kind is int and not is_number(value)):
            return False
        values[flag] = value if isinstance(kind, tuple) else kind(value)
    return bool(words)


def plain(arguments: Sequence[str]) -> Plain | None:
    """The options of a ``create`` or an ``exec`` as engines write it; None for what argparse must read or refuse."""
    words, values = list(reversed(arguments)), dict[str, object]()
    if not _take(_GLOBAL, {}, words, values) or (command := words.pop()) not in _OF_COMMAND:
        return None
    if not _take(_OF_COMMAND[command], _SHORT[command], words, values):
        return None
    values[""] = words.pop()
    values["arguments"] = words[::-1]
    return Plain(command, values) if (command == "exec" and "--" not in words) or not words else None


def parsed(arguments: Sequence[str]) -> Any:
    """The options, what engines call often without argparse: that takes longer to set up than a container does.

    Exits as argparse does.
    """
    return plain(arguments) or parser().parse_args(arguments)


def parser() -> argparse.ArgumentParser:
    """The command line's parser; ``command`` is the subcommand's name."""
    import argparse

    top = argparse.ArgumentParser(
        prog="testbed-runtime",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_global(top)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, words: str, container: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=words, allow_abbrev=False)
        if container:
            command.add_argument("id", help="the container's id")
        return command

    for name, words in (("create", "make a container"), ("run", "make a container, start it and wait for it")):
        command = add(name, words)
        command.add_argument("--bundle", "-b", type=Path, default=Path("."))
        command.add_argument("--console-socket", default="")
        command.add_argument("--pid-file", default="")
        command.add_argument("--preserve-fds", type=int, default=0)
        command.add_argument("--no-pivot", action="store_true")
        command.add_argument("--no-new-keyring", action="store_true")
        command.add_argument("--no-subreaper", action="store_true", help="accepted: there is never one")
        command.add_argument("--config", "-f", default="config.json", help="the configuration, from the bundle on")
        command.add_argument("--pidfd-socket", default="", help="a socket that gets a pidfd of the first process")
        if name == "run":
            command.add_argument("--detach", "-d", action="store_true")
            command.add_argument("--keep", action="store_true", help="do not delete it when it has ended")
    command = add("start", "start a created container")
    command.add_argument("--failed", help=argparse.SUPPRESS)  # STEP:ERRNO, from client/front.c: only to explain it
    add("state", "print a container's state")
    command = add("kill", "send a signal")
    command.add_argument("signal", nargs="?", default="TERM")
    command.add_argument("--all", "-a", action="store_true")
    command = add("delete", "remove containers", container=False)
    command.add_argument("ids", nargs="+", metavar="id", help="a container's id")
    command.add_argument("--force", "-f", action="store_true")
    _add_exec(add("exec", "start a process in a running container"))
    command = add("list", "list the containers", container=False)
    command.add_argument("--format", "-f", choices=("table", "json"), default="table")
    command.add_argument("--quiet", "-q", action="store_true")
    command = add("ps", "list a container's processes")
    command.add_argument("--format", "-f", choices=("table", "json"), default="table")
    add("pause", "freeze a container")
    add("resume", "let a frozen container go on")
    _add_update(add("update", "change limits"))
    command = add("spec", "write a config.json to start from", container=False)
    command.add_argument("--bundle", "-b", type=Path, default=Path("."))
    command.add_argument("--rootless", action="store_true")
    add("features", "print what this runtime can do", container=False)
    command = add("events", "print resource usage")
    command.add_argument("--stats", action="store_true", help="once")
    command.add_argument("--interval", type=float, default=5.0, help="seconds between two lines")
    command = add("image-run", "start an image of the testbed's store and wait for it", container=False)
    command.add_argument("image", help="a reference in the store, such as testbed/base")
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="instead of the image's own command")
    return top


def _add_global(top: argparse.ArgumentParser) -> None:
    top.add_argument("--root", help="where the state is kept (default: below /run, or XDG_RUNTIME_DIR)")
    top.add_argument("--log", help="write errors to this file too")
    top.add_argument("--log-format", choices=("text", "json"), default="text")
    top.add_argument("--debug", action="store_true", help="also log what is done")
    top.add_argument("--cgroup-manager", choices=("cgroupfs", "systemd", "disabled"), default="cgroupfs")
    words = "have systemd make the cgroup, as a scope; cgroupsPath is slice:prefix:name (without it: plain directories)"
    top.add_argument("--systemd-cgroup", action="store_true", help=words)
    top.add_argument("--rootless", choices=("true", "false", "auto"), help="accepted: who calls decides")
    top.add_argument("--explain", action="store_true", help="print the plan instead of performing it")
    top.add_argument("--version", "-v", action="version", version=_version())


def _add_exec(command: argparse.ArgumentParser) -> None:
    import argparse

    command.add_argument("--process", "-p", type=Path, help="a file with the process object")
    command.add_argument("--console-socket", default="")
    command.add_argument("--pid-file", default="")
    command.add_argument("--preserve-fds", type=int, default=0)
    command.add_argument("--detach", "-d", action="store_true")
    command.add_argument("--tty", "-t", action="store_true")
    command.add_argument("--cwd", default="")
    command.add_argument("--env", "-e", action="append", default=[])
    command.add_argument("--user", "-u", default="", help="UID or UID:GID")
    command.add_argument("--additional-gids", "-g", type=int, action="append", default=[])
    command.add_argument("--cap", "-c", action="append", default=[])
    command.add_argument("--no-new-privs", action="store_true")
    command.add_argument("--apparmor", default="", help="the AppArmor profile of the process")
    command.add_argument("--process-label", default="", help="the SELinux label of the process")
    command.add_argument("--cgroup", action="append", default=[], help="[CONTROLLER[,...]:]PATH below the container's")
    command.add_argument("--ignore-paused", action="store_true", help="start it once the container is resumed")
    command.add_argument("--pidfd-socket", default="", help="a socket that gets a pidfd of the process")
    command.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND")


def _add_update(command: argparse.ArgumentParser) -> None:
    import argparse

    command.add_argument("--resources", "-r", help="a file with a resources object, or - for standard input")
    for name in ("memory", "memory-reservation", "memory-swap", "kernel-memory", "kernel-memory-tcp"):
        command.add_argument(f"--{name}", type=size_bytes, metavar="SIZE", help="in bytes, or 64m; -1: no limit")
    for name in ("cpu-period", "cpu-quota", "cpu-burst", "cpu-rt-period", "cpu-rt-runtime"):
        command.add_argument(f"--{name}", type=int, metavar="USEC")
    for name in ("cpu-share", "cpu-idle", "pids-limit", "blkio-weight"):
        command.add_argument(f"--{name}", type=int, metavar="N")
    for name in ("cpuset-cpus", "cpuset-mems"):
        command.add_argument(f"--{name}", metavar="LIST", help="such as 0-3,7")
    for name in ("l3-cache-schema", "mem-bw-schema"):
        command.add_argument(f"--{name}", help=argparse.SUPPRESS)  # to be refused in words


def size_bytes(text: str) -> int:
    """A size in bytes, with a unit of 1024s if need be, as runc takes it. Raises argparse's error."""
    import argparse
    import re

    size = re.fullmatch(r"(-1|[0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)(?:i?b)?", text.strip().lower())
    if size is None or (size[1] == "-1" and size[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: give bytes, or 512k, 64m, 1.5g, or -1 for no limit")
    unit = 1024 ** "kmgtp".find(size[2]) * 1024 if size[2] else 1
    return int(float(size[1]) * unit) if "." in size[1] else int(size[1]) * unit


def _version() -> str:
    from runtime import __version__
    from runtime.config.default import OCI_VERSION

    return f"testbed-runtime {__version__}\nspec: {OCI_VERSION}"

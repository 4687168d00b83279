"""Parse the command line of testbed-runtime, which takes the arguments of runc and crun."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

_DESCRIPTION = """testbed-runtime: an OCI runtime on the command line, with runc's and crun's flags.

With ``--explain``, create and run start nothing: the plan is printed, each step with its system call, its arguments
and why it is there.
"""


class Said(Exception):
    """Carries what argparse would have printed before it exits: the help, the version or a usage error."""

    def __init__(self, status: int, descriptor: int, text: str) -> None:
        super().__init__(text)
        self.status, self.descriptor, self.text = status, descriptor, text


class _Parser(argparse.ArgumentParser):
    """A parser that raises Said where argparse prints and exits, because this process does not belong to the caller."""

    def error(self, message: str) -> NoReturn:
        raise Said(2, 2, f"{self.format_usage()}{self.prog}: error: {message}\n")

    def _print_message(self, message: str, file: object = None) -> None:
        raise Said(0, 1, message)


@cache
def parser(of: str = "") -> argparse.ArgumentParser:
    """Return the command line's parser, which stores the subcommand's name in ``command``.

    With ``of``, it knows only that command, so that a process that serves one call sets up no more than it needs."""
    top = _Parser(
        prog="testbed-runtime",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_global(top)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (words, add) in COMMANDS.items():
        if of in ("", name):
            add(commands.add_parser(name, help=words, allow_abbrev=False))
    return top


def parsed(arguments: Sequence[str]) -> Any:
    """Parse the arguments and return the options. Raises Said."""
    named = next((word for word in arguments if word in COMMANDS), "")
    try:
        return parser(named).parse_args(arguments)
    except Said:
        return parser().parse_args(arguments)  # the word was no subcommand, or a person reads the message


def _container(command: argparse.ArgumentParser) -> None:
    command.add_argument("id", help="the container's id")


def _creation(command: argparse.ArgumentParser) -> None:
    _container(command)
    command.add_argument("--bundle", "-b", type=Path, default=Path("."))
    command.add_argument("--console-socket", default="")
    command.add_argument("--pid-file", default="")
    command.add_argument("--preserve-fds", type=int, default=0)
    command.add_argument("--no-pivot", action="store_true")
    command.add_argument("--no-new-keyring", action="store_true")
    command.add_argument("--no-subreaper", action="store_true", help="accepted: there is never one")
    command.add_argument("--config", "-f", default="config.json", help="the configuration, from the bundle on")
    command.add_argument("--pidfd-socket", default="", help="a socket that gets a pidfd of the first process")


def _run(command: argparse.ArgumentParser) -> None:
    _creation(command)
    command.add_argument("--detach", "-d", action="store_true")
    command.add_argument("--keep", action="store_true", help="do not delete it when it has ended")


def _kill(command: argparse.ArgumentParser) -> None:
    _container(command)
    command.add_argument("signal", nargs="?", default="TERM")
    command.add_argument("--all", "-a", action="store_true")


def _delete(command: argparse.ArgumentParser) -> None:
    command.add_argument("ids", nargs="+", metavar="id", help="a container's id")
    command.add_argument("--force", "-f", action="store_true")


def _list(command: argparse.ArgumentParser) -> None:
    command.add_argument("--format", "-f", choices=("table", "json"), default="table")
    command.add_argument("--quiet", "-q", action="store_true")


def _ps(command: argparse.ArgumentParser) -> None:
    _container(command)
    command.add_argument("--format", "-f", choices=("table", "json"), default="table")


def _spec(command: argparse.ArgumentParser) -> None:
    command.add_argument("--bundle", "-b", type=Path, default=Path("."))
    command.add_argument("--rootless", action="store_true")


def _events(command: argparse.ArgumentParser) -> None:
    _container(command)
    command.add_argument("--stats", action="store_true", help="once")
    command.add_argument("--interval", type=float, default=5.0, help="seconds between two lines")


def _image_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("image", help="a reference in the store, such as testbed/base")
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="instead of the image's own command")


def _features(command: argparse.ArgumentParser) -> None:
    return


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


def _exec(command: argparse.ArgumentParser) -> None:
    _container(command)
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


def _update(command: argparse.ArgumentParser) -> None:
    _container(command)
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
    """Parse a size in bytes with an optional unit (powers of 1024), as runc does. Raises ArgumentTypeError."""
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


COMMANDS = {
    "create": ("make a container", _creation),
    "run": ("make a container, start it and wait for it", _run),
    "start": ("start a created container", _container),
    "state": ("print a container's state", _container),
    "kill": ("send a signal", _kill),
    "delete": ("remove containers", _delete),
    "exec": ("start a process in a running container", _exec),
    "list": ("list the containers", _list),
    "ps": ("list a container's processes", _ps),
    "pause": ("freeze a container", _container),
    "resume": ("let a frozen container go on", _container),
    "update": ("change limits", _update),
    "spec": ("write a config.json to start from", _spec),
    "features": ("print what this runtime can do", _features),
    "events": ("print resource usage", _events),
    "image-run": ("start an image of the testbed's store and wait for it", _image_run),
}

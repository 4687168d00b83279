"""The tasks that have an application run to be used, not measured: up, down, ps, logs, exec."""

from __future__ import annotations

import json as json_module
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Context, task
from msgspec import to_builtins

from reports.commands.exits import reporting
from reports.commands.options import ROOT, parse_fraction, parse_number
from runtime.errors import UsageError
from runtime.output import printable
from testbed.progress import print_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.projects.record import Project

# Colours by which the services' lines are told apart (ECMA-48, SGR 31 to 36).
_COLOURS = (36, 33, 32, 35, 34, 31)


@task(
    iterable=["file", "profile"],
    help={
        "scenario": "name of a folder below scenarios/, or the path of one, or of any compose file",
        "file": "a compose file to merge over the scenario's, as -f of Compose does; may be given again",
        "profile": "a profile whose services are started, too; may be given again",
        "with": "a file with x-testbed: when a scenario is ready that does not say so itself",
        "platform": "container, vm or another kind of virtual machine",
        "project": "its name on this host (default: the scenario's); several can be up at once",
        "accel": "what runs virtual machines: kvm, tcg, tcg-single, or auto for the best that works",
        "base": "release that images are built on: bookworm, trixie or noble (default: the host's own)",
        "closed": "no way out to other networks",
        "share": "also while a run is being measured on this host",
        "json": "print as JSON on standard output",
    },
)
@reporting
def up(
    context: Context,
    scenario: str = "",
    file: list[str] | None = None,
    profile: list[str] | None = None,
    with_: str = "",
    platform: str = "container",
    project: str = "",
    accel: str = "auto",
    base: str = "",
    timeout: str = "",
    closed: bool = False,
    share: bool = False,
    json: bool = False,
) -> int:
    """Start a scenario's application and leave it running: ps, logs, exec, down deal with it."""
    from testbed.projects.control import bring_up
    from testbed.projects.holder import MOST_TIMEOUT_S, Order
    from testbed.projects.record import find
    from testbed.scenario.model import Asked, list_scenarios, load

    if not scenario:
        listed = ", ".join(list_scenarios(ROOT / "scenarios"))
        raise UsageError(f"up: which scenario? {listed}, or the path of one", "./invoke up NAME")
    if "/" in scenario or scenario in (".", "..") or scenario.endswith((".yaml", ".yml")):
        scenario = str(Path(scenario).absolute())
    files = tuple(str(Path(one).absolute()) for one in file or ())
    asked = Asked(files, tuple(profile or ()), settings=str(Path(with_).absolute()) if with_ else "")
    name = project or load(scenario, ROOT / "scenarios", asked).name
    there = find(name)
    if there is not None and there.alive and there.record is not None:
        _check_same(there, platform)
        print_progress(f"{name} is up already")
        _show([there], json)
        return 0
    limit_s = parse_fraction("--timeout", timeout) if timeout else None
    if limit_s is not None and not 0 < limit_s <= MOST_TIMEOUT_S:  # true for a NaN, too
        raise UsageError(
            f"--timeout {timeout}: not a time to wait", f"seconds, more than 0, at most {MOST_TIMEOUT_S:g}"
        )
    order = Order(name, scenario, str(ROOT / "scenarios"), platform, accel, base, asked, limit_s, closed)
    started = bring_up(order, print_progress, share=share)
    _show([started], json)
    print_progress("more: ./invoke ps, ./invoke logs -f, ./invoke exec SERVICE COMMAND; end it: ./invoke down")
    return 0


def _check_same(there: Project, platform: str) -> None:
    assert there.record is not None
    if there.record.platform != platform:
        raise UsageError(
            f"{there.name} is up already, on {there.record.platform}",
            f"./invoke down {there.name} first, or have both: --project ANOTHER-NAME",
        )


def _show(projects: list[Project], as_json: bool) -> None:
    from reports.commands.project_table import describe_project

    if as_json:
        print(json_module.dumps([_as_json(one) for one in projects], indent=2))
    else:
        print("\n\n".join(describe_project(one) for one in projects))


def _as_json(project: Project) -> dict[str, object]:
    record = project.record
    services = [
        {**to_builtins(member), "memory_bytes": project.memory_bytes(member) if project.alive else None}
        for member in (record.members if record else ())
    ]
    return {
        **(to_builtins(record) if record else {"name": project.name}),
        "alive": project.alive,
        "members": services,
    }


@task(
    help={
        "project": "which, where several are up",
        "all": "all that are up on this host",
        "volumes": "also remove its volumes, which otherwise are there when it is up again",
        "timeout": "each service has so many seconds to end before it is killed (default: as its file says, or 10)",
    }
)
@reporting
def down(context: Context, project: str = "", all: bool = False, timeout: str = "", volumes: bool = False) -> int:
    """Stop what up has started; nothing of it is left."""
    from testbed.projects.control import bring_down
    from testbed.projects.record import choose, list_projects
    from testbed.projects.volumes import remove_volumes

    if all and project:
        raise UsageError(f"--all with {project}: all, or that one", "leave one out")
    grace_s = parse_fraction("--timeout", timeout) if timeout else None
    chosen = list(list_projects()) if all else [choose(project)]
    for one in chosen:
        print_progress(f"stopping {one.name}")
        bring_down(one, grace_s)
        removed = remove_volumes(one.name) if volumes else ()
        print(f"{one.name} is down" + (f", its volumes are removed: {', '.join(removed)}" if removed else ""))
    if not chosen:
        print("nothing was up")
    return 0


@task(help={"project": "only this one", "json": "print as JSON on standard output"})
@reporting
def ps(context: Context, project: str = "", json: bool = False) -> int:
    """List what is up on this host: services, state, addresses, memory, and where they can be opened."""
    from testbed.projects.record import choose, list_projects

    listed = [choose(project)] if project else list(list_projects())
    if listed or json:
        _show(listed, json)
    else:
        print("nothing is up: ./invoke up SCENARIO")
    return 0


@task(
    iterable=["service"],
    help={
        "service": "only this service's (may be given again)",
        "project": "which, where several are up",
        "follow": "go on as they write, until it is down",
        "tail": "of each service only so many lines at the end",
    },
)
@reporting
def logs(
    context: Context, service: list[str] | None = None, project: str = "", follow: bool = False, tail: str = ""
) -> int:
    """Print what the services have written; of a virtual machine, its console."""
    from testbed.projects.logs import follow_logs, read_logs
    from testbed.projects.record import choose

    chosen = choose(project)
    record = chosen.record
    if record is None or not record.members:
        raise UsageError(f"{chosen.name}: nothing of it has been started yet", "./invoke ps")
    members = [record.member(name) for name in service] if service else list(record.members)
    names: dict[str, list[str]] = {}
    for member in members:  # of a machine for all services, there is one console
        names.setdefault(member.instance, []).append(member.name)
    lines = None if not tail else parse_number("--tail", tail)
    if lines is not None and lines < 0:
        raise UsageError(f"--tail {tail}: a number of lines, 0 or more")
    write = _prefixed({instance: "+".join(of) for instance, of in names.items()})
    if follow:
        follow_logs(chosen, tuple(names), write, tail=lines)
    else:
        read_logs(chosen, tuple(names), write, tail=lines)
    return 0


def _prefixed(titles: dict[str, str]) -> Callable[[str, str], None]:
    """Return what prints a line after its service's name; on a terminal in colour, and harmless to that."""
    shown = sys.stdout.isatty()
    width = max(map(len, titles.values()))
    heads = {}
    for number, (instance, title) in enumerate(titles.items()):
        head = f"{title:{width}} |"
        heads[instance] = f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{head}\x1b[0m" if shown else head

    def write(instance: str, line: str) -> None:
        print(f"{heads[instance]} {printable(line) if shown else line}", flush=True)

    return write


@task(
    name="exec",
    help={
        "service": "in which service",
        "words": "the command and its arguments, as a shell would split them",
        "project": "which, where several are up",
        "user": "as another user of the image: a name, a number, or with its group USER:GROUP",
        "directory": "in another directory",
        "no-tty": "no terminal for it, though this is one",
    },
)
@reporting
def execute(
    context: Context,
    service: str = "",
    words: str = "",
    project: str = "",
    user: str = "",
    directory: str = "",
    no_tty: bool = False,
) -> int:
    """Run a command in a service: exec SERVICE COMMAND..., a shell without a command."""
    from testbed.projects.execution import execute
    from testbed.projects.record import choose

    if not service:
        raise UsageError("exec: in which service?", "./invoke exec SERVICE COMMAND")
    command = tuple(shlex.split(words)) if words else ("/bin/sh",)
    terminal = not no_tty and os.isatty(0) and os.isatty(1)
    return execute(choose(project), service, command, terminal=terminal, user=user, working_dir=directory)

"""The services of a compose.yaml: the subset of the Compose specification that both platforms can honour alike.

Anything else in the file is an error that names it, for a setting that one side ignores spoils the comparison.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from runtime.spec import Resources
from testbed.scenario.yamltree import Value, quote, require

# Compose specification, "Services top-level elements"; and a service's name is also its host name.
_SERVICE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")
_VARIABLE_NAME = re.compile(r"[^=\0]+")
_BYTES = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?(?:([kmgt])i?)?b?", re.IGNORECASE)
_PORT = re.compile(r"(?:(?:\[[0-9a-fA-F:]+\]:|[0-9.]+:)?[0-9]*:)?([0-9]{1,5})(?:/([a-z]+))?")

_SERVICE_KEYS = (
    *("build", "command", "depends_on", "deploy", "entrypoint", "environment", "expose", "ports"),
    "security_opt",
)
# docker's two ways to write it, of which Compose files have both.
_UNCONFINED = ("seccomp=unconfined", "seccomp:unconfined")
# More than one host can run, and more than a table of them can show.
MOST_SERVICES = 100
MOST_MEMORY_BYTES = 64 * 2**40
# The shortest quota that the kernel's scheduler takes: 1 ms of every 100.
LEAST_CPUS, MOST_CPUS = 0.01, 4096
MOST_PIDS = 2**22  # PID_MAX_LIMIT
_LIMITS = "limits under deploy.resources.limits: cpus, memory, pids"
_SERVICE_INSTEAD = {
    "image": "build: the image is built from a Dockerfile on testbed/base",
    "cpus": _LIMITS,
    "mem_limit": _LIMITS,
    "pids_limit": _LIMITS,
    "env_file": "environment, with the values in this file",
    "container_name": "the service's own name",
    "hostname": "the service's own name",
    "healthcheck": "x-testbed.ready",
    "volumes": "files in the image: both platforms run from the same layers",
    "user": "USER in the Dockerfile",
    "working_dir": "WORKDIR in the Dockerfile",
}


class Service(Struct, frozen=True):
    """One service: how its image is built and how it is run.

    ``command`` and ``entrypoint`` replace the image's own unless None; ``ports`` are those it listens on. ``seccomp``:
    it runs under the default filter of system calls, on every platform.
    """

    name: str
    context: Path
    dockerfile: Path
    resources: Resources
    environment: tuple[tuple[str, str], ...] = ()
    depends_on: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    ports: tuple[int, ...] = ()
    seccomp: bool = True


def read_services(value: Value) -> tuple[Service, ...]:
    """Return the services below ``services:``, each after those it depends on, otherwise in the file's order.

    Anything malformed, unsupported, missing, unknown or cyclic is noted as a mistake.
    """
    entries = {key: entry for key, entry in value.entries().items() if not key.startswith("x-")}
    if not 1 <= len(entries) <= MOST_SERVICES:
        value.report(f"has {len(entries) or 'no'} services", f"one service at least, at most {MOST_SERVICES}")
        return ()
    for name, entry in entries.items():
        if not _SERVICE_NAME.fullmatch(name):
            entry.report(f"{quote(name)} is no service name", "letters, digits, '.', '_', '-', at most 63")
    services = {name: _service(name, entry) for name, entry in entries.items()}
    return _ordered(services, entries)


def parse_bytes(text: str) -> int:
    """Return the bytes that Compose's notation means (``256M``, ``1.5gb``, ``64kib``, ``1024``). Raises ValueError.

    Units are powers of 1024 with or without the ``i``, as in Compose's own reader (docker/go-units, RAMInBytes).
    """
    match = _BYTES.fullmatch(text)
    if match is None:
        raise ValueError(text)
    power = " kmgt".index((match[2] or " ").lower())
    return int(float(match[1]) * 1024**power)


def _service(name: str, value: Value) -> Service:
    fields = value.fields(_SERVICE_KEYS, _SERVICE_INSTEAD)
    context, dockerfile = _build(require(fields, "build", value, "the folder that holds the service's Dockerfile"))
    ports = [_port(item) for key in ("ports", "expose") if key in fields for item in fields[key].items()]
    return Service(
        name=name,
        context=context,
        dockerfile=dockerfile,
        resources=_resources(require(fields, "deploy", value, _LIMITS)),
        environment=_environment(fields["environment"]) if "environment" in fields else (),
        depends_on=_depends_on(fields["depends_on"]) if "depends_on" in fields else (),
        command=_words(fields.get("command")),
        entrypoint=_words(fields.get("entrypoint")),
        ports=tuple(dict.fromkeys(ports)),
        seccomp=_seccomp(fields["security_opt"]) if "security_opt" in fields else True,
    )


def _seccomp(value: Value) -> bool:
    """Return whether the default filter is to be there: the one security option that all platforms honour."""
    chosen = [item.text(_UNCONFINED[0]) for item in value.items()]
    for item, text in zip(value.items(), chosen, strict=True):
        if text not in _UNCONFINED:
            item.report(f"{quote(text)} is not supported by the testbed", _UNCONFINED[0])
    return not chosen


def _build(value: Value) -> tuple[Path, Path]:
    """Return the absolute paths of the build context and of the Dockerfile in it."""
    setting, name = value, "Dockerfile"
    if value.is_text:
        folder = value.text()
    else:
        fields = value.fields(("context", "dockerfile"))
        setting = fields.get("context", value)
        folder = setting.text() if "context" in fields else "."
        name = fields["dockerfile"].text() if "dockerfile" in fields else name
        value = fields.get("dockerfile", setting)
    # realpath, for resolve() raises an error of its own for links in a circle.
    context = Path(os.path.realpath(value.file.parent / folder))
    if not folder or not os.path.isdir(context):
        setting.report(f"there is no folder {quote(folder)} beside this file", "the folder to build from")
        return context, context
    dockerfile = context / name
    # Errors quote a Dockerfile's lines, so it is to be one of the scenario's own files.
    named_inside = Path(os.path.normpath(dockerfile)).is_relative_to(context)
    home = context if named_inside else Path(os.path.realpath(value.file.parent))
    if not name or not os.path.isfile(dockerfile):
        value.report(f"there is no {quote(name)} in {context}", "a Dockerfile")
    elif not Path(os.path.realpath(dockerfile)).is_relative_to(home):
        value.report(f"{quote(name)} leads out of {home}", "a Dockerfile in that folder")
    return context, dockerfile


def _resources(deploy: Value) -> Resources:
    """Return the limits. Memory and cpus must be given: a virtual machine has a size, and the other side gets the
    same."""
    resources = require(deploy.fields(("resources",)), "resources", deploy, _LIMITS)
    limits = require(resources.fields(("limits",)), "limits", resources, _LIMITS)
    fields = limits.fields(("cpus", "memory", "pids"))
    memory = require(fields, "memory", limits, "a size such as 256M; a virtual machine cannot be without")
    cpus = require(fields, "cpus", limits, "a number such as 1.0; a virtual machine cannot be without")
    return Resources(
        memory_bytes=_memory(memory),
        cpus=cpus.number("processors", low=LEAST_CPUS, high=MOST_CPUS),
        pids=fields["pids"].integer(1, MOST_PIDS, "processes and threads") if "pids" in fields else None,
    )


def _memory(value: Value) -> int:
    written = value.text("a size such as 256M")
    try:
        size = parse_bytes(written)
    except ValueError:
        size = 0
    if not 1 <= size <= MOST_MEMORY_BYTES:
        value.report(f"is {quote(written)}", "a size such as 256M, 1.5G or 1048576, at most 64T")
    return size


def _environment(value: Value) -> tuple[tuple[str, str], ...]:
    """Return names and values, written as a mapping or as a list of ``NAME=value``."""
    pairs: list[tuple[str, str, Value]] = []
    if value.is_list:
        for item in value.items():
            name, equals, text = item.text("NAME=value").partition("=")
            if not equals:
                item.report(f"{quote(name)} has no value", "NAME=value (a run must not depend on the environment)")
            pairs.append((name, text, item))
    else:
        for name, entry in value.entries().items():
            pairs.append((name, entry.text("text or a number (a run must not depend on the environment)"), entry))
    for name, _, item in pairs:
        if not _VARIABLE_NAME.fullmatch(name):
            item.report(f"{quote(name)} is no variable name", "NAME=value")
    return tuple((name, text) for name, text, _ in pairs)


def _depends_on(value: Value) -> tuple[str, ...]:
    if value.is_list:
        return tuple(item.text("a service's name") for item in value.items())
    for entry in value.entries().values():
        fields = entry.fields(("condition",))
        condition = require(fields, "condition", entry, "service_started")
        if condition.text() != "service_started":
            condition.report(f"{quote(condition.text())} is not supported by the testbed", "service_started")
    return tuple(value.entries())


def _words(value: Value | None) -> tuple[str, ...] | None:
    """Return a command: a list, or a line split as a shell would split it, but not run by one; null is the image's
    own."""
    if value is None or value.is_null:
        return None
    if value.is_list:
        return tuple(item.text("a word of the command") for item in value.items())
    try:
        return tuple(shlex.split(value.text("a list of words")))
    except ValueError as error:
        value.report(f"cannot be split into words: {error}", "a list of words")
        return None


def _port(value: Value) -> int:
    """Return the port inside the instance. A published port is read over: the load goes to the instance's own
    address."""
    expected = "a TCP port such as 8080"
    match = _PORT.fullmatch(value.text(expected))
    if match is None or match[2] not in (None, "tcp") or not 1 <= int(match[1]) <= 65535:
        value.report(f"is {quote(value.text())}", expected)
        return 0
    return int(match[1])


def _ordered(services: Mapping[str, Service], entries: Mapping[str, Value]) -> tuple[Service, ...]:
    """Order services depth first, so that dependencies come first; a cycle is a mistake that shows it."""
    done: dict[str, Service] = {}

    def report(name: str, problem: str, expected: str) -> None:
        entries[name].entries()["depends_on"].report(problem, expected)

    def visit(name: str, chain: Sequence[str]) -> None:
        if name in chain:
            cycle = " -> ".join((*chain[chain.index(name) :], name))
            report(chain[-1], f"is a cycle: {cycle}", "services that can be started in order")
            return
        if name in done:
            return
        for needed in services[name].depends_on:
            if needed in services:
                visit(needed, (*chain, name))
            else:
                report(name, f"{quote(needed)} is no service of this file", f"one of {', '.join(services)}")
        done[name] = services[name]

    for name in services:
        visit(name, ())
    return tuple(done.values())

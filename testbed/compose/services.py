"""One service of a compose file, read into the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from testbed.compose import keys
from testbed.compose.building import read_build, read_hosts
from testbed.compose.checking import read_dependencies, read_healthcheck
from testbed.compose.environment import read_environment
from testbed.compose.forms import read_bytes, read_duration, read_pairs, read_texts, read_words
from testbed.compose.keys import WHERE, Notes
from testbed.compose.limits import read_resources, read_ulimits
from testbed.compose.model import STOP_GRACE_S, Dependency, FileMount, HostDevice, Mount, Pairs, Service
from testbed.compose.mounts import read_files, read_mounts, read_tmpfs
from testbed.compose.networking import read_host, read_links, read_namespace, read_networks
from testbed.compose.ports import list_awaited, list_ranges, read_exposed, read_ports
from testbed.compose.sharing import PRIVATE
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value, require

T = TypeVar("T")

_NONE: tuple[str, ...] = ()
_NO_PAIRS: Pairs = ()
_NO_DEVICES: tuple[HostDevice, ...] = ()

_SIGNAL = re.compile(r"(?:SIG)?[A-Z][A-Z0-9+-]{1,9}|[0-9]{1,2}")
_RESTART = re.compile(r"no|always|unless-stopped|on-failure(?::[0-9]{1,6})?")
_RESTART_WORDS = "no, always, unless-stopped, on-failure or on-failure:TIMES"
_CAPABILITY = re.compile(r"(?:CAP_)?[A-Z_]{2,40}")
_UNCONFINED = ("seccomp=unconfined", "seccomp:unconfined")  # docker's two ways to write it
_PRIVILEGES = re.compile(r"no-new-privileges(?:[:=](true|false))?")
# What has no meaning in a machine of its own, whose kernel nothing else runs on.
_HOSTS = {
    "network_mode": "the network of the host",
    "pid": "the processes of the host",
    "ipc": "the IPC of the host",
    "uts": "the host's name",
    "userns_mode": "the users of the host",
    "cgroup": "the cgroups of the host",
}


class Named(Struct, frozen=True):
    """The names that services may refer to."""

    networks: Mapping[str, object]
    volumes: Mapping[str, object]
    secrets: Mapping[str, object]
    configs: Mapping[str, object]


class _Fields:
    """The keys of a service that are there and not null, each asked for with its reader."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.values = values

    def read(self, key: str, reader: Callable[[Value], T], default: T) -> T:
        return reader(self.values[key]) if key in self.values else default

    def text(self, key: str, expected: str = "text") -> str:
        return self.read(key, lambda value: value.printed(expected), "")

    def flag(self, key: str) -> bool:
        return self.read(key, Value.boolean, False)


def read_service(name: str, value: Value, named: Named, notes: Notes) -> Service:
    """Return the service at ``value``. Whatever is malformed, unknown or impossible is noted as a mistake."""
    values = _supported(name, value, notes)
    fields = _Fields(values)
    if "image" not in values and "build" not in values:
        require({}, "build", value, "build, the folder that holds the service's Dockerfile, or image")

    def grants(key: str, folder: str, known: Mapping[str, object]) -> tuple[FileMount, ...]:
        return _read_grants(values[key], folder, known, name, notes) if key in values else ()

    service = Service(
        name=name,
        resources=read_resources(name, values, notes),
        build=read_build(values["build"], name, notes) if "build" in values else None,
        image=fields.text("image", "an image's name"),
        environment=read_environment(values, name, notes),
        command=fields.read("command", read_words, None),
        entrypoint=fields.read("entrypoint", read_words, None),
        healthcheck=fields.read("healthcheck", lambda one: read_healthcheck(one, name, notes), None),
        mounts=_read_mounts(values, named, name, notes),
        secrets=grants("secrets", "/run/secrets", named.secrets),
        configs=grants("configs", "", named.configs),
        user=fields.text("user", "a user, or user:group"),
        groups=fields.read("group_add", read_texts, _NONE),
        working_dir=fields.text("working_dir", "an absolute path"),
        stop_signal=fields.read("stop_signal", _read_signal, ""),
        stop_grace_s=fields.read("stop_grace_period", read_duration, STOP_GRACE_S),
        restart=fields.read("restart", _read_restart, "no"),
        init=fields.flag("init"),
        tty=fields.flag("tty"),
        stdin_open=fields.flag("stdin_open"),
    )
    for one in service.build.secrets if service.build is not None else ():
        if one.source not in named.secrets:
            known = ", ".join(named.secrets) or "none"
            values["build"].report(f"{quote(one.source)} is none of this file's secrets", f"one of {known}")
    service = _with_confinement(service, fields, notes)
    return _with_network(service, fields, named, notes)


def _with_confinement(service: Service, fields: _Fields, notes: Notes) -> Service:
    """Return the service with what confines its processes."""
    confinement = fields.read("security_opt", lambda one: _read_security(one, service.name, notes), _Confinement())
    return replace(
        service,
        seccomp=confinement.seccomp and not fields.flag("privileged"),
        no_new_privileges=confinement.no_new_privileges,
        privileged=fields.flag("privileged"),
        read_only=fields.flag("read_only"),
        cap_add=fields.read("cap_add", _read_capabilities, _NONE),
        cap_drop=fields.read("cap_drop", _read_capabilities, _NONE),
        ulimits=read_ulimits(fields.values["ulimits"], service.name, notes) if "ulimits" in fields.values else (),
        sysctls=fields.read("sysctls", _read_texts_by_name, _NO_PAIRS),
        shm_bytes=fields.read("shm_size", read_bytes, None),
        devices=fields.read("devices", lambda one: _read_devices(one, service.name, notes), _NO_DEVICES),
    )


def _with_network(service: Service, fields: _Fields, named: Named, notes: Notes) -> Service:
    """Return the service with its network, its namespaces and what follows from them."""
    values = fields.values
    spaces = {key: read_namespace(values[key], key) if key in values else "" for key in _HOSTS}
    isolated = spaces["network_mode"] == "none"
    if isolated and "ports" in values:
        notes.read_over("ports", service.name)
    sized = service.shm_bytes
    if sized is not None and spaces["ipc"] not in ("", PRIVATE):
        notes.read_over("shm_size", service.name)  # it has another's /dev/shm, or none
        sized = None
    if spaces["network_mode"] and "networks" in values:
        values["network_mode"].report("is there beside networks", "one of the two")
    if spaces["uts"] and not {"hostname", "domainname"}.isdisjoint(values):
        values["uts"].report("is there beside a name of its own, which would become the host's", "one of the two")
    published = read_ports(values["ports"], service.name, notes) if "ports" in values and not isolated else ()
    exposed = read_exposed(values["expose"]) if "expose" in values and not isolated else ()
    offers = (*published, *exposed)
    ranges = frozenset[int]().union(*(list_ranges(values[key]) for key in ("ports", "expose") if key in values))
    links = fields.read("links", read_links, _NO_PAIRS)
    stated = read_dependencies(values["depends_on"], service.name, notes) if "depends_on" in values else ()
    return replace(
        service,
        shm_bytes=sized,
        depends_on=_with_implied(stated, links, values),
        ports=list_awaited(offers, ranges),
        offers=offers,
        networks=read_networks(values["networks"], service.name, named.networks, notes) if "networks" in values else (),
        links=links,
        hostname=fields.read("hostname", read_host, ""),
        domainname=fields.read("domainname", read_host, ""),
        hosts=fields.read("extra_hosts", read_hosts, _NO_PAIRS),
        dns=fields.read("dns", read_texts, _NONE),
        dns_search=fields.read("dns_search", read_texts, _NONE),
        dns_options=fields.read("dns_opt", read_texts, _NONE),
        network_mode=spaces["network_mode"],
        pid=spaces["pid"],
        ipc=spaces["ipc"],
        uts=spaces["uts"],
        cgroup=spaces["cgroup"],
        only_containers=_list_hosts(spaces, service.mounts, values),
    )


def _supported(name: str, value: Value, notes: Notes) -> dict[str, Value]:
    """Return the keys of a service that the model has; others are noted, or are mistakes."""
    if value.is_null:
        return {}
    return keys.SERVICE.read(value, notes, name, where=WHERE)


class _Confinement(Struct, frozen=True):
    """What ``security_opt`` says."""

    seccomp: bool = True
    no_new_privileges: bool | None = None


def _read_security(value: Value, service: str, notes: Notes) -> _Confinement:
    seccomp, no_new_privileges = True, None
    for item in value.items():
        text = item.text(_UNCONFINED[0])
        if text in _UNCONFINED:
            seccomp = False
        elif match := _PRIVILEGES.fullmatch(text):
            no_new_privileges = match[1] != "false"
        elif text.startswith(("apparmor", "label", "systempaths")):
            notes.leave_out(f"security_opt {re.split('[:=]', text)[0]}", service)
        elif text:
            item.report(f"{quote(text)} is not supported by the testbed", f"{_UNCONFINED[0]} or no-new-privileges")
    return _Confinement(seccomp, no_new_privileges)


def _read_mounts(values: Mapping[str, Value], named: Named, service: str, notes: Notes) -> tuple[Mount, ...]:
    mounts: dict[str, Mount] = {}
    for mount, item in read_mounts(values["volumes"], service, notes) if "volumes" in values else ():
        if mount.kind == "volume" and mount.source and mount.source not in named.volumes:
            item.report(f"{quote(mount.source)} is no volume of this file", "its name below volumes: at the top")
        mounts[mount.target] = replace(mount, owner=service) if mount.kind == "volume" and not mount.source else mount
    for mount, _ in read_tmpfs(values["tmpfs"], service, notes) if "tmpfs" in values else ():
        mounts[mount.target] = mount
    return tuple(mounts.values())


def _read_grants(
    value: Value, folder: str, known: Mapping[str, object], service: str, notes: Notes
) -> tuple[FileMount, ...]:
    granted = []
    for one, item in read_files(value, folder, service, notes):
        if one.source and one.source not in known:
            kind = value.path.rpartition(".")[2]
            item.report(f"{quote(one.source)} is none of this file's {kind}", f"one of {', '.join(known) or 'none'}")
        granted.append(one)
    return tuple(granted)


def _with_implied(stated: tuple[Dependency, ...], links: Pairs, values: Mapping[str, Value]) -> tuple[Dependency, ...]:
    """Return the dependencies with those that follow from links and shared volumes."""
    names = [service for service, _ in links]
    if "volumes_from" in values:
        names += [service for service, _ in list_lenders(values["volumes_from"])]
    found = {one.service for one in stated}
    return (*stated, *(Dependency(name) for name in dict.fromkeys(names) if name not in found))


def list_lenders(value: Value) -> list[tuple[str, bool]]:
    """Return the services whose mounts ``volumes_from`` takes, each with whether it is to be read only."""
    lenders = []
    for item in value.items():
        name, _, mode = item.text("a service").partition(":")
        if name == "container" or mode not in ("", "ro", "rw"):
            item.report(f"is {quote(item.text())}", "SERVICE, SERVICE:ro or SERVICE:rw")
            continue
        lenders.append((name, mode == "ro"))
    return lenders


def _read_signal(value: Value) -> str:
    text = value.printed("a signal such as SIGTERM")
    if not _SIGNAL.fullmatch(text):
        value.report(f"is {quote(text)}", "a signal such as SIGTERM")
    return text


def _read_restart(value: Value) -> str:
    """Return when a service is started again; ``no`` without quotes is a boolean of YAML 1.1."""
    text = value.printed(_RESTART_WORDS)
    if text in ("false", "") or _RESTART.fullmatch(text):
        return "no" if text in ("false", "") else text
    value.report(f"is {quote(text)}", _RESTART_WORDS)
    return "no"


def _read_capabilities(value: Value) -> tuple[str, ...]:
    """Return the names of capabilities with ``CAP_`` before them, or ALL."""
    names = []
    for item in value.items():
        text = item.text("a capability such as NET_ADMIN").upper()
        if not _CAPABILITY.fullmatch(text):
            item.report(f"is {quote(text)}", "a capability such as NET_ADMIN")
        names.append(text if text == "ALL" or text.startswith("CAP_") else f"CAP_{text}")
    return tuple(names)


def _read_texts_by_name(value: Value) -> Pairs:
    return tuple((pair.name, pair.text or "") for pair in read_pairs(value))


def _read_devices(value: Value, service: str, notes: Notes) -> tuple[HostDevice, ...]:
    """Return the devices of the host, in both forms."""
    devices = []
    for item in value.items():
        if item.is_mapping:
            fields = keys.DEVICE.read(item, notes, service)
            source = require(fields, "source", item, "a device of this host").text("a device of this host")
            target = fields["target"].text("a path") if "target" in fields else source
            access = fields["permissions"].text("letters of rwm") if "permissions" in fields else ""
        else:
            source, _, rest = item.text("SOURCE:TARGET").partition(":")
            target, _, access = rest.partition(":")
            target = target or source
        if not source.startswith("/") or not target.startswith("/") or set(access) - set("rwm"):
            item.report(f"is {quote(item.text() if not item.is_mapping else source)}", "SOURCE, SOURCE:TARGET or :rwm")
            continue
        devices.append(HostDevice(source, target, access or "rwm"))
    return tuple(devices)


def _list_hosts(spaces: Mapping[str, str], mounts: tuple[Mount, ...], values: Mapping[str, Value]) -> Pairs:
    """Return the keys that only a container can have, each with what of the host it is."""
    found = [(key, what) for key, what in _HOSTS.items() if spaces[key] == "host"]
    if "devices" in values:
        found.append(("devices", "devices of the host"))
    found += [
        ("volumes", f"{one.source}, a part of the running host")
        for one in mounts
        if one.kind == "bind" and (one.source.endswith(".sock") or one.source.split("/")[1] in ("proc", "sys", "dev"))
    ]
    return tuple(found)

"""Every key that a reader accepts is applied, or said to have no effect, or refused by name; and what the model has of
it is asked for by somebody."""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

import testbed
from runtime.errors import UsageError
from testbed.compose import keys, model
from testbed.compose.keys import Keys
from testbed.compose.model import Application
from testbed.services.mounts import UNAPPLIED
from tests.testbed.compose.applications import read_files

KINDS = {name: kind for name, kind in vars(keys).items() if isinstance(kind, Keys)}
# Read where the application is given a name, and how it is measured.
ELSEWHERE = {("TOP", "name"), ("TOP", "x-testbed")}
FILES = {
    "Dockerfile": "FROM scratch\n",
    "other.dockerfile": "FROM scratch\n",
    "sub/Dockerfile": "FROM scratch\n",
    "a.env": "A='1'\nB=2\n",
    "b.env": "C=3\n",
    "more.yaml": "services: {more: {image: $C, volumes: ['./x:/x']}}\n",
    "less.yaml": "services: {less: {image: y}, db: {image: z, user: 6}}\n",
}


def file(**web: Any) -> dict[str, Any]:
    """Return a file of two services, of which one has these keys."""
    services = {"db": {"image": "y", "user": "5"}, "web": {"image": "x", "cpu_quota": 20000, **web}}
    return {"services": services, "networks": {"n": {}}, "volumes": {"v": {}}, "secrets": {"s": {"content": "x"}}}


def mount(kind: str, **options: Any) -> dict[str, Any]:
    return file(volumes=[{"type": kind, "source": "v" if kind == "volume" else "./v", "target": "/t", **options}])


WEB = ("services", "web")
VOLUME = (*WEB, "volumes", 0)
# Of each kind: a file with one, and where it stands.
PLACES: Mapping[str, tuple[dict[str, Any], tuple[str | int, ...]]] = {
    "TOP": ({**file(secrets=["s"], configs=["c"]), "configs": {"c": {"content": "x"}}}, ()),
    "SERVICE": (file(), WEB),
    "EXTENDS": (file(extends={"service": "db"}), (*WEB, "extends")),
    "INCLUDE": ({**file(), "include": [{"path": "more.yaml"}]}, ("include", 0)),
    "DEPLOY": (file(deploy={}), (*WEB, "deploy")),
    "RESOURCES": (file(deploy={"resources": {}}), (*WEB, "deploy", "resources")),
    "RESERVATIONS": (
        file(deploy={"resources": {"reservations": {}}}),
        (*WEB, "deploy", "resources", "reservations"),
    ),
    "LIMITS": (file(deploy={"resources": {"limits": {}}}), (*WEB, "deploy", "resources", "limits")),
    "BUILD": (file(build={}), (*WEB, "build")),
    "ATTACHMENT": (file(networks={"n": {}}), (*WEB, "networks", "n")),
    "HEALTHCHECK": (file(healthcheck={"test": "x"}), (*WEB, "healthcheck")),
    "DEPENDENCY": (file(depends_on={"db": {"condition": "service_started"}}), (*WEB, "depends_on", "db")),
    "ENV_FILE": (file(env_file=[{"path": "a.env"}]), (*WEB, "env_file", 0)),
    "ULIMIT": (file(ulimits={"nofile": {"soft": 1, "hard": 2}}), (*WEB, "ulimits", "nofile")),
    "DEVICE": (file(devices=[{"source": "/dev/a", "target": "/dev/b"}]), (*WEB, "devices", 0)),
    "PORT": (file(ports=[{"target": 80}]), (*WEB, "ports", 0)),
    "GRANT": (file(secrets=[{"source": "s"}]), (*WEB, "secrets", 0)),
    "MOUNT": (mount("volume"), VOLUME),
    "BIND": (mount("bind", bind={}), (*VOLUME, "bind")),
    "MOUNTED_VOLUME": (mount("volume", volume={}), (*VOLUME, "volume")),
    "MOUNTED_IMAGE": (mount("image", image={}), (*VOLUME, "image")),
    "MOUNTED_TMPFS": (mount("tmpfs", tmpfs={}), (*VOLUME, "tmpfs")),
    "NETWORK": (file(), ("networks", "n")),
    "VOLUME": (file(), ("volumes", "v")),
    "SECRET": (file(secrets=["s"]), ("secrets", "s")),
    "CONFIG": ({**file(configs=["c"]), "configs": {"c": {"content": "x"}}}, ("configs", "c")),
}
# Of what is applied: values that mean something else than what is usual, or than what stands there.
VALUES: Mapping[str, Mapping[str, Any]] = {
    "TOP": {
        "services": {"db": {"image": "y"}}, "networks": {"m": {}}, "volumes": {"w": {}}, "include": ["more.yaml"],
        "secrets": {"s": {"content": "y"}}, "configs": {"c": {"content": "y"}},
    },
    "SERVICE": {
        "build": ".", "image": "z", "command": "a", "entrypoint": "a", "environment": {"A": "1"}, "env_file": "a.env",
        "depends_on": ["db"], "links": ["db"], "profiles": ["p"], "cpus": 2, "cpu_quota": 30000, "cpu_period": 50000,
        "deploy": {"resources": {"limits": {"pids": 7}}}, "mem_limit": "1g", "pids_limit": 7, "shm_size": "1m",
        "ulimits": {"core": 1}, "sysctls": {"net.a": 1}, "ports": ["80"], "expose": ["80"], "networks": ["n"],
        "network_mode": "none", "hostname": "h", "domainname": "d", "extra_hosts": ["h:1.2.3.4"], "dns": "1.2.3.4",
        "dns_search": "a", "dns_opt": ["ndots:1"], "volumes": ["/a"], "volumes_from": ["db"], "tmpfs": "/a",
        "secrets": ["s"], "configs": ["c"], "read_only": True, "healthcheck": {"test": "x"}, "restart": "always",
        "user": "1", "group_add": ["1"], "working_dir": "/a", "stop_signal": "SIGINT", "stop_grace_period": "1s",
        "init": True, "cap_add": ["ALL"], "cap_drop": ["ALL"], "privileged": True, "extends": {"service": "db"},
        "security_opt": ["seccomp:unconfined"], "devices": ["/dev/a"], "tty": True, "stdin_open": True, "pid": "host",
        "ipc": "none", "uts": "host", "userns_mode": "host", "cgroup": "host",
    },
    "EXTENDS": {"service": "web", "file": "less.yaml"},
    "INCLUDE": {"path": "less.yaml", "env_file": "b.env", "project_directory": "sub"},
    "DEPLOY": {"resources": {"limits": {"pids": 7}}},
    "RESOURCES": {"limits": {"pids": 7}, "reservations": {"memory": "1g"}},
    "RESERVATIONS": {},
    "LIMITS": {"cpus": "2", "memory": "1g", "pids": 7},
    "BUILD": {
        "context": "sub", "dockerfile": "other.dockerfile", "dockerfile_inline": "FROM x", "args": ["A=1"],
        "target": "t", "additional_contexts": {"c": "./sub"}, "secrets": ["s"],
    },
    "ATTACHMENT": {"aliases": ["a"], "ipv4_address": "1.2.3.4"},
    "HEALTHCHECK": {
        "test": "y", "interval": "1s", "timeout": "1s", "retries": 7, "start_period": "1s", "start_interval": "1s",
        "disable": True,
    },
    "DEPENDENCY": {"condition": "service_healthy", "required": False},
    "ENV_FILE": {"path": "b.env", "required": False, "format": "raw"},
    "ULIMIT": {"soft": 2, "hard": 3},
    "DEVICE": {"source": "/dev/c", "target": "/dev/c", "permissions": "r"},
    "PORT": {"host_ip": "1.2.3.4", "target": 81, "published": "80", "protocol": "udp"},
    "GRANT": {"source": "t", "target": "t", "uid": "1", "gid": "1", "mode": "0400"},
    "MOUNT": {
        "type": "image", "source": "w", "target": "/w", "read_only": True, "bind": {"propagation": "rslave"},
        "volume": {"subpath": "s"}, "tmpfs": {"size": 1}, "image": {"subpath": "s"},
    },
    "BIND": {"propagation": "rslave", "create_host_path": False},
    "MOUNTED_VOLUME": {"nocopy": True, "subpath": "s"},
    "MOUNTED_IMAGE": {"subpath": "s"},
    "MOUNTED_TMPFS": {"size": "1m", "mode": "0700"},
    "NETWORK": {"external": True, "internal": True},
    "VOLUME": {"driver": "nfs", "driver_opts": {"o": "bind", "device": "./d"}, "external": True},
    "SECRET": {"environment": "B", "file": "a.env", "external": True, "content": "y"},
    "CONFIG": {"environment": "B", "file": "a.env", "external": True, "content": "y"},
}  # fmt: skip
# What else is different there, of keys that mean something only then.
BESIDE: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("ENV_FILE", "required"): {"path": "gone.env"},
    **{(name, key): {"content": None} for name in ("SECRET", "CONFIG") for key in ("environment", "external")},
}


def list_cases(*fields: str) -> list[tuple[str, str]]:
    cases = [(name, key) for name, kind in KINDS.items() for field in fields for key in getattr(kind, field)]
    return [case for case in cases if case not in ELSEWHERE]


def read(folder: Path, name: str, key: str, /, **given: Any) -> Application | str:
    """Return the application of a file with such a mapping, in which a key may be given; or what is wrong with it."""
    tree, path = PLACES[name]
    tree = copy.deepcopy(tree)
    at: Any = tree
    for step in path:
        at = at[step]
    at.update({**BESIDE.get((name, key), {}), **given})
    try:
        return read_files(folder, {**FILES, "compose.yaml": json.dumps(tree)}, "compose.yaml", B="b")
    except UsageError as error:
        return str(error)


def test_each_key_is_in_one_table() -> None:
    assert set(PLACES) == set(VALUES) == set(KINDS)
    for name, kind in KINDS.items():
        all_of_it = [*kind.applied, *kind.read_over, *kind.left_out, *kind.refused]
        assert sorted(all_of_it) == sorted(set(all_of_it)), name
        assert set(VALUES[name]) == {key for key in kind.applied if (name, key) not in ELSEWHERE}, name


@pytest.mark.parametrize(("name", "key"), list_cases("applied"))
def test_what_is_applied_makes_a_difference(tmp_path: Path, name: str, key: str) -> None:
    assert read(tmp_path, name, key) != read(tmp_path, name, key, **{key: VALUES[name][key]})


@pytest.mark.parametrize(("name", "key"), list_cases("read_over", "left_out"))
def test_what_makes_none_is_said(tmp_path: Path, name: str, key: str) -> None:
    without, with_it = read(tmp_path, name, key), read(tmp_path, name, key, **{key: "x"})
    assert isinstance(with_it, Application) and isinstance(without, Application)
    (said,) = set(with_it.notes) - set(without.notes)
    assert said.startswith(("read over, as it is not part", "left out on every platform"))
    assert any(one.rpartition(".")[2].partition(" (")[0] == key for one in said.partition(": ")[2].split("; "))
    assert replace(with_it, notes=without.notes) == without


@pytest.mark.parametrize(("name", "key"), list_cases("refused"))
def test_what_is_refused_is_named(tmp_path: Path, name: str, key: str) -> None:
    said = read(tmp_path, name, key, **{key: "x"})
    assert isinstance(said, str) and f"{key}: is not supported" in said and KINDS[name].refused[key] in said


def test_somebody_asks_for_all_that_the_model_has() -> None:
    """What nobody asks for is said not to be applied."""
    home = Path(testbed.__file__).parent
    outside = [path for path in home.rglob("*.py") if "compose" not in path.relative_to(home).parts]
    asked = {
        node.attr
        for path in outside
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    structs = [one for one in vars(model).values() if isinstance(one, type) and issubclass(one, Struct)]
    fields = {field for one in structs for field in one.__struct_fields__}
    assert fields - asked == set(UNAPPLIED)

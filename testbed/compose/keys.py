"""The keys of the Compose specification (schema/compose-spec.json), by what becomes of them here.

What changes a measure is in the model; what does not is read over, with a line that says so, as is what no platform
here has; what cannot be is refused by name. Each kind of mapping has its ``Keys``, and each key is in one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from testbed.yamltree.values import Value

# What has no other keys, in messages.
WHERE = "Compose or the testbed"
# How many there are of a service: one in any case.
_COPIES = ("replicas", "scale")
_NONE: tuple[str, ...] = ()
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Notes:
    """What the user is told of an application: keys that have no effect, by key, and sentences."""

    def __init__(self) -> None:
        self._read_over: dict[str, dict[str, None]] = {}
        self._left_out: dict[str, dict[str, None]] = {}
        self._lines: dict[str, None] = {}

    def read_over(self, key: str, service: str) -> None:
        """Note a key that is not part of a measure."""
        self._read_over.setdefault(key, {})[service] = None

    def leave_out(self, key: str, service: str) -> None:
        """Note a key that might change a measure, and that no platform honours."""
        self._left_out.setdefault(key, {})[service] = None

    def say(self, line: str) -> None:
        """Note a sentence, once."""
        self._lines[line] = None

    def list_lines(self) -> tuple[str, ...]:
        """Return all notes: the keys of each kind in one line."""
        kinds = (
            ("read over, as it is not part of a measure", self._read_over),
            ("left out on every platform, though it may change a measure", self._left_out),
        )
        return (*(f"{what}: {_join(named)}" for what, named in kinds if named), *self._lines)


def _join(keys: Mapping[str, Mapping[str, None]]) -> str:
    of = {key: ", ".join(filter(None, services)) for key, services in sorted(keys.items())}
    return "; ".join(f"{key} ({services})" if services else key for key, services in of.items())


class Keys(Struct, frozen=True):
    """The keys of one kind of mapping: those that are ``applied``; those without an effect on a measure
    (``read_over``); those that might have one, and no platform here has (``left_out``); and those that are ``refused``,
    each with what to do instead."""

    applied: tuple[str, ...]
    read_over: tuple[str, ...] = _NONE
    left_out: tuple[str, ...] = _NONE
    refused: Mapping[str, str] = _NOTHING

    def read(
        self, value: Value, notes: Notes, owner: str, prefix: str = "", where: str = "the testbed"
    ) -> dict[str, Value]:
        """Return the values of the keys that are applied and not null. The others are noted as ``prefix`` and key of
        the ``owner``, a service or what else has a name, or are mistakes; ``where`` is what has no more keys."""
        fields = value.fields((*self.applied, *self.read_over, *self.left_out), self.refused, where)
        given = {key: one for key, one in fields.items() if not one.is_null}
        for key, one in given.items():
            if key in self.read_over:
                notes.read_over(f"{prefix}{key}", owner)
            elif key in self.left_out and not (key in _COPIES and one.is_text and one.printed() == "1"):
                notes.leave_out(f"{prefix}{key}", owner)
        return {key: one for key, one in given.items() if key in self.applied}


TOP = Keys(
    ("name", "services", "networks", "volumes", "secrets", "configs", "include", "x-testbed"),
    read_over=("version",),
    refused=MappingProxyType({"models": "a service that serves the model"}),
)
SERVICE = Keys(
    (
        *("build", "image", "command", "entrypoint", "environment", "env_file", "depends_on", "links", "profiles"),
        *("deploy", "cpus", "cpu_quota", "cpu_period", "mem_limit", "pids_limit", "shm_size", "ulimits", "sysctls"),
        *("ports", "expose", "networks", "network_mode", "hostname", "domainname", "extra_hosts"),
        *("dns", "dns_search", "dns_opt", "volumes", "volumes_from", "tmpfs", "secrets", "configs", "read_only"),
        *("healthcheck", "restart", "user", "group_add", "working_dir", "stop_signal", "stop_grace_period", "init"),
        *("cap_add", "cap_drop", "privileged", "security_opt", "devices", "tty", "stdin_open"),
        *("pid", "ipc", "uts", "userns_mode", "cgroup", "extends"),
    ),
    (
        *("annotations", "attach", "container_name", "develop", "isolation", "label_file", "labels", "logging"),
        *("platform", "pull_policy", "pull_refresh_after"),
    ),
    (
        *("blkio_config", "cgroup_parent", "cpu_count", "cpu_percent", "cpu_rt_period", "cpu_rt_runtime", "cpu_shares"),
        *("cpuset", "device_cgroup_rules", "mac_address", "mem_reservation", "mem_swappiness", "memswap_limit"),
        *("oom_kill_disable", "oom_score_adj", "runtime", "scale", "storage_opt"),
    ),
    MappingProxyType(
        {
            "credential_spec": "no Windows account: neither platform has them",
            "external_links": "a service of this file: nothing else is in an application's network",
            "gpus": "no GPU: neither platform has one",
            "models": "a service that serves the model",
            "post_start": "what it does, in the command or the image",
            "pre_stop": "what it does, in the command or the image",
            "provider": "a service with an image",
            "use_api_socket": "no engine's socket: there is none",
        }
    ),
)
# Of a service's ``extends``, and of the file's ``include``.
EXTENDS = Keys(("service", "file"))
INCLUDE = Keys(("path", "env_file", "project_directory"))
DEPLOY = Keys(
    ("resources",),
    ("mode", "endpoint_mode", "labels", "restart_policy", "rollback_config", "update_config", "placement"),
    ("replicas",),
)
RESOURCES = Keys(("limits", "reservations"))
RESERVATIONS = Keys(
    (),
    left_out=("cpus", "memory", "generic_resources"),
    refused=MappingProxyType({"devices": "none: neither platform has GPUs or the like"}),
)
LIMITS = Keys(("cpus", "memory", "pids"))
BUILD = Keys(
    ("context", "dockerfile", "dockerfile_inline", "args", "target", "additional_contexts", "secrets"),
    ("cache_from", "cache_to", "isolation", "labels", "no_cache", "platforms", "pull", "tags"),
    ("entitlements", "extra_hosts", "network", "privileged", "shm_size", "ssh", "ulimits"),
)
ATTACHMENT = Keys(
    ("aliases", "ipv4_address"),
    ("interface_name", "ipv6_address", "link_local_ips", "mac_address", "driver_opts", "priority", "gw_priority"),
)
HEALTHCHECK = Keys(("test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"))
# ``restart`` follows Compose's own commands on another service, of which there are none here.
DEPENDENCY = Keys(("condition", "required"), ("restart",))
ENV_FILE = Keys(("path", "required", "format"))
ULIMIT = Keys(("soft", "hard"))
DEVICE = Keys(("source", "target", "permissions"))
PORT = Keys(("host_ip", "target", "published", "protocol"), ("name", "mode", "app_protocol"))
GRANT = Keys(("source", "target", "uid", "gid", "mode"))
MOUNT = Keys(
    ("type", "source", "target", "read_only", "bind", "volume", "tmpfs", "image"),
    ("consistency",),
    refused=MappingProxyType({"cluster": "a volume of this host: there is no cluster"}),
)
BIND = Keys(("propagation", "create_host_path"), ("selinux",), ("recursive",))
MOUNTED_VOLUME = Keys(("nocopy", "subpath"), ("labels",))
MOUNTED_IMAGE = Keys(("subpath",))
MOUNTED_TMPFS = Keys(("size", "mode"))
NETWORK = Keys(
    ("external", "internal"),
    ("name", "labels", "driver", "driver_opts", "ipam", "enable_ipv4", "enable_ipv6", "attachable"),
)
VOLUME = Keys(("driver", "driver_opts", "external"), ("name", "labels"))
SECRET = Keys(
    ("environment", "file", "external", "content"), ("name", "labels"), ("driver", "driver_opts", "template_driver")
)
CONFIG = Keys(("content", "environment", "file", "external"), ("name", "labels"), ("template_driver",))

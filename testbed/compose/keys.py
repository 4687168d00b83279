"""The keys of the Compose specification (schema/compose-spec.json), by what becomes of them here.

What changes a measure is in the model; what does not is read over, with a line that says so; what this host has no
means for is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# What has no other keys, in messages.
WHERE = "Compose or the testbed"
# Of a service.
HONOURED = (
    *("build", "image", "command", "entrypoint", "environment", "env_file", "depends_on", "links", "profiles"),
    *("deploy", "cpus", "cpu_quota", "cpu_period", "mem_limit", "pids_limit", "shm_size", "ulimits", "sysctls"),
    *("ports", "expose", "networks", "network_mode", "hostname", "domainname", "extra_hosts"),
    *("dns", "dns_search", "dns_opt", "volumes", "volumes_from", "tmpfs", "secrets", "configs", "read_only"),
    *("healthcheck", "restart", "user", "group_add", "working_dir", "stop_signal", "stop_grace_period", "init"),
    *("cap_add", "cap_drop", "privileged", "security_opt", "devices", "tty", "stdin_open"),
    *("pid", "ipc", "uts", "userns_mode", "cgroup", "extends"),
)
# Without an effect on a measure.
READ_OVER = (
    *("annotations", "attach", "container_name", "develop", "isolation", "label_file", "labels", "logging"),
    *("platform", "pull_policy", "pull_refresh_after"),
)
# What might have one, and no platform here has.
LEFT_OUT = (
    *("blkio_config", "cgroup_parent", "cpu_count", "cpu_percent", "cpu_rt_period", "cpu_rt_runtime", "cpu_shares"),
    *("cpuset", "device_cgroup_rules", "mac_address", "mem_reservation", "mem_swappiness", "memswap_limit"),
    *("oom_kill_disable", "oom_score_adj", "runtime", "scale", "storage_opt"),
)
REFUSED: Mapping[str, str] = MappingProxyType(
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
)
# Of services[...].deploy; its resources are in the model.
DEPLOY_READ_OVER = (
    *("mode", "endpoint_mode", "labels", "restart_policy", "rollback_config", "update_config", "placement"),
)
DEPLOY_LEFT_OUT = ("replicas",)
# Of services[...].build.
BUILD_HONOURED = (*("context", "dockerfile", "dockerfile_inline", "args", "target", "additional_contexts", "secrets"),)
BUILD_READ_OVER = ("cache_from", "cache_to", "isolation", "labels", "no_cache", "platforms", "pull", "tags")
BUILD_LEFT_OUT = ("entitlements", "extra_hosts", "network", "privileged", "shm_size", "ssh", "ulimits")
TOP = ("name", "version", "services", "networks", "volumes", "secrets", "configs", "include", "x-testbed")
TOP_REFUSED: Mapping[str, str] = MappingProxyType({"models": "a service that serves the model"})
NETWORK = (
    *("name", "driver", "driver_opts", "ipam", "external", "internal", "enable_ipv4", "enable_ipv6", "attachable"),
    "labels",
)
VOLUME = ("name", "driver", "driver_opts", "external", "labels")
SECRET = ("name", "environment", "file", "external", "labels", "driver", "driver_opts", "template_driver", "content")
CONFIG = ("name", "content", "environment", "file", "external", "labels", "template_driver")
ATTACHMENT = (
    *("aliases", "interface_name", "ipv4_address", "ipv6_address", "link_local_ips", "mac_address", "driver_opts"),
    *("priority", "gw_priority"),
)
HEALTHCHECK = ("test", "interval", "timeout", "retries", "start_period", "start_interval", "disable")


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
    return "; ".join(f"{key} ({', '.join(services)})" for key, services in sorted(keys.items()))

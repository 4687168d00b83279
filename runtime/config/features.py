"""What this runtime can do, as the runtime-spec's features structure has it (1.2, features.md)."""

from __future__ import annotations

from runtime.config.default import OCI_VERSION
from runtime.config.mount_options import NAMES
from runtime.config.validate import NAMESPACES, Host
from runtime.plan.constants import CAPABILITIES
from runtime.seccomp.filter import ACTIONS, FLAGS, OPERATORS


def features() -> dict[str, object]:
    """The structure, with what this host's kernel has of security modules."""
    host = Host.read()
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": list(NAMES),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(CAPABILITIES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": list(ACTIONS),
                "operators": list(OPERATORS),
                "knownFlags": list(FLAGS),
                "supportedFlags": list(FLAGS),
            },
            "apparmor": {"enabled": host.apparmor},
            "selinux": {"enabled": host.selinux},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
    }

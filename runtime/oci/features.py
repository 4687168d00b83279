"""Build the runtime-spec's features structure (1.3, features.md), which says what this runtime supports."""

from __future__ import annotations

from runtime.config.default import OCI_VERSION
from runtime.config.mount_options import NAMES
from runtime.config.validate import NAMESPACES
from runtime.plan.constants import CAPABILITIES, MEMORY_POLICIES, MEMORY_POLICY_FLAGS
from runtime.seccomp.filter import ACTIONS, ARCHITECTURES, FLAGS, OPERATORS


def features() -> dict[str, object]:
    """Return the structure. It lists what the runtime recognises and implements, even if this host lacks support."""
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
                "archs": list(ARCHITECTURES),
                "knownFlags": list(FLAGS),
                "supportedFlags": list(FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": False},  # process.selinuxLabel is supported, linux.mountLabel is not
            "intelRdt": {"enabled": False, "schemata": False, "monitoring": False},
            "memoryPolicy": {"modes": list(MEMORY_POLICIES), "flags": list(MEMORY_POLICY_FLAGS)},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property.", "run.oci.keep_original_groups"],
    }

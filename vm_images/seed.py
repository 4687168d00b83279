"""Makes the volume by which a stock system becomes one instance: cloud-init's NoCloud seed, our launcher and the plan.

cloud-init finds the volume by its label, names the machine, configures its network card, writes the service's unit
and starts it (cloud-init's documentation, "NoCloud", "Network configuration version 2"). All of its files are JSON,
which is YAML too.
"""

from __future__ import annotations

import json

from runtime.plan.encode import encode
from runtime.spec import Link, Spec
from vm_images.iso9660 import make_volume
from vm_images.plans.unit import EXITED, unit_plan

LABEL = "CIDATA"
UNIT = "workload.service"
_SEED = "/run/seed"


def unit(spec: Spec) -> str:
    """Return the service's systemd unit (systemd.service(5), systemd.resource-control(5)).

    /dev/console, and not its terminal: the login prompt hangs that up.
    """
    resources = spec.resources
    limits = [
        *([f"MemoryMax={resources.memory_bytes}"] if resources.memory_bytes is not None else []),
        *([f"TasksMax={resources.pids}"] if resources.pids is not None else []),
    ]
    lines = [
        "[Unit]",
        "Description=The workload",
        "SuccessAction=poweroff-force",
        "FailureAction=poweroff-force",
        "",
        "[Service]",
        f"ExecStart={_SEED}/launcher {_SEED}/plan",
        f"ExecStopPost=/bin/sh -c 'echo {EXITED}$EXIT_STATUS'",
        # The plan gives modes as they are to be; the workload has its own mask.
        "UMask=0000",
        "StandardInput=null",
        "StandardOutput=file:/dev/console",
        "StandardError=inherit",
        *limits,
    ]
    return "\n".join(lines) + "\n"


def user_data(spec: Spec) -> str:
    """Return what cloud-init is to do: write the unit (in its network stage), start it (in its last)."""
    document = {
        "write_files": [{"path": f"/etc/systemd/system/{UNIT}", "content": unit(spec)}],
        "runcmd": [
            ["mkdir", _SEED],
            ["mount", "-o", "ro", f"LABEL={LABEL}", _SEED],
            ["systemctl", "start", UNIT],
        ],
    }
    return "#cloud-config\n" + json.dumps(document, indent=1) + "\n"


def meta_data(instance_id: str, hostname: str) -> str:
    """Return who the machine is. cloud-init takes another ``instance_id`` for another machine, and starts afresh."""
    return json.dumps({"instance-id": instance_id, "local-hostname": hostname}, indent=1) + "\n"


def network_config(link: Link | None) -> str:
    """Return the network card, found by its address; without a link there is none to configure."""
    ethernets: dict[str, object] = {}
    if link is not None:
        gateway = {"routes": [{"to": "default", "via": str(link.gateway)}]} if link.gateway else {}
        ethernets["eth0"] = {
            "match": {"macaddress": link.mac},
            "set-name": "eth0",
            "addresses": [str(link.address)],
            # A lab has no router that advertises itself; systemd-networkd-wait-online would wait 12 s for one.
            "accept-ra": False,
            **gateway,
        }
    return json.dumps({"version": 2, "ethernets": ethernets}, indent=1) + "\n"


def seed(spec: Spec, instance_id: str, launcher: bytes) -> bytes:
    """Return the seed volume of one instance; ``launcher`` is the static binary. Raises UsageError as ``unit_plan``."""
    files = {
        "meta-data": meta_data(instance_id, spec.hostname).encode(),
        "user-data": user_data(spec).encode(),
        "network-config": network_config(spec.link).encode(),
        "launcher": launcher,
        "plan": encode(unit_plan(spec)),
    }
    return make_volume(LABEL, files)

"""What peers are started with, as data: plans, bundles, words and files, without starting anything."""

from __future__ import annotations

from ipaddress import IPv4Interface
from pathlib import Path

import msgspec
import pytest

from runtime.cgroups import Hierarchies
from runtime.config.bundle import parse_config
from runtime.plan import steps as s
from runtime.plan.constants import CLONE_NEWNET, CLONE_NEWNS
from runtime.plan.network import Attachment
from runtime.spec import Link, Process, Resources, Spec, User
from testbed.platforms import docker_client
from testbed.platforms.peers.lxc import configure
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.oci import CRUN, RUNSC, bundle_config
from testbed.platforms.peers.peer import Place
from testbed.platforms.peers.plans import MOUNTED, entry_plan, program_plan
from testbed.platforms.peers.program import Found
from testbed.platforms.peers.sweep import find_mounts

V2 = Hierarchies({}, Path("/sys/fs/cgroup"), frozenset({"memory", "cpu", "pids"}))
V1 = Hierarchies(
    {name: Path("/sys/fs/cgroup", name) for name in ("memory", "cpu", "cpuacct", "pids", "devices")}, None, frozenset()
)
LINK = Link(IPv4Interface("10.77.1.10/16"), "02:00:0a:4d:01:0a")


def place(hierarchies: Hierarchies = V1, *, split: bool = True, **spec: object) -> Place:
    process = Process(("/bin/serve", "-x"), ("PATH=/bin", "A=b c"), "/srv", User(1000, 1001, None, (7,)))
    wanted = Spec(
        process, ("/layers/a", "/layers/b"), "web", Resources(64 << 20, 0.5, 24), LINK, (("db", "10.77.1.11"),)
    )
    wanted = msgspec.structs.replace(wanted, **spec)
    folder = Path("/run/testbed/RUN/peer/1")
    return Place("RUN-a0-web", wanted, folder, folder.parent, "testbed/RUN/a0-web", hierarchies, split)


@pytest.mark.parametrize("name", [name for name in PEERS if name != "kata"])
@pytest.mark.parametrize("hierarchies", [V1, V2], ids=["v1", "v2"])
def test_each_peer_gets_the_same_network_and_root_and_is_waited_for(name: str, hierarchies: Hierarchies) -> None:
    peer = PEERS[name]
    plan = program_plan(peer, place(hierarchies, split=peer.stays), Found(f"/usr/bin/{name}", "1"), Attachment(2, 1))
    assert plan.clone_flags == CLONE_NEWNS | CLONE_NEWNET
    steps = list(plan.child)
    overlay = next(one for one in steps if isinstance(one, s.Mount) and one.fstype == "overlay")
    assert overlay.target == "/run/testbed/RUN/peer/1/root" and "lowerdir=b:a," in overlay.data
    sync = next(one for one in steps if isinstance(one, s.Sync))
    assert sync.number == MOUNTED and steps.index(overlay) < steps.index(sync)
    assert "10.77.1.10/16" in " ".join(one.describe() for one in steps)
    joined = [
        one.path for one in steps[steps.index(sync) :] if isinstance(one, s.Write) and "/testbed/RUN/" in one.path
    ]
    assert all("/a0-web/overhead/" in path for path in joined) and bool(joined) == (peer.stays and not peer.splits)
    ground = f"testbed/RUN/a0-web{'/ground' if peer.stays else ''}"
    assert plan.into_cgroup == (f"/sys/fs/cgroup/{ground}" if hierarchies is V2 else "")
    entered = [one.describe() for one in (*plan.parent, *steps[: steps.index(sync)])]
    assert any(f"{ground}/tasks" in one for one in entered) == (hierarchies is V1)
    assert not any("cgroup.procs" in one for one in entered), "who joins on v2 waits for a lock"
    assert isinstance(steps[-1], s.Exec)
    assert steps[-1].args[0] == ("/bin/serve" if name == "process" else f"/usr/bin/{name}")


def test_a_workload_without_an_address_has_a_loopback_interface() -> None:
    plan = program_plan(CRUN, place(link=None), Found("crun", "1"), Attachment(2, 1))
    said = " ".join(one.describe() for one in plan.child)
    assert "bring lo up" in said and "veth" not in said


def test_a_bundle_is_a_configuration_that_our_own_runtime_takes() -> None:
    here = place()
    config = parse_config(msgspec.json.encode(bundle_config(here)).decode(), Path("config.json"))
    assert config.root.path == str(here.root)
    assert config.linux.cgroups_path == "/testbed/RUN/a0-web/workload"
    assert [one.path for one in config.linux.namespaces if one.type == "network"] == ["/proc/self/ns/net"]
    resources = config.linux.resources
    assert resources is not None and resources.pids is not None and resources.memory is not None
    assert (resources.pids.limit, resources.memory.limit) == (24, 64 << 20)
    assert config.linux.seccomp == here.config.linux.seccomp and config.linux.seccomp is not None
    assert config.process == here.config.process
    own = RUNSC.bundle(here).linux.resources
    assert own is not None and own.pids is None, "its kernel's threads would count"


def test_inside_a_peer_the_launcher_does_what_is_left_to_it() -> None:
    asks, does_not = (entry_plan(place(), asks=asks).child for asks in (True, False))
    assert isinstance(asks[0], s.RequestAdmission) and not isinstance(does_not[0], s.RequestAdmission)
    assert asks[1:] == does_not
    kinds = {type(step) for step in does_not}
    assert {s.SeccompFilter, s.NoNewPrivileges, s.BoundingSet, s.MaskPath, s.ReadonlyPath, s.SetRlimit} <= kinds


@pytest.mark.parametrize(
    ("hierarchies", "memory"), [(V1, "lxc.cgroup.memory.limit_in_bytes"), (V2, "lxc.cgroup2.memory.max")]
)
def test_lxc_has_its_limits_and_cgroups_in_its_file(hierarchies: Hierarchies, memory: str) -> None:
    written = dict(configure(place(hierarchies)))
    assert written[memory] == str(64 << 20)
    assert written["lxc.cgroup.dir.container"] == "testbed/RUN/a0-web/workload"
    assert written["lxc.cgroup.dir.monitor"] == "testbed/RUN/a0-web/overhead"
    assert written["lxc.net.0.type"] == "none"


def test_docker_is_told_all_of_a_workload() -> None:
    here = place()
    words = docker_client.run_words(
        "docker", here.spec, "testbed-x", "run", here.cgroup, Path("/f/entry"), "testbed/run:0", {"P": "/p"}
    )
    assert words[:3] == ("docker", "run", "--detach") and words[-3:] == (
        "--entrypoint",
        "/.testbed/launcher",
        "testbed/run:0",
    )
    assert {
        "--label", "testbed.run=run", "--network=none", "--cgroup-parent=/testbed/RUN/a0-web", "--user=1000:1001",
        "--group-add=7", "--workdir=/srv", "--hostname=web", "--add-host=db:10.77.1.11", "--ulimit=nofile=1024:4096",
        "--memory=67108864b", "--pids-limit=24", "--cpu-quota=50000", "--cap-drop=ALL", "--cap-add=CHOWN", "--env=P=/p",
        "--security-opt=seccomp=/f/seccomp.json", "--security-opt=no-new-privileges",
    } <= set(words)  # fmt: skip
    loose = msgspec.structs.replace(here.spec, seccomp=False, resources=Resources())
    words = docker_client.run_words("docker", loose, "x", "run", here.cgroup, Path("/f/entry"), "i", {})
    assert "--security-opt=seccomp=unconfined" in words
    assert not [word for word in words if word.startswith(("--memory", "--cpu", "--pids"))]


def test_hierarchies_are_found_wherever_they_are_mounted() -> None:
    text = """24 21 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 24 0:22 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
26 24 0:23 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
27 24 0:24 / /sys/fs/cgroup/two\\040words rw - cgroup2 cgroup2 rw
broken
"""
    assert find_mounts(text) == [Path(f"/sys/fs/cgroup/{name}") for name in ("memory", "systemd", "two words")]

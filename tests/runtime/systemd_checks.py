"""What is checked on a host that runs systemd, on cgroup v2, with AppArmor. It runs inside a guest, not under pytest.

Each function is a check; one that fails raises. The console gets a line for each, which
tests/runtime/test_systemd_guest.py reads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from runtime.config.decode import encode
from runtime.config.default import default_config, rootless_config
from tests.runtime import systemd_applications, systemd_ladder, systemd_machines
from tests.runtime.guest_checks import captured, work_off
from tests.runtime.systemd_programs import BUSYBOX, UNIFIED, WORK, podman
from tests.waiting import until

BUNDLE = WORK / "bundle"
USER, GUEST = 1000, 1001
MANAGER = "user.slice/user-1000.slice/user@1000.service"
PROFILE = """profile tight flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  signal,
  network,
  deny /secret r,
}
"""


def bundle(script: str, cgroups_path: str = "", owner: int = 0, **resources: Any) -> dict[str, Any]:
    """Make the one bundle there is into this, for that owner; the configuration, to be changed and written again."""
    config: dict[str, Any] = encode(rootless_config(owner, owner) if owner else default_config())
    config["root"]["readonly"] = False
    config["process"].update(args=["sh", "-c", script], terminal=False)
    config["linux"].setdefault("resources", {}).update(resources)
    if cgroups_path:
        config["linux"]["cgroupsPath"] = cgroups_path
    configure(config)
    for path in (BUNDLE, BUNDLE / "rootfs", *(BUNDLE / "rootfs").iterdir()):
        os.chown(path, owner, owner, follow_symlinks=False)
    return config


def configure(config: dict[str, Any]) -> None:
    (BUNDLE / "config.json").write_text(json.dumps(config))


def oci(*arguments: str, uid: int = 0, cgroup: Path | None = None, check: bool = True) -> str:
    """A command's output, in that cgroup, which no planner may stay in, and as that user."""
    environment = {**os.environ, **({"TESTBED_PLANNER": "off"} if cgroup else {})}

    def act() -> int:
        if cgroup:
            (cgroup / "cgroup.procs").write_text("0")
        if uid:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        os.chdir(BUNDLE)
        os.execvpe("testbed-runtime", ("testbed-runtime", "--root", f"{WORK}/state-{uid}", *arguments), environment)

    status, said = captured(act)
    assert not check or status == 0, f"{arguments}: {status}: {said}"
    return said if check else f"{status}: {said}"


def cgroup_of(name: str, uid: int = 0) -> str:
    pid = json.loads(oci("state", name, uid=uid))["pid"]
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


def shown(unit: str, *names: str, user: bool = False) -> dict[str, str]:
    """Properties of a unit as the manager has them."""
    command = ["systemctl", *(["--user", "--machine=user@"] if user else []), "show", "--property", ",".join(names)]
    said = subprocess.run([*command, unit], check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in said.splitlines())


def is_known(unit: str, user: bool = False) -> bool:
    return shown(unit, "LoadState", user=user)["LoadState"] != "not-found"


def read(directory: Path, *names: str) -> list[str]:
    return [(directory / name).read_text().strip() for name in names]


# --- root's containers -----------------------------------------------------------------------------------------


def the_host_is_what_it_should_be() -> None:
    assert Path("/run/systemd/system").is_dir() and (UNIFIED / "cgroup.controllers").exists()
    features = json.loads(oci("features"))["linux"]
    assert features["apparmor"] == {"enabled": True} and features["selinux"] == {"enabled": False}, features


_FILES = ("memory.max", "memory.high", "memory.low", "pids.max", "cpu.max", "cpu.weight", "cpuset.cpus")
_PROPERTIES = (
    *("Slice", "Delegate", "MemoryMax", "MemoryHigh", "MemoryLow", "TasksMax", "CPUQuotaPerSecUSec"),
    *("CPUQuotaPeriodUSec", "CPUWeight", "AllowedCPUs", "TimeoutStopUSec", "CollectMode"),
)


def a_container_is_a_scope() -> None:
    """With its limits, in the cgroup and in systemd's mind, from create to delete."""
    config = bundle(
        "sleep 100",
        "test-deep.slice:oci:a",
        memory={"limit": 64 << 20, "reservation": 16 << 20},
        cpu={"shares": 512, "quota": 30_000, "period": 60_000, "cpus": "0"},
        pids={"limit": 33},
        unified={"memory.high": str(48 << 20)},
    )
    own = "org.systemd.property."
    config["annotations"] = {f"{own}TimeoutStopUSec": "uint64 7000000", f"{own}CollectMode": "'inactive-or-failed'"}
    configure(config)
    oci("--systemd-cgroup", "run", "--detach", "a")
    directory = UNIFIED / "test.slice/test-deep.slice/oci-a.scope"
    assert cgroup_of("a") == str(directory.relative_to(UNIFIED))
    limits = [str(64 << 20), str(48 << 20), str(16 << 20), "33", "30000 60000", "20", "0"]
    assert read(directory, *_FILES) == limits
    told = shown("oci-a.scope", *_PROPERTIES)
    wanted = ["test-deep.slice", "yes", *limits[:4], "500ms", "60ms", "20", "0", "7s", "inactive-or-failed"]
    assert told == dict(zip(_PROPERTIES, wanted, strict=True)), told
    oci("update", "--memory", str(56 << 20), "--pids-limit", "21", "--cpu-quota", "15000", "--cpu-period", "60000", "a")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    changed = [str(56 << 20), str(48 << 20), str(16 << 20), "21", "15000 60000", "20", "0"]
    assert read(directory, *_FILES) == changed, "what systemd was not told it takes back"
    os.mknod(BUNDLE / "rootfs/disk", 0o060600, os.makedev(*map(int, Path("/sys/block/vda/dev").read_text().split(":"))))
    assert "Operation not permitted" in oci("exec", "a", "dd", "if=/disk", "of=/dev/null", "count=1", check=False)
    (BUNDLE / "rootfs/disk").unlink()
    assert shown("oci-a.scope", "MemoryMax", "TasksMax") == {"MemoryMax": str(56 << 20), "TasksMax": "21"}
    assert oci("exec", "a", "cat", "/proc/self/cgroup") == "0::/\n"
    oci("pause", "a")
    assert json.loads(oci("state", "a"))["status"] == "paused"
    oci("delete", "--force", "a")
    assert not directory.exists() and not is_known("oci-a.scope")
    runc = as_runc_has_it("oci-a.scope", *_PROPERTIES)
    assert runc == told, runc


def one_task_is_enough_in_a_scope() -> None:
    """systemd has to be told with the launcher in the scope, and to limit it nonetheless."""
    bundle("exec cat /proc/self/cgroup", "test-deep.slice:oci:a", pids={"limit": 1})
    assert oci("--systemd-cgroup", "run", "a") == "0::/\n"
    bundle("exec sleep 100", "test-deep.slice:oci:a", pids={"limit": 1})
    oci("--systemd-cgroup", "run", "--detach", "a")
    told = shown("oci-a.scope", "TasksMax")
    oci("delete", "--force", "a")
    assert told == {"TasksMax": "1"}, told


def as_runc_has_it(unit: str, *names: str) -> dict[str, str]:
    """The properties of the unit that runc makes of the bundle's container; Debian's crun tells systemd less."""
    config = json.loads((BUNDLE / "config.json").read_text())
    config["linux"]["resources"]["devices"] = [{"allow": False, "access": "rwm"}]  # it wants what may be left out
    configure(config)
    with tempfile.TemporaryFile("w+") as said:  # the container keeps it open
        done = subprocess.run(
            ["runc", "--systemd-cgroup", "run", "--detach", "a"], cwd=BUNDLE, stderr=said, stdout=said
        )
        said.seek(0)
        assert done.returncode == 0, said.read()
    found = shown(unit, *names)
    subprocess.run(["runc", "delete", "--force", "a"], check=True)
    return found


def systemd_stops_it_as_any_unit() -> None:
    bundle("trap 'exit 0' TERM; while :; do sleep 0.1; done")
    oci("--cgroup-manager", "systemd", "run", "--detach", "a")
    assert cgroup_of("a") == "system.slice/testbed-runtime-a.scope"
    subprocess.run(["systemctl", "stop", "testbed-runtime-a.scope"], check=True)
    until(lambda: json.loads(oci("state", "a"))["status"] == "stopped")
    oci("delete", "a")


def a_name_can_be_used_again() -> None:
    """After one that ran out of memory, which systemd holds for failed, and one that never started."""
    bundle("dd if=/dev/zero of=/dev/null bs=48M count=1; exit 3", memory={"limit": 32 << 20})
    for _ in range(2):
        assert oci("--systemd-cgroup", "run", "a", check=False).startswith("3: ")
    config = bundle("true")
    config["process"]["args"] = ["/nowhere"]
    configure(config)
    assert "/nowhere" in oci("--systemd-cgroup", "create", "a", check=False)
    assert not is_known("testbed-runtime-a.scope") and not (UNIFIED / "system.slice/testbed-runtime-a.scope").exists()
    config["linux"]["cgroupsPath"] = "/plain"
    configure(config)
    assert "slice:prefix:name" in oci("--systemd-cgroup", "create", "a", check=False)


def a_profile_confines() -> None:
    """The process, what is executed beside it, and one whose /proc is not the kernel's; unknown ones are named."""
    subprocess.run(["apparmor_parser", "--replace"], input=PROFILE, text=True, check=True)
    config = bundle("cat /proc/self/attr/apparmor/current; cat /secret; sleep 100")
    config["process"]["apparmorProfile"] = "tight"
    configure(config)
    (BUNDLE / "rootfs" / "secret").write_text("secret\n")
    oci("create", "a")
    oci("start", "a")
    pid = json.loads(oci("state", "a"))["pid"]
    until(lambda: Path(f"/proc/{pid}/attr/apparmor/current").read_text() == "tight (enforce)\n")
    assert "Permission denied" in oci("exec", "a", "cat", "/secret", check=False)
    assert oci("exec", "a", "cat", "/proc/self/attr/apparmor/current") == "tight (enforce)\n"
    oci("delete", "--force", "a")
    config["mounts"] = []
    config["linux"].update(maskedPaths=[], readonlyPaths=[])
    config["process"]["args"] = ["cat", "/secret"]
    attributes = BUNDLE / "rootfs/proc/self/attr/apparmor"
    attributes.mkdir(parents=True)
    (attributes / "exec").touch()
    configure(config)
    assert "Permission denied" in oci("run", "a", check=False)
    config["process"]["apparmorProfile"] = "nobody-knows"
    configure(config)
    said = oci("run", "a", check=False)
    assert "process.apparmorProfile: 'nobody-knows'" in said and "apparmor_parser" in said, said
    assert (attributes / "exec").read_text() == ""
    subprocess.run(["rm", "-r", BUNDLE / "rootfs/proc/self", BUNDLE / "rootfs/secret"], check=True)


def the_hosts_mounts_stay_as_they_are() -> None:
    """systemd makes / shared; tests/runtime/test_propagation.py has all the cases, and these are those that it matters
    for most."""

    def mounts() -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in lines if "/run/user/" not in line and "binfmt" not in line]

    before = mounts()
    assert [line for line in before if line.split()[4] == "/" and " shared:" in line], before
    for value, owner in (("slave", 0), ("private", 0), ("shared", 0), ("", 100000)):
        config = bundle("cat /proc/self/mountinfo")
        config["linux"]["rootfsPropagation"] = value or "rslave"
        if owner:
            ids = [{"containerID": 0, "hostID": owner, "size": 65536}]
            config["linux"].update(uidMappings=ids, gidMappings=ids)
            config["linux"]["namespaces"].append({"type": "user"})
        config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/sys")]
        config["mounts"].append({"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]})
        configure(config)
        assert " /sys/firmware " in oci("run", "a")
        assert mounts() == before, (value, owner, mounts())


# --- an unprivileged user's ----------------------------------------------------------------------------------------


def a_users_container_is_a_scope_of_its_manager() -> None:
    """Which nobody asked for: the user gives limits and no cgroupsPath."""
    bundle("sleep 100", owner=USER, memory={"limit": 32 << 20}, pids={"limit": 9})
    oci("run", "--detach", "a", uid=USER)
    directory = UNIFIED / MANAGER / "user.slice/testbed-runtime-a.scope"
    assert cgroup_of("a", USER) == str(directory.relative_to(UNIFIED))
    assert read(directory, "memory.max", "pids.max") == [str(32 << 20), "9"]
    oci("exec", "--detach", "a", "sleep", "99", uid=USER)
    assert len(read(directory, "cgroup.procs")[0].split()) == 2
    oci("update", "--memory", str(24 << 20), "a", uid=USER)
    assert shown("testbed-runtime-a.scope", "MemoryMax", user=True) == {"MemoryMax": str(24 << 20)}
    oci("pause", "a", uid=USER)
    oci("delete", "--force", "a", uid=USER)
    assert not directory.exists() and not is_known("testbed-runtime-a.scope", user=True)


def a_users_container_is_below_a_cgroup_of_its_own() -> None:
    """Of a user without a manager, to whom the administrator gave a cgroup."""
    bundle("sleep 100", owner=GUEST, memory={"limit": 32 << 20})
    given = UNIFIED / "given"
    (given / "shell").mkdir(parents=True)
    (given / "cgroup.subtree_control").write_text("+memory +pids")
    for directory in (given, given / "shell"):
        for path in (directory, *(directory / f"cgroup.{name}" for name in ("procs", "threads", "subtree_control"))):
            os.chown(path, GUEST, GUEST)
    oci("run", "--detach", "a", uid=GUEST, cgroup=given / "shell")
    assert cgroup_of("a", GUEST) == "given/testbed-runtime/a"
    assert read(given / "testbed-runtime/a", "memory.max") == [str(32 << 20)]
    oci("delete", "--force", "a", uid=GUEST)
    (given / "shell").rmdir()
    given.rmdir()


def a_user_without_either_is_told() -> None:
    bundle("true", owner=GUEST, memory={"limit": 32 << 20})
    said = oci("run", "a", uid=GUEST, check=False)
    assert said.startswith("5: ") and "no cgroup has been delegated" in said and "enable-linger" in said, said
    bundle("true", owner=GUEST)
    oci("run", "a", uid=GUEST)


# --- podman, whose default manager is systemd ------------------------------------------------------------------


def podman_with_its_default_manager() -> None:
    bundle("true")
    rootfs = str(BUNDLE / "rootfs")
    limits = ("--memory=64m", "--cpus=0.5", "--pids-limit=20")
    name = podman("run", "--detach", "--network=none", *limits, "--rootfs", rootfs, "sleep", "1000")
    scope, directory = f"libpod-{name}.scope", UNIFIED / f"machine.slice/libpod-{name}.scope"
    assert read(directory, "memory.max", "cpu.max", "pids.max") == [str(64 << 20), "50000 100000", "20"]
    told = shown(scope, "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec")
    assert told == {"MemoryMax": str(64 << 20), "TasksMax": "20", "CPUQuotaPerSecUSec": "500ms"}, told
    assert podman("exec", name, "cat", "/proc/self/cgroup") == "0::/"
    (stats,) = json.loads(podman("stats", "--no-stream", "--format=json", name))
    assert stats["pids"] == "1", stats
    podman("pause", name)
    assert podman("inspect", "--format={{.State.Status}}", name) == "paused"
    assert "frozen 1" in (directory / "cgroup.events").read_text()
    podman("unpause", name)
    assert "frozen 0" in (directory / "cgroup.events").read_text()
    podman("stop", "--time=1", name)  # a first process takes no TERM that it has no handler for
    assert podman("inspect", "--format={{.State.Status}} {{.State.ExitCode}}", name) == "exited 137"
    until(lambda: not directory.exists() and not is_known(scope))
    podman("start", name)
    assert read(directory, "memory.max") == [str(64 << 20)]
    podman("rm", "--force", "--time=0", name)
    assert not directory.exists() and not is_known(scope)


def podman_of_an_ordinary_user() -> None:
    bundle("true", owner=USER)
    command = ("--rootfs", str(BUNDLE / "rootfs"), "sleep", "1000")
    name = podman("run", "--detach", "--network=none", "--memory=64m", *command, uid=USER)
    directory = UNIFIED / MANAGER / f"user.slice/libpod-{name}.scope"
    assert read(directory, "memory.max") == [str(64 << 20)]
    assert podman("exec", name, "cat", "/proc/self/cgroup", uid=USER) == "0::/"
    mounts = [line.split() for line in podman("exec", name, "cat", "/proc/self/mountinfo", uid=USER).splitlines()]
    (options,) = [fields[5].split(",") for fields in mounts if fields[4] == "/dev/null"]
    assert {"nosuid", "noexec"} <= set(options), options
    podman("rm", "--force", "--time=0", name, uid=USER)
    assert not directory.exists()


def nothing_is_left() -> None:
    """Comes last."""
    said = subprocess.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "--type=scope"],
                          capture_output=True, text=True).stdout  # fmt: skip
    assert not [line for line in said.splitlines() if "oci-" in line or "libpod" in line or "testbed" in line], said
    for uid in (0, USER, GUEST):
        assert not list(WORK.glob(f"state-{uid}/[!@]*"))


CHECKS = (
    the_host_is_what_it_should_be,
    a_container_is_a_scope,
    one_task_is_enough_in_a_scope,
    systemd_stops_it_as_any_unit,
    a_name_can_be_used_again,
    a_profile_confines,
    the_hosts_mounts_stay_as_they_are,
    a_users_container_is_a_scope_of_its_manager,
    a_users_container_is_below_a_cgroup_of_its_own,
    a_user_without_either_is_told,
    podman_with_its_default_manager,
    podman_of_an_ordinary_user,
    *systemd_applications.CHECKS,
    *systemd_machines.CHECKS,
    *systemd_ladder.CHECKS,
    nothing_is_left,
)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("proc", "sys", "dev", "etc", "tmp", "run"):
        (BUNDLE / "rootfs" / name).mkdir(parents=True)
    subprocess.run(["cp", "-a", BUSYBOX / "bin", BUNDLE / "rootfs"], check=True)
    for uid in (0, USER, GUEST):
        (WORK / f"state-{uid}").mkdir(mode=0o700)
        os.chown(WORK / f"state-{uid}", uid, uid)
    with systemd_applications.in_memory():
        work_off(CHECKS)


if __name__ == "__main__":
    main()

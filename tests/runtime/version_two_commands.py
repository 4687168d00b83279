"""What is checked of the OCI command line on a host with cgroup v2 alone; see ``version_two_checks``."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from tests.runtime.version_two_containers import UNIFIED, disk_numbers, keyed
from tests.waiting import until

BUNDLE = Path("/tmp/bundle")
OCI_CGROUP = UNIFIED / "testbed-runtime"
INTERPRETER = Path("/usr/bin/python3")  # a link, which the client executes


def bundle(script: str, **resources: object) -> None:
    from runtime.config.decode import encode
    from runtime.config.default import default_config

    config = encode(default_config())
    config["root"]["readonly"] = False
    config["process"].update(args=["sh", "-c", script], terminal=False)
    config["linux"]["resources"].update(resources)
    (BUNDLE / "config.json").write_text(json.dumps(config))


def oci(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command, with what it says of errors as part of its output."""
    with tempfile.TemporaryFile("w+") as output:  # a container keeps it open
        done = subprocess.run(["testbed-runtime", *arguments], cwd=BUNDLE, stdout=output, stderr=output)
        output.seek(0)
        said = output.read()
    assert not check or done.returncode == 0, f"{arguments}: {done.returncode}: {said}"
    return subprocess.CompletedProcess(arguments, done.returncode, said, "")


def state() -> str:
    word: str = json.loads(oci("state", "a").stdout)["status"]
    return word


def run_gives_output_and_status_twice() -> None:
    """The first starts the planner, and the second is served by it."""
    bundle("cat /proc/self/cgroup; exit 7")
    times_s = []
    for _ in range(2):
        began = time.monotonic()
        done = subprocess.run(["testbed-runtime", "run", "a"], cwd=BUNDLE, capture_output=True, text=True)
        times_s.append(time.monotonic() - began)
        assert (done.returncode, done.stdout, done.stderr) == (7, "0::/\n", ""), done
    assert times_s[1] < times_s[0] / 3, times_s
    assert not OCI_CGROUP.exists()


def limits_of_a_configuration_are_set() -> None:
    wanted = {
        "memory": {"limit": 64 << 20, "reservation": 16 << 20},
        "cpu": {"shares": 2, "quota": 30_000, "period": 60_000, "cpus": "0"},
        "pids": {"limit": 33},
        "unified": {"memory.high": str(48 << 20), "cpu.max.burst": "10000"},
    }
    bundle("sleep 100", **wanted)
    oci("create", "a")
    directory = OCI_CGROUP / "a"
    files = {
        "memory.max": str(64 << 20),
        "memory.low": str(16 << 20),
        "memory.high": str(48 << 20),
        "cpu.max": "30000 60000",
        "cpu.weight": "1",
        "cpu.max.burst": "10000",
        "cpuset.cpus": "0",
        "cpuset.cpus.effective": "0",
        "pids.max": "33",
    }
    found = {name: (directory / name).read_text().strip() for name in files}
    oci("delete", "--force", "a")
    assert found == files


def a_life_by_the_command_line() -> None:
    bundle("i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.02; done")
    oci("create", "a")
    directory = OCI_CGROUP / "a"
    assert state() == "created" and json.loads(oci("list", "--format", "json").stdout)[0]["id"] == "a"
    oci("start", "a")
    assert state() == "running"
    assert oci("exec", "a", "cat", "/proc/self/cgroup").stdout == "0::/\n"
    oci("pause", "a")
    assert state() == "paused" and keyed(directory / "cgroup.events")["frozen"] == 1
    oci("resume", "a")
    assert state() == "running" and keyed(directory / "cgroup.events")["frozen"] == 0
    oci("update", "--memory", str(40 << 20), "--pids-limit", "21", "--cpu-quota", "50000", "--cpu-share", "512", "a")
    read = {
        name: (directory / name).read_text().strip() for name in ("memory.max", "pids.max", "cpu.max", "cpu.weight")
    }
    assert read == {"memory.max": str(40 << 20), "pids.max": "21", "cpu.max": "50000 100000", "cpu.weight": "20"}, read
    stats = json.loads(oci("events", "--stats", "a").stdout)["data"]
    assert stats["memory"]["usage"]["limit"] == 40 << 20 and 0 < stats["memory"]["usage"]["usage"] < 40 << 20, stats
    assert stats["pids"]["limit"] == 21 and stats["pids"]["current"] >= 1, stats
    assert stats["cpu"]["usage"]["total"] > 0 and stats["cpu"]["throttling"]["periods"] >= 0, stats
    assert "ioServiceBytesRecursive" in stats["blkio"], stats
    pids = json.loads(oci("ps", "--format", "json", "a").stdout)
    assert pids and {int(pid) for pid in (directory / "cgroup.procs").read_text().split()} & set(pids)
    oci("kill", "a", "KILL")
    until(lambda: state() == "stopped", 10)
    oci("delete", "a")
    assert not OCI_CGROUP.exists()
    assert "does not exist" in oci("state", "a", check=False).stdout


def with_a_planner_a_life_needs_no_interpreter() -> None:
    """Here there is none that could be started."""
    bundle("echo started > /said; sleep 100")
    directory = OCI_CGROUP / "a"
    oci("list")
    hidden = INTERPRETER.rename(INTERPRETER.with_name("hidden"))
    try:
        by_the_planner("create", "a")
        assert json.loads(by_the_planner("state", "a"))["status"] == "created"
        by_the_planner("start", "a")
        until((BUNDLE / "rootfs" / "said").exists, 10)
        assert json.loads(by_the_planner("state", "a"))["status"] == "running"
        by_the_planner("kill", "a", "KILL")
        until(lambda: json.loads(by_the_planner("state", "a"))["status"] == "stopped", 10)
        by_the_planner("delete", "a")
    finally:
        hidden.rename(INTERPRETER)
    assert not directory.exists()
    assert "does not exist" in oci("state", "a", check=False).stdout


def by_the_planner(*arguments: str) -> str:
    said: str = oci(*arguments).stdout
    return said


def kill_all_reaches_every_process() -> None:
    bundle("for i in 1 2 3 4; do (setsid sleep 100 &); done; sleep 100")
    oci("run", "--detach", "a")
    directory = OCI_CGROUP / "a"
    until(lambda: len((directory / "cgroup.procs").read_text().split()) == 5, 10)
    oci("kill", "--all", "a", "KILL")
    until(lambda: keyed(directory / "cgroup.events")["populated"] == 0, 10)
    oci("delete", "a")
    assert not OCI_CGROUP.exists()


def a_paused_container_is_deleted() -> None:
    bundle("sleep 100")
    oci("run", "--detach", "a")
    oci("pause", "a")
    oci("delete", "--force", "a")
    assert not OCI_CGROUP.exists()


def out_of_memory_is_counted() -> None:
    bundle("dd if=/dev/zero of=/dev/null bs=48M count=1; sleep 100", memory={"limit": 32 << 20})
    oci("run", "--detach", "a")
    until(lambda: keyed(OCI_CGROUP / "a" / "memory.events")["oom_kill"] > 0, 30)
    failures = json.loads(oci("events", "--stats", "a").stdout)["data"]["memory"]["usage"]["failcnt"]
    oci("delete", "--force", "a")
    assert failures > 0


def devices_of_a_configuration_are_held_to() -> None:
    major, minor = disk_numbers()
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "b", "major": major, "minor": minor, "access": "r"},
    ]
    bundle("cat /dev/null; head -c 1 /disk > /dev/null && echo read; echo a > /disk", devices=rules)
    node = BUNDLE / "rootfs" / "disk"
    os.mknod(node, 0o060666, os.makedev(major, minor))
    try:
        said = oci("run", "a", check=False).stdout.splitlines()
    finally:
        node.unlink()
    assert said[0] == "read" and "Operation not permitted" in said[1], said


def cgroups_of_a_containers_own_go_with_it() -> None:
    """A container that may write its cgroups, as one with an init of its own does, and has made some."""
    own = "mkdir /sys/fs/cgroup/own /sys/fs/cgroup/own/deeper && echo 0 > /sys/fs/cgroup/own/deeper/cgroup.procs"
    bundle(f"{own} && echo +pids > /sys/fs/cgroup/cgroup.subtree_control && exec sleep 100")
    config = json.loads((BUNDLE / "config.json").read_text())
    for mount in config["mounts"]:
        mount["options"] = [
            option for option in mount.get("options", []) if option != "ro" or mount["type"] != "cgroup"
        ]
    (BUNDLE / "config.json").write_text(json.dumps(config))
    oci("run", "--detach", "a")
    directory = OCI_CGROUP / "a"
    until(lambda: "pids" in (directory / "cgroup.subtree_control").read_text(), 10)
    assert len(json.loads(oci("ps", "--format", "json", "a").stdout)) == 1
    assert oci("exec", "a", "cat", "/proc/self/cgroup").stdout.startswith("0::/")
    oci("pause", "a")
    assert state() == "paused"
    oci("resume", "a")
    oci("kill", "--all", "a", "KILL")
    until(lambda: keyed(directory / "cgroup.events")["populated"] == 0, 10)
    oci("delete", "a")
    assert not OCI_CGROUP.exists()


def one_task_is_enough() -> None:
    bundle("exec cat /proc/self/cgroup", pids={"limit": 1})
    assert oci("run", "a").stdout == "0::/\n"
    bundle("exec sleep 100", pids={"limit": 2})
    oci("run", "--detach", "a")
    assert oci("exec", "a", "cat", "/proc/self/cgroup").stdout == "0::/\n"
    oci("delete", "--force", "a")


def what_an_update_does_not_say_stays() -> None:
    bundle("sleep 100", cpu={"quota": 30_000, "period": 60_000}, memory={"limit": 64 << 20})
    oci("run", "--detach", "a")
    directory = OCI_CGROUP / "a"
    swap = directory / "memory.swap.max"

    def read(name: str) -> str:
        return (directory / name).read_text().strip()

    oci("update", "--cpu-quota", "15000", "a")
    assert read("cpu.max") == "15000 60000"
    oci("update", "--cpu-period", "50000", "a")
    assert read("cpu.max") == "15000 50000"
    if swap.exists():
        oci("update", "--memory-swap", "96m", "a")
        assert (read("memory.max"), read("memory.swap.max")) == (str(64 << 20), str(32 << 20))
    zeros = {"memory": {"limit": 0, "swap": 0, "reservation": 0}, "cpu": {"shares": 0, "quota": 0, "cpus": ""}}
    (BUNDLE / "resources.json").write_text(json.dumps(zeros))
    oci("update", "--resources", "resources.json", "a")
    assert (read("memory.max"), read("cpu.max")) == (str(64 << 20), "15000 50000")
    (BUNDLE / "resources.json").write_text(json.dumps({"memory": {"limit": 4096, "checkBeforeUpdate": True}}))
    refused = oci("update", "--resources", "resources.json", "a", check=False).stdout
    assert "memory.limit 4096 is below what is in use, " in refused, refused
    oci("update", "--memory", "-1", "a")
    assert read("memory.max") == "max" and (not swap.exists() or read("memory.swap.max") == "max")
    oci("delete", "--force", "a")


def weights_of_block_devices_need_no_bfq() -> None:
    bundle("sleep 100", blockIO={"weight": 505})
    done = oci("create", "a", check=False)
    directory = OCI_CGROUP / "a"
    weights = {path.name: path.read_text().split("\n")[0] for path in directory.glob("io*.weight")}
    if not weights:
        assert done.returncode and "io.weight" in done.stdout, done.stdout
        print("this kernel has no weights of block devices")
        return
    oci("delete", "--force", "a")
    assert done.returncode == 0 and weights in ({"io.weight": "default 5000"}, {"io.bfq.weight": "default 505"}), (
        weights
    )


def a_process_goes_into_a_cgroup_below() -> None:
    bundle("sleep 100")
    oci("run", "--detach", "a")
    (OCI_CGROUP / "a" / "sub").mkdir()
    assert oci("exec", "--cgroup", "sub", "a", "cat", "/proc/self/cgroup").stdout == "0::/sub\n"
    oci("pause", "a")
    oci("kill", "a", "KILL")
    until(lambda: state() == "stopped", 10)
    oci("delete", "a")
    assert not OCI_CGROUP.exists()


CHECKS = (
    run_gives_output_and_status_twice,
    limits_of_a_configuration_are_set,
    a_life_by_the_command_line,
    with_a_planner_a_life_needs_no_interpreter,
    kill_all_reaches_every_process,
    a_paused_container_is_deleted,
    out_of_memory_is_counted,
    devices_of_a_configuration_are_held_to,
    cgroups_of_a_containers_own_go_with_it,
    one_task_is_enough,
    what_an_update_does_not_say_stays,
    weights_of_block_devices_need_no_bfq,
    a_process_goes_into_a_cgroup_below,
)

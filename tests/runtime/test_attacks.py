"""Known ways out of containers, each tried for real: none leads anywhere."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from runtime.config.decode import encode
from runtime.launcher import STATIC_BINARY, Launch
from runtime.plan import steps as s
from runtime.seccomp.default import default_profile
from tests.runtime.command_line import Runtime

pytestmark = pytest.mark.root


def test_the_runtime_cannot_be_overwritten_through_its_own_exe(oci: Runtime) -> None:
    """CVE-2019-5736: the image's program is /proc/self/exe, so the launcher would be executed again inside."""
    before = STATIC_BINARY.read_bytes()
    attack = oci.bundle / "rootfs" / "attack"
    attack.write_text("#!/proc/self/exe\n")
    attack.chmod(0o755)
    config = oci.config()
    config["process"]["args"] = ["/attack"]
    oci.configure(config)
    assert oci("run", "a", check=False).returncode != 0
    assert STATIC_BINARY.read_bytes() == before


def test_a_runtime_that_joins_cannot_be_overwritten(oci: Runtime) -> None:
    """CVE-2019-5736 as it was carried out: what is seen of the runtime while it joins is held open, and written to when
    nothing executes it any more."""
    before = STATIC_BINARY.read_bytes()
    oci.shell(
        """while :; do for p in /proc/[0-9]*; do
        case "$(readlink $p/exe)" in "" | /bin/busybox) continue ;; esac
        (exec 3<$p/exe && for i in 1 2 3 4 5 6 7 8; do sleep 0.2; echo x >/proc/self/fd/3 && echo written; done) &
        done; done 2>&1""",
        capabilities={kind: ["CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE"] for kind in ("bounding", "effective", "permitted")},
    )
    with (oci.bundle / "said").open("wb") as said, Path(os.devnull).open("rb") as null:
        command = oci.command("run", "-d", "a")
        subprocess.run(command, cwd=oci.bundle, stdin=null, stdout=said, stderr=said, check=True)
    for _ in range(12):
        oci("exec", "a", "true")
    time.sleep(1.8)  # as long as the attack tries
    oci("delete", "--force", "a")
    assert "written" not in (oci.bundle / "said").read_text().split()
    assert STATIC_BINARY.read_bytes() == before


def test_what_runs_before_the_workload_is_a_sealed_copy(oci: Runtime) -> None:
    oci("create", "a")
    exe = f"/proc/{oci.state('a')['pid']}/exe"
    assert "memfd:" in os.readlink(exe)
    with pytest.raises(OSError):
        os.open(exe, os.O_WRONLY)
    oci("delete", "--force", "a")


@pytest.mark.parametrize("number", [0, 3, 7, 8, 9, 100, 101, 102, 103])
def test_a_working_directory_behind_a_leaked_descriptor(oci: Runtime, number: int) -> None:
    """CVE-2024-21626: the working directory is a descriptor that the runtime, or who called it, holds open."""
    host = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    config = oci.config()
    config["process"]["cwd"] = f"/proc/self/fd/{number or host}"
    oci.configure(config)
    oci.shell("pwd; ls ../../../../../../var/lib/dpkg")
    done = oci("run", "a", check=False, pass_fds=(host,))
    os.close(host)
    assert "status" not in done.stdout
    assert number or "Invalid cross-device link" in done.stderr


def test_no_descriptor_of_ours_is_left_inside(oci: Runtime) -> None:
    host = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    oci.shell("ls /proc/self/fd")
    found = oci("run", "a", pass_fds=(host,)).stdout.split()
    os.close(host)
    assert {int(number) for number in found} <= {0, 1, 2, 3}  # 3: the directory that ls reads


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "data"])
def test_mounts_over_links_stay_inside(oci: Runtime, tmp_path: Path, name: str) -> None:
    """The image has a link to the host's paths where mounts, devices and files are made: one, as the first that fails
    would end the attack."""
    victim = tmp_path / "victim"
    victim.mkdir()
    rootfs = oci.bundle / "rootfs"
    if (rootfs / name).is_dir():
        shutil.rmtree(rootfs / name)
    (rootfs / name).symlink_to("../" * 20 + str(victim).lstrip("/"))
    config = oci.config()
    config["mounts"].append({"destination": "/data/x", "type": "tmpfs", "source": "tmpfs"})
    oci.configure(config)
    oci("run", "a", check=False)
    assert not list(victim.iterdir())


def test_a_link_that_is_swapped_while_mounts_are_made(oci: Runtime, tmp_path: Path) -> None:
    """CVE-2021-30465: another process swaps a directory for a link to the host, again and again."""
    victim = tmp_path / "victim"
    victim.mkdir()
    rootfs = oci.bundle / "rootfs"
    (rootfs / "swap").mkdir()
    (rootfs / "real").mkdir()
    (rootfs / "link").symlink_to("../" * 20 + str(victim).lstrip("/"))
    config = oci.config()
    for number in range(20):
        config["mounts"].append({"destination": f"/swap/{number}", "type": "tmpfs", "source": "tmpfs"})
    oci.configure(config)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for source in ("link", "real"):
                try:
                    (rootfs / "swap").rename(rootfs / "aside")
                    (rootfs / source).rename(rootfs / "swap")
                    (rootfs / "swap").rename(rootfs / source)
                    (rootfs / "aside").rename(rootfs / "swap")
                except OSError:
                    continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(10):
            oci("run", "a", check=False)
    finally:
        stop.set()
        thread.join()
    assert not list(victim.iterdir())
    assert str(victim) not in Path("/proc/self/mountinfo").read_text()


def test_a_masked_path_that_is_a_link_is_masked_where_it_leads(oci: Runtime) -> None:
    (oci.bundle / "rootfs" / "link").symlink_to("/proc/timer_list")
    config = oci.config()
    config["linux"]["maskedPaths"] = ["/link"]
    oci.configure(config)
    oci.shell("cat /proc/timer_list | wc -c")
    assert oci("run", "a").stdout == "0\n"


@pytest.mark.parametrize(
    ("source", "refusal"),
    [("/dev/zero", "mask /proc/timer_list: No such device"), ("evil", "mknod dev/null c 1:3 0666: File exists")],
)
def test_masking_with_something_else_than_the_null_device_is_refused(oci: Runtime, source: str, refusal: str) -> None:
    """CVE-2025-31133: a mount puts another device, or a file of the attacker's, in the place of /dev/null."""
    (oci.bundle / "evil").write_text("evil")
    config = oci.config()
    config["mounts"].append({"destination": "/dev/null", "type": "bind", "source": source, "options": ["bind"]})
    config["linux"]["maskedPaths"] = ["/proc/timer_list"]
    oci.configure(config)
    done = oci("run", "a", check=False)
    assert done.returncode == 1 and refusal in done.stderr


@pytest.mark.parametrize("own_users", [False, True])
def test_a_process_that_joins_cannot_be_looked_into(oci: Runtime, own_users: bool) -> None:
    """Before it executes, an exec's process is in the pid namespace: it may not be traced, nor have its files read,
    not by the root of a user namespace either, who may trace what is his own. The kernel sees to most of it by itself;
    what the launcher adds is tested next."""
    names = ["CAP_DAC_OVERRIDE"]
    if own_users:
        config = oci.config()
        config["linux"]["namespaces"].append({"type": "user"})
        for kind in ("uidMappings", "gidMappings"):
            config["linux"][kind] = [{"containerID": 0, "hostID": 200_000, "size": 65_536}]
        oci.configure(config)
        names = [*config["process"]["capabilities"]["bounding"], "CAP_SYS_PTRACE"]
    oci.shell(
        """while :; do for p in /proc/[0-9]*; do
        case "$(readlink $p/exe)" in "" | /bin/busybox) ;; *) echo seen ;; esac
        done; done 2>/dev/null""",
        capabilities={kind: names for kind in ("bounding", "effective", "permitted")},
    )
    with (oci.bundle / "said").open("wb") as said, Path(os.devnull).open("rb") as null:
        command = oci.command("run", "-d", "a")
        subprocess.run(command, cwd=oci.bundle, stdin=null, stdout=said, stderr=said, check=True)
    for _ in range(10):
        oci("exec", "a", "true")
    oci("delete", "--force", "a")
    assert "seen" not in (oci.bundle / "said").read_text()


@pytest.mark.parametrize("hidden", [True, False])
def test_the_launcher_is_undumpable_while_it_makes_a_container(hidden: bool) -> None:
    """To a process of the same user that has as few capabilities; it is this step that hides it."""
    first = [s.Capabilities(0, 0), *([s.SetNonDumpable()] if hidden else [])]
    plan = s.Plan((*first, s.Sync(1), s.Exec(("/bin/true",))))
    with Path(os.devnull).open("r+b") as null, Launch(plan, {fd: null.fileno() for fd in range(3)}) as launch:
        assert launch.next() is not None
        pid = launch.known_pid()
        look = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "readlink", f"/proc/{pid}/exe"]
        found = subprocess.run(look, capture_output=True, text=True).stdout
        assert found == "" if hidden else "testbed-launcher" in found
        launch.go()
        assert launch.next() is None
        os.waitpid(pid, 0)


def test_device_nodes_of_the_host_cannot_be_opened(oci: Runtime) -> None:
    names = ["CAP_MKNOD", "CAP_SYS_ADMIN"]
    oci.shell(
        "mknod /disk b $(sed 's/:/ /' /sys/dev/block/$(ls /sys/dev/block | head -1)/dev); "
        "head -c1 /disk >/dev/null 2>&1 || echo no",
        capabilities={kind: names for kind in ("bounding", "effective", "permitted")},
    )
    assert "no" in oci("run", "a").stdout


def compiled(source: str, program: Path) -> None:
    """An attacker's own program, as it would come with an image."""
    command = ["gcc", "-static", "-w", "-D_GNU_SOURCE", "-x", "c", "-o", str(program), "-"]
    subprocess.run(command, input=source, text=True, check=True)


# busybox would not do: where it has a set-user-ID bit, it gives the rights away again by itself.
EFFECTIVE = """
#include <stdio.h>
#include <string.h>
int main(void) {
  char line[256];
  FILE *status = fopen("/proc/self/status", "r");
  while (fgets(line, sizeof line, status))
    if (!strncmp(line, "CapEff:", 7)) fputs(line, stdout);
  return 0;
}
"""


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_no_capability_is_gained_by_executing_set_user_id_files(oci: Runtime, no_new_privileges: bool) -> None:
    """None at all by default; where the configuration lets such files work, no more than the bounding set has."""
    program = oci.bundle / "rootfs" / "effective"
    compiled(EFFECTIVE, program)
    program.chmod(0o4755)
    names = ["CAP_NET_ADMIN", "CAP_KILL"]
    sets = {"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": names}
    config = oci.config()
    config["process"]["noNewPrivileges"] = no_new_privileges
    oci.configure(config)
    oci.shell("/effective", user={"uid": 1000, "gid": 1000}, capabilities=sets)
    allowed = 0 if no_new_privileges else 1 << 12 | 1 << 5
    assert oci("run", "a").stdout.split() == ["CapEff:", f"{allowed:016x}"]


def test_ambient_capabilities_are_those_asked_for_and_no_more(oci: Runtime) -> None:
    names = ["CAP_KILL"]
    sets = {kind: names for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")}
    oci.shell("grep -E 'CapEff|CapAmb' /proc/self/status", user={"uid": 1000, "gid": 1000}, capabilities=sets)
    assert oci("run", "a").stdout.split() == ["CapEff:", f"{1 << 5:016x}", "CapAmb:", f"{1 << 5:016x}"]


def test_a_fork_bomb_stops_at_the_limit(oci: Runtime) -> None:
    config = oci.config()
    config["linux"]["resources"]["pids"] = {"limit": 20}
    oci.configure(config)
    oci.shell("for i in $(seq 100); do sleep 5 & done 2>/dev/null; for p in /proc/[0-9]*; do echo $p; done")
    found = oci("run", "a", check=False).stdout.split()
    assert len(found) <= 20


def test_a_memory_bomb_dies_alone(oci: Runtime) -> None:
    config = oci.config()
    config["linux"]["resources"]["memory"] = {"limit": 16 << 20}
    oci.configure(config)
    oci.shell("dd if=/dev/zero of=/dev/null bs=256M count=1 2>/dev/null; echo status $?")
    assert oci("run", "a").stdout == "status 137\n"


def test_a_container_id_cannot_lead_elsewhere(oci: Runtime) -> None:
    for name in ("../escape", "..", "/etc"):
        assert "not a name" in oci("create", name, check=False).stderr
    assert not (oci.root.parent / "escape").exists()


def test_two_operations_at_once_are_one_after_the_other(oci: Runtime) -> None:
    oci.shell("sleep 100")
    oci("create", "a")
    processes = [
        subprocess.Popen(oci.command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for arguments in (("start", "a"), ("start", "a"), ("delete", "--force", "a"), ("delete", "--force", "a"))
    ]
    for process in processes:
        assert process.wait(30) in (0, 1)
    oci("delete", "--force", "a")
    assert json.loads(oci("list", "--format", "json").stdout) == []


CALLS = """
#include <errno.h>
#include <linux/bpf.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
#define TRY(name, call) printf("%s %d\\n", name, (call) < 0 ? errno : 0)
int main(void) {
  setbuf(stdout, NULL);
  union bpf_attr attribute = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
  TRY("getpid", syscall(SYS_getpid));
  TRY("keyctl", syscall(SYS_keyctl, 0, -3, 1));
  TRY("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3));
  TRY("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &attribute, sizeof attribute));
  TRY("userfaultfd", syscall(SYS_userfaultfd, 0));
  long child = syscall(SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0);
  if (child == 0) _exit(0);
  TRY("clone", child);
  TRY("clone3", syscall(SYS_clone3, &attribute, 64));
  TRY("mount", mount("none", "/etc", "tmpfs", 0, 0));
  TRY("setns", syscall(SYS_setns, 0, 0));
  TRY("open_by_handle_at", syscall(SYS_open_by_handle_at, 0, 0, 0));
  TRY("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
  TRY("init_module", syscall(SYS_init_module, 0, 0, 0));
  TRY("ptrace", syscall(SYS_ptrace, 16, 1, 0, 0));
  TRY("perf_event_open", syscall(SYS_perf_event_open, 0, 0, 0, 0, 0));
  TRY("unshare", unshare(CLONE_NEWUSER));  // last: after it much is refused to whom it let in
  return 0;
}
"""


# With these the kernel would let in whoever calls, so that it is the filter that does not.
KEYS = ["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_BOOT", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]


def test_doors_into_the_kernel_are_shut_by_the_default_seccomp_profile(oci: Runtime) -> None:
    """From inside a container of the command line, by a program of an attacker's own, whose capabilities would open
    them: without the filter next to none answers as with it."""
    compiled(CALLS, oci.bundle / "rootfs" / "calls")
    config = oci.config()
    names = config["process"]["capabilities"]["bounding"]
    oci.shell("/calls", capabilities={kind: [*names, *KEYS] for kind in ("bounding", "effective", "permitted")})
    config = oci.config()
    config["linux"].pop("seccomp", None)
    oci.configure(config)
    open_doors = dict(line.split() for line in oci("run", "a").stdout.splitlines())
    config["linux"]["seccomp"] = encode(default_profile(tuple(names)))
    oci.configure(config)
    found = dict(line.split() for line in oci("run", "a").stdout.splitlines())
    assert found.pop("getpid") == "0" and len(found) == 14
    alike = {name for name, answer in found.items() if open_doors[name] == answer}
    assert alike <= {"ptrace"}, open_doors
    assert found.pop("clone3") == str(errno.ENOSYS)  # so that C libraries take clone, whose flags a filter can see
    ptrace = found.pop("ptrace")
    assert ptrace in (str(errno.EPERM), str(errno.ESRCH)), "its own container's processes it may trace"
    assert set(found.values()) == {str(errno.EPERM)}, found

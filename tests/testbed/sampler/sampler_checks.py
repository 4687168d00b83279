"""What is checked of the sampler on a host with cgroup v2 alone. It runs inside a guest, as PID 1, not under pytest;
test_sampler_guest.py reads what it prints."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.cgroups import Cgroup
from testbed.sampler.plan import Target, plan_sampling
from testbed.sampler.records import summarise_usage
from testbed.sampler.sampler import Sampler, Sampling
from tests.runtime.guest_checks import be_init, work_off

MIB = 1 << 20
HOLD = "held = bytearray(b'x') * (24 << 20); print('ready', flush=True)\n"
SPIN = HOLD + "while True: pass\n"
SLEEP = HOLD + "import time; time.sleep(1000)\n"


@contextmanager
def running(program: str, name: str, *, limited: bool = False) -> Iterator[Cgroup]:
    """A process that has what it holds, in a cgroup; ``limited``: that may use a tenth of a processor."""
    cgroup = Cgroup(f"testbed/{name}")
    cgroup.make(delegate=False)  # a cgroup that passes controllers on has no processes
    directory = cgroup.directories()[0]

    def join() -> None:
        (directory / "cgroup.procs").write_text("0")

    command = ["/usr/bin/python3", "-S", "-c", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=join)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        if limited:
            cgroup.file("cpu", "", "cpu.max").write_text("10000 100000")
        yield cgroup
    finally:
        process.kill()
        process.wait()
        cgroup.remove()


def sample(cgroup: Cgroup, seconds: float = 2.5) -> Sampling:
    with Sampler({"web": Target(cgroup)}) as sampler:
        time.sleep(seconds)
    print(f"sampler: {sampler.sampling.account}", flush=True)
    return sampler.sampling


def one_file_has_time_and_throttling() -> None:
    with running(SPIN, "spinning", limited=True) as cgroup:
        sampling = sample(cgroup)
    usage = summarise_usage(sampling.rows, "web")
    assert 0.05 < usage.cpu_s < 1.5, usage
    assert usage.samples >= 10 and usage.throttling.periods >= 10, usage
    assert usage.throttling.throttled > usage.throttling.periods / 2 and usage.throttling.throttled_ns > 0.5e9, usage
    assert sampling.lost == frozenset()


def memory_is_charged_and_shared() -> None:
    with running(SLEEP, "sleeping") as cgroup:
        usage = summarise_usage(sample(cgroup).rows, "web")
    assert 24 * MIB < usage.cgroup_bytes < 60 * MIB and 24 * MIB < usage.pss_bytes < 60 * MIB, usage


def what_the_kernel_tells_of_pressure_is_sampled_and_what_it_does_not_is_said() -> None:
    with running(SPIN, "waiting", limited=True) as cgroup:
        has_pressure = (cgroup.directories()[0] / "cpu.pressure").exists()
        sampling = sample(cgroup)
    told = [row.values["cpu_some_us"] for row in sampling.rows if row.name == "web" and "cpu_some_us" in row.values]
    if has_pressure and not sampling.unread:
        assert told[-1] > 0.3e6, told
    else:
        assert any("pressure" in what for what in sampling.unread) and not told, sampling.unread


def kinds_of_io(cgroup: Cgroup) -> list[str]:
    plan = plan_sampling({"web": Target(cgroup)}, cgroup.hierarchies)
    return [source.kind for group in plan if group.name == "io" for source in group.sources]


def io_is_that_of_the_cgroup_where_it_is_counted_and_else_of_its_processes() -> None:
    with running(SLEEP, "reading") as cgroup:
        assert kinds_of_io(cgroup) == ["each io"]
        by_process = sample(cgroup)
        (cgroup.directories()[0].parent / "cgroup.subtree_control").write_text("+io")
        assert kinds_of_io(cgroup) == ["keys"]
        by_cgroup = sample(cgroup)
    for sampling in (by_process, by_cgroup):
        assert any("read_bytes" in row.values for row in sampling.rows if row.name == "web"), sampling.unread


def a_cgroup_that_goes_is_lost() -> None:
    with running(SLEEP, "going") as cgroup:
        sampler = Sampler({"web": Target(cgroup)})
    with sampler:
        time.sleep(0.5)
    assert sampler.sampling.lost == {"web"} and sampler.sampling.unread == (), sampler.sampling


CHECKS = (
    one_file_has_time_and_throttling,
    memory_is_charged_and_shared,
    what_the_kernel_tells_of_pressure_is_sampled_and_what_it_does_not_is_said,
    io_is_that_of_the_cgroup_where_it_is_counted_and_else_of_its_processes,
    a_cgroup_that_goes_is_lost,
)

if __name__ == "__main__":
    be_init(lambda: work_off(CHECKS))

"""The scenarios beside clickme: all can be built as far as that can be told without building, and two are, and run.

The rest, which need large images, are built and measured by benchmarks/scenarios.py.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtime import container
from runtime.builder import dockerfile
from runtime.builder.build import build
from runtime.builder.context import Context
from runtime.home import store_root
from runtime.images.model import Image
from runtime.images.process import image_process
from runtime.images.store import Store
from runtime.spec import Spec
from testbed.measures.work import parse_figures
from testbed.scenario.model import list_scenarios, load

SCENARIOS = Path(__file__).parents[2] / "scenarios"
ROOMS = ("db", "disk", "hpc", "idle", "kv", "net", "static")


def image(scenario: str, service: str) -> Image:
    folder = SCENARIOS / scenario / service
    return build(
        Store(store_root() / "images"),
        context=folder,
        dockerfile=folder / "Dockerfile",
        reference=f"{scenario}/{service}",
        progress=print,
    )


def run(images: tuple[Image, ...], script: str, hosts: tuple[tuple[str, str], ...], parent: str, log: Path) -> bytes:
    """Run a script in a container that has the layers of all the images and its own loopback; what it wrote."""
    process = image_process(images[0], entrypoint=("sh", "-c", script), environment={})
    layers = dict.fromkeys(str(layer.path) for one in images for layer in one.layers)
    with log.open("wb") as file:
        spec = Spec(process, tuple(layers), "room", hosts=hosts)
        assert container.run(spec, name=f"{parent}/room", log=file.fileno()) == 0, log.read_text()
    return log.read_bytes()


def test_the_list_is_complete() -> None:
    assert set(list_scenarios(SCENARIOS)) == {"clickme", *ROOMS}


@pytest.mark.parametrize("name", ROOMS)
def test_every_dockerfile_can_be_planned(name: str) -> None:
    """Its instructions are of those that the builder knows, what it copies is there, and it does not run as root."""
    for service in load(name, SCENARIOS).services:
        assert service.build is not None and service.build.dockerfile is not None
        file = dockerfile.read(service.build.dockerfile, service.build.context)
        first, *rest = file.instructions
        assert (first.name, first.words) == ("FROM", ("testbed/base",))
        context = Context.at(service.build.context, service.build.dockerfile)
        for instruction in rest:
            if instruction.name == "COPY":
                assert all(list(context.sources(word)) for word in instruction.words[:-1])
        names = [instruction.name for instruction in rest]
        assert names.count("CMD") == 1 and "EXPOSE" in names
        assert [one.words[0] for one in rest if one.name == "USER"][-1] not in ("root", "0")


@pytest.mark.root
@pytest.mark.network
def test_idle_answers_a_line(cgroup_parent: str, tmp_path: Path) -> None:
    built = image("idle", "server")
    script = "busybox httpd -p 8080 -h /srv/www && busybox wget -q -O - http://127.0.0.1:8080/"
    assert run((built,), script, (), cgroup_parent, tmp_path / "log") == b"ok\n"


@pytest.mark.root
@pytest.mark.network
def test_work_answers_all_its_figures(cgroup_parent: str, tmp_path: Path) -> None:
    """By the way that a measurement takes: the server executes the script, and answers what that writes."""
    client, redis = image("kv", "client"), image("kv", "redis")
    work = load("kv", SCENARIOS).quick.work
    assert work is not None
    script = (
        "redis-server --save '' --appendonly no > /dev/null & busybox httpd -p 8080 -h /srv/www"
        " && until redis-cli ping > /dev/null 2>&1; do sleep 0.1; done"
        f" && busybox wget -q -O - 'http://127.0.0.1:8080{work.path}'; redis-cli shutdown nosave"
    )
    body = run((client, redis), script, (("redis", "127.0.0.1"),), cgroup_parent, tmp_path / "log")
    figures = {metric.metric: metric.value for metric in parse_figures(work, body)}
    assert set(figures) == {name for name, _ in work.figures}
    assert figures["get_rate"] > 100
    assert 0 < figures["get_p50"] <= figures["get_p99"] < 5


# What fio 3.33 writes of a job, without what is not read. It has all parts, also of the direction that there was not.
FIO = """
{ "jobs" : [ {
      "jobname" : "a job",
      "job options" : {
        "rw" : "randwrite"
      },
      "read" : {
        "bw" : 4000,
        "iops" : 1000.500000,
        "clat_ns" : {
          "mean" : 70000.000000,
          "percentile" : {
            "50.000000" : 60160,
            "99.000000" : 136192
          }
        },
        "lat_ns" : {
          "mean" : 72345.500000,
          "N" : 0
        },
        "bw_mean" : 1.0
      },
      "write" : {
        "bw" : 762977,
        "iops" : 190744.255744,
        "clat_ns" : {
          "mean" : 4326.260686,
          "percentile" : {
            "50.000000" : 1256,
            "99.000000" : 2096
          }
        },
        "lat_ns" : {
          "mean" : 4424.519695,
          "N" : 190935
        }
      },
      "trim" : {
        "bw" : 0,
        "iops" : 0.000000,
        "lat_ns" : {
          "mean" : 0.000000
        }
      },
      "sync" : {
        "lat_ns" : {
          "mean" : 0.000000
        }
      }
} ] }
"""


def test_disk_reads_times_finer_than_microseconds(tmp_path: Path) -> None:
    """An operation in memory takes about one: cut short, its 99th percentile would be less than the mean."""
    program = tmp_path / "fio"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{FIO}\nEND\n")
    program.chmod(0o755)
    work = load("disk", SCENARIOS).settings.work
    assert work is not None
    script = SCENARIOS / "disk" / "fio" / "www" / "cgi-bin" / "run"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "QUERY_STRING": "", "TMPDIR": str(tmp_path)}
    body = subprocess.run([script], env=environment, capture_output=True, check=True).stdout
    assert {metric.metric: (metric.value, metric.unit) for metric in parse_figures(work, body)} == {
        "seq_read": (4000 * 1024, "bytes/s"),
        "seq_write": (762977 * 1024, "bytes/s"),
        "rand_read_rate": (1000.5, "1/s"),
        "rand_read_latency": (pytest.approx(72.3455e-6), "s"),
        "rand_read_p99": (pytest.approx(136.192e-6), "s"),
        "rand_write_rate": (pytest.approx(190744, abs=1), "1/s"),
        "rand_write_latency": (pytest.approx(4.42452e-6), "s"),
        "rand_write_p99": (pytest.approx(2.096e-6), "s"),
    }
    program.write_text("#!/bin/sh\necho 'fio: out of memory' >&2\nexit 1\n")
    body = subprocess.run([script], env=environment, capture_output=True, check=False).stdout
    assert b"out of memory" in body
    with pytest.raises(ValueError, match="no seq_read="):
        parse_figures(work, body)

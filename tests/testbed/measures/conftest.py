"""A platform of plain local processes, so that the measures can be tested for real without a guest or an image.

Each instance is a small server on a loopback address of its own, in a real cgroup when the tests run as root.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.cgroups import Cgroup
from runtime.errors import TestbedError
from runtime.images.model import Image, ImageConfig
from runtime.spec import Link, Resources
from testbed.breakdown import read_container_parts
from testbed.lab import mac_of
from testbed.measures.context import RunContext
from testbed.platforms.protocol import Instance, Started
from testbed.results import RunFolder
from testbed.sample import HostReading, Meter, read_host
from testbed.scenario.model import Density, Load, Ready, Scenario, Service, Settings, Slo
from testbed.services.probe import open_here

# What an instance runs. It is told where to listen by the platform and how to behave by its environment; the
# third byte of its address counts the applications from 1.
SERVER = """
import os, socket, threading, time
say = lambda line: print(line, flush=True)
option = lambda name: float(os.environ.get(name, "0"))
address, port = os.environ["LISTEN"], int(os.environ["PORT"])
application = int(address.split(".")[2])
began = time.monotonic()
slow = iter(range(int(option("SLOW_REQUESTS") or 1 << 30)))
held = bytearray(b"x") * (int(option("HOLD_MIB")) << 20)
for number in range(30):
    say(f"line {number}")
if option("EXIT_AFTER_S"):
    threading.Timer(option("EXIT_AFTER_S"), os._exit, (3,)).start()
time.sleep(option("OPEN_AFTER_S"))

def status():
    if time.monotonic() - began < option("READY_AFTER_S"):
        return b"503 Not Yet"
    return b"200 OK"

def answer(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while request := connection.recv(65536):
            line = status()
            if request.startswith(b"POST"):
                burnt = time.thread_time() + option("BURN_S")
                while time.thread_time() < burnt:
                    pass
                if option("CRASH_ON_POST"):
                    os._exit(4)
                if 0 < option("FAIL_FROM") <= application:
                    line = b"500 Overloaded"
                if 0 < option("SLOW_FROM") <= application and next(slow, None) is not None:
                    time.sleep(0.2)
            connection.sendall(b"HTTP/1.1 " + line + b"\\r\\nContent-Length: 5\\r\\n\\r\\nready")

listener = socket.create_server((address, port))
say("listening")
while True:
    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
"""
WEB_PORT, STORE_PORT = 18080, 16379


class Loopback:
    """Addresses in 127.0.0.0/8, in a range that nobody else has as long as it is not closed: other tests run beside."""

    host_path = ""

    def __init__(self) -> None:
        self._claim = socket.socket()
        for number in random.sample(range(1, 255), 254):
            with suppress(OSError):
                self._claim.bind((f"127.{number}.255.255", WEB_PORT))
                self._range = number
                return
        raise AssertionError("all ranges of loopback addresses are in use")

    def close(self) -> None:
        self._claim.close()

    def link(self, application: int, service: int) -> Link:
        interface = IPv4Interface(f"127.{self._range}.{application + 1}.{10 + service}/8")
        return Link(interface, mac_of(interface.ip))

    def open_socket(self, on_host: bool = False) -> socket.socket:
        return open_here(on_host)


class LocalPlatform:
    """Implements testbed.platforms.protocol.Platform with processes; ``events`` tells what it was asked."""

    name = "local"
    label = "local processes"
    emulated = False
    virtual = False
    patience = 1.0

    def __init__(self, cgroup_parent: str) -> None:
        self.shared = False
        self.one_address = False
        self._parent = cgroup_parent
        self._running: dict[str, tuple[subprocess.Popen[bytes], dict[str, int]]] = {}
        self.events: list[tuple[str, str]] = []
        self.first_process_delay_s: dict[str, float] = {}
        self.refused: set[str] = set()

    def facts(self) -> Mapping[str, object]:
        return {}

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Nothing to do."""

    def start(self, instance: Instance) -> None:
        requested_ns = time.monotonic_ns()
        self.events.append(("start", instance.service))
        if instance.service in self.refused:
            raise TestbedError(f"start {instance.name}: refused")
        directories = self.cgroup(instance).directories() if os.geteuid() == 0 else ()
        if directories:
            self.cgroup(instance).make_parent()
        for directory in directories:
            directory.mkdir()

        def join() -> None:
            for directory in directories:
                (directory / "cgroup.procs").write_text("0")

        process = instance.spec.process
        assert instance.spec.link is not None
        environment = dict(entry.partition("=")[::2] for entry in process.env)
        environment["LISTEN"] = str(instance.spec.link.address.ip)
        with instance.log.open("wb") as log:
            child = subprocess.Popen(process.args, env=environment, stdout=log, stderr=log, preexec_fn=join)
        delay_ns = round(self.first_process_delay_s.get(instance.service, 0) * 1e9)
        executed_ns = time.monotonic_ns()
        phases = {"request": requested_ns, "created": executed_ns, "first_process": executed_ns + delay_ns}
        self._running[instance.name] = child, phases

    def started(self, instance: Instance, timeout_s: float) -> Started:
        phases = self._running[instance.name][1]
        time.sleep(max(0.0, (phases["first_process"] - time.monotonic_ns()) / 1e9))
        return Started(phases)

    def alive(self, instance: Instance) -> bool:
        return instance.name in self._running and self._running[instance.name][0].poll() is None

    def ending(self, instance: Instance) -> str:
        return f"exit status {self._running[instance.name][0].poll()}"

    def stop(self, instance: Instance) -> None:
        running = self._running.pop(instance.name, None)
        if running is None:
            return
        self.events.append(("stop", instance.service))
        running[0].kill()
        running[0].wait()
        if os.geteuid() == 0:
            self.cgroup(instance).remove()

    def cgroup(self, instance: Instance) -> Cgroup:
        return Cgroup(f"{self._parent}/{instance.name}")

    def reclaim(self, instance: Instance) -> None:
        pass

    def memory_parts(self, instance: Instance) -> dict[str, int]:
        return read_container_parts(self.cgroup(instance))

    def close(self) -> None:
        """Nothing was taken."""

    def pids(self) -> list[int]:
        return [process.pid for process, _ in self._running.values()]


class MeteredPlatform(LocalPlatform):
    """Says itself what its processes use, and what is left of a machine that has so much memory more than the host."""

    MORE_BYTES = 1 << 40

    def meter(self, instance: Instance) -> Meter:
        return Cgroup(f"{self._parent}/{instance.name}")

    def read_host(self) -> HostReading:
        host = read_host()
        return replace(host, available_bytes=host.available_bytes + self.MORE_BYTES)


def service(name: str, port: int, environment: Mapping[str, str]) -> Service:
    variables = tuple({"PORT": str(port), **environment}.items())
    limits = Resources(memory_bytes=64 << 20)
    return Service(name, limits, environment=variables, ports=(port,))


SETTINGS = Settings(
    trials=3,
    ready=Ready("web", WEB_PORT, "/health", 200, "ready", timeout_s=5.0, timeout_vm_s=10.0),
    load=Load("web", WEB_PORT, "POST", "/click", (40.0, 20.0), duration_s=0.5, warmup_s=0.1, connections=4),
    slo=Slo(p99_ms=150.0, error_fraction=0.01),
    density=Density(rate_per_s=20.0, settle_s=0.1, window_s=0.4, cap=3),
)

MakeContext = Callable[..., RunContext]


@pytest.fixture
def platform(cgroup_parent: str) -> Iterator[LocalPlatform]:
    """The platform, which must have nothing running when the test ends."""
    made = LocalPlatform(cgroup_parent)
    yield made
    assert made.pids() == [], "a test left processes"


@pytest.fixture
def make_context(platform: LocalPlatform, tmp_path: Path) -> Iterator[MakeContext]:
    """Makes a run of an application of ``store`` and ``web``, whose environments are given; web depends on store."""

    claims = ExitStack()

    def make(
        web: Mapping[str, str] | None = None, store: Mapping[str, str] | None = None, **changes: object
    ) -> RunContext:
        settings = replace(SETTINGS, **changes)
        services = (service("store", STORE_PORT, store or {}), service("web", WEB_PORT, web or {}))
        scenario = Scenario("small", tmp_path, services, settings, settings)
        config = ImageConfig(cmd=(sys.executable, "-S", "-E", "-c", SERVER))
        images = {service.name: Image(f"small/{service.name}", "sha256:0", config, ()) for service in services}
        folder = RunFolder.create(tmp_path / "results", "run", {"run": "run", "scenario": "small"})
        lines: list[str] = []
        loopback = claims.enter_context(closing(Loopback()))
        return RunContext(scenario, settings, images, {"local": platform}, loopback, folder, 1, lines.append)

    with claims:
        yield make

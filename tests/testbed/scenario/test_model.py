"""Scenarios: what a compose.yaml means."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.lease import STATE_ROOT
from testbed.bench import make_run_id
from testbed.manifest import filters
from testbed.scenario.model import load
from tests.testbed.scenario.texts import CLICKME, SERVICE, TESTBED, error_of, load_text


def test_clickme_is_read_in_dependency_order() -> None:
    scenario = load("clickme", CLICKME.parent)
    assert scenario.name == "clickme"
    assert [service.name for service in scenario.services] == ["redis", "web"]
    web = scenario.services[1]
    assert [one.service for one in web.depends_on] == ["redis"]
    assert web.build is not None and web.build.dockerfile == CLICKME / "web" / "Dockerfile"
    assert web.resources.memory_bytes == 256 * 2**20
    assert web.ports == (8080,)
    assert ("REDIS_URL", "redis://redis:6379") in web.environment
    assert scenario.settings.ready.service == "web"


def test_the_filter_of_system_calls_can_be_left_away(tmp_path: Path) -> None:
    for lines, filtered in (("", True), ("security_opt: []", True), ("security_opt: ['seccomp=unconfined']", False)):
        scenario = load_text(tmp_path, SERVICE + f"    {lines}\n" + TESTBED)
        (service,) = scenario.services
        assert service.seccomp is filtered
        assert filters(scenario) == {"web": "the default profile" if filtered else "none"}


def test_quick_overrides_key_by_key() -> None:
    scenario = load(str(CLICKME), CLICKME.parent)
    full, quick = scenario.chosen(False), scenario.chosen(True)
    assert 2 <= quick.trials < full.trials
    assert len(quick.load.rates_per_s) < len(full.load.rates_per_s)
    assert quick.load.duration_s < full.load.duration_s
    assert (quick.ready, quick.slo, quick.load.path) == (full.ready, full.slo, full.load.path)


def test_the_smallest_scenario_has_defaults(tmp_path: Path) -> None:
    scenario = load_text(tmp_path, SERVICE + TESTBED)
    assert scenario.name == tmp_path.name.lower().strip("_-")
    settings, quick = scenario.settings, scenario.quick
    assert (quick.ready, quick.slo) == (settings.ready, settings.slo)
    assert (quick.trials, quick.load.duration_s, quick.load.warmup_s, quick.density.cap) == (2, 2, 0.5, 2)
    assert (scenario.settings.ready.status, scenario.settings.ready.body) == (200, "")
    assert scenario.settings.load.method == "GET"
    service = scenario.services[0]
    assert (service.command, service.entrypoint, service.environment) == (None, None, ())
    assert service.resources.pids is None


FORMS = """\
version: "3"
name: forms
x-limits: &limits
  resources: {limits: {cpus: "0.5", memory: 1.5G, pids: 10}}
x-common: &common
  deploy: *limits
  command: ["never", "this"]
services:
  web:
    <<: *common
    build: {context: ., dockerfile: Dockerfile}
    command: run --name "two words" $$HOME
    entrypoint: []
    environment: [A=1, B=x=y, "C="]
    depends_on: {b: {condition: service_started}}
    ports: [80, "8080:81", "127.0.0.1:9000:82/tcp", 80]
    expose: ["90"]
    x-note: ignored
  b:
    build: .
    deploy: *limits
    command: null
    environment: {N: 1.50, T: text, E: ""}
"""


def test_the_forms_that_compose_allows(tmp_path: Path) -> None:
    scenario = load_text(tmp_path, FORMS + TESTBED)
    assert scenario.name == "forms"
    b, a = scenario.services
    assert (a.name, b.name) == ("web", "b")
    assert a.command == ("run", "--name", "two words", "$HOME")
    assert a.entrypoint == ()
    assert b.command is None
    assert a.environment == (("A", "1"), ("B", "x=y"), ("C", ""))
    assert b.environment == (("N", "1.5"), ("T", "text"), ("E", ""))  # a number by its value, as Compose has it
    assert a.ports == (80, 81, 82, 90)
    assert a.resources == b.resources
    assert a.resources.memory_bytes == 3 * 2**29
    assert (a.resources.cpus, a.resources.pids) == (0.5, 10)


@pytest.mark.parametrize(
    ("written", "size"),
    [("1024", 1024), ("64b", 64), ("2k", 2048), ("2kb", 2048), ("3M", 3 * 2**20), ("3MiB", 3 * 2**20), ("1g", 2**30)],
)
def test_sizes_are_powers_of_1024(tmp_path: Path, written: str, size: int) -> None:
    scenario = load_text(tmp_path, (SERVICE + TESTBED).replace("64M", written))
    assert scenario.services[0].resources.memory_bytes == size


@pytest.mark.parametrize("written", ["x", "-1M", "1.2.3M", "10X", "0", "1e9", "M", "9" * 40])
def test_a_size_that_is_none(tmp_path: Path, written: str) -> None:
    message = error_of(tmp_path, (SERVICE + TESTBED).replace("64M", written))
    assert message.startswith("4: services.web.deploy.resources.limits.memory: is ")
    assert "expected a size such as 256M" in message


def test_a_service_and_a_port_are_enough(tmp_path: Path) -> None:
    scenario = load_text(tmp_path, SERVICE + "x-testbed: {ready: {service: web, port: 80}}\n")
    settings, quick = scenario.settings, scenario.quick
    assert (settings.load.service, settings.load.port, settings.load.path) == ("web", 80, "/")
    assert settings.ready.timeout_vm_s > settings.ready.timeout_s
    assert 2 <= quick.trials < settings.trials
    assert len(quick.load.rates_per_s) == 1 < len(settings.load.rates_per_s)
    assert quick.load.duration_s < settings.load.duration_s and quick.density.cap < settings.density.cap


def test_the_load_asks_what_the_ready_check_asks(tmp_path: Path) -> None:
    text = SERVICE + "x-testbed: {ready: {service: web, port: 81, path: /health}, load: {path: }}\n"
    load = load_text(tmp_path, text).settings.load
    assert (load.service, load.port, load.path) == ("web", 81, "/health")


def test_quick_is_what_it_says(tmp_path: Path) -> None:
    quick = "quick: {trials: 9, load: {rates_per_s: [7, 8], duration_s: 60}, density: {cap: 11}}"
    scenario = load_text(tmp_path, SERVICE + "x-testbed: {ready: {service: web, port: 80}, " + quick + "}\n")
    assert (scenario.quick.trials, scenario.quick.load.rates_per_s, scenario.quick.density.cap) == (9, (7.0, 8.0), 11)
    assert (scenario.quick.load.duration_s, scenario.quick.load.warmup_s) == (60.0, 1.0)


def test_a_dockerfile_is_the_scenarios_own(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root:password\n")
    folder = tmp_path / "scenario"
    (folder / "web").mkdir(parents=True)
    (folder / "web" / "linked").symlink_to("../Dockerfile")
    (folder / "web" / "out").symlink_to("../../secret")
    (folder / "web" / "inside").write_text("FROM testbed/base\n")
    (folder / "out").symlink_to("../secret")
    for name, fine in (("inside", True), ("../Dockerfile", True), ("linked", False), ("out", False), ("../out", False)):
        text = SERVICE.replace("build: .", f"build: {{context: web, dockerfile: {name}}}") + TESTBED
        if fine:
            build = load_text(folder, text).services[0].build
            assert build is not None and build.dockerfile is not None and build.dockerfile.is_file()
        else:
            assert "services.web.build.dockerfile: " in (message := error_of(folder, text))
            assert "leads out of" in message and "password" not in message


@pytest.mark.parametrize("name", ["compose.override.yaml", "docker-compose.override.yml"])
def test_an_override_is_merged_as_compose_does(tmp_path: Path, name: str) -> None:
    load_text(tmp_path, SERVICE + TESTBED)
    (tmp_path / name).write_text("services: {web: {user: nobody}}\n")
    scenario = load(str(tmp_path), tmp_path.parent)
    assert scenario.services[0].user == "nobody"
    assert scenario.application.notes[0] == f"merged: compose.yaml, {name}"
    # A file that is named is read alone.
    assert load(f"{tmp_path}/compose.yaml", tmp_path.parent).services[0].user == ""


def test_the_longest_name_leaves_room_for_a_monitors_socket() -> None:
    monitor = STATE_ROOT / make_run_id("a" * 40) / "libvirt/lib/qemu" / f"domain-1000-{'b' * 20}" / "monitor.sock"
    assert len(bytes(monitor)) <= 107

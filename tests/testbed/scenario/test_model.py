"""Scenarios: what a compose.yaml means, and what is said about one that is wrong."""

from __future__ import annotations

import os
import random
import re
import shutil
import textwrap
import time
from pathlib import Path

import pytest

from runtime.errors import UsageError
from runtime.lease import STATE_ROOT
from testbed.bench import make_run_id
from testbed.manifest import filters
from testbed.scenario.model import Scenario, load

CLICKME = Path(__file__).parents[3] / "scenarios" / "clickme"

LIMITS = "deploy: {resources: {limits: {memory: 64M, cpus: 0.5}}}"
SERVICE = f"""\
services:
  web:
    build: .
    {LIMITS}
"""
TESTBED = """\
x-testbed:
  trials: 4
  ready: {service: web, port: 80, path: /, timeout_s: 5, timeout_vm_s: 50}
  load: {service: web, port: 80, path: /, rates_per_s: [1], duration_s: 2, warmup_s: 0.5, connections: 1}
  slo: {p99_ms: 100, error_fraction: 0.01}
  density: {rate_per_s: 1, window_s: 1, cap: 3}
"""


def _load(folder: Path, text: str) -> Scenario:
    (folder / "Dockerfile").write_text("FROM testbed/base\n")
    (folder / "compose.yaml").write_text(text)
    return load(f"{folder}/", folder)


def _error(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        _load(folder, text)
    message = str(caught.value)
    prefix = f"{folder}/compose.yaml:"
    assert message.startswith(prefix)
    return message.removeprefix(prefix)


def _service_error(folder: Path, lines: str) -> str:
    """The error for a service whose first line after the limits is line 5."""
    return _error(folder, SERVICE + textwrap.indent(textwrap.dedent(lines), "    ") + "\n" + TESTBED)


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
        scenario = _load(tmp_path, SERVICE + f"    {lines}\n" + TESTBED)
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
    scenario = _load(tmp_path, SERVICE + TESTBED)
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
    scenario = _load(tmp_path, FORMS + TESTBED)
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
    scenario = _load(tmp_path, (SERVICE + TESTBED).replace("64M", written))
    assert scenario.services[0].resources.memory_bytes == size


@pytest.mark.parametrize("written", ["x", "-1M", "1.2.3M", "10X", "0", "1e9", "M", "9" * 40])
def test_a_size_that_is_none(tmp_path: Path, written: str) -> None:
    message = _error(tmp_path, (SERVICE + TESTBED).replace("64M", written))
    assert message.startswith("4: services.web.deploy.resources.limits.memory: is ")
    assert "expected a size such as 256M" in message


@pytest.mark.parametrize(
    ("lines", "start", "expected"),
    [
        ("gpus: all", "5: services.web.gpus: is not supported by Compose or the testbed", "no GPU"),
        ("memory: 1G", "5: services.web.memory: is not supported", "one of annotations"),
        ("environmnet: {}", "5: services.web.environmnet: is not supported", "'environment' perhaps"),
        (
            "security_opt: [seccomp=x.json]",
            "5: services.web.security_opt[0]: 'seccomp=x.json' is not supported",
            "seccomp=unconfined",
        ),
        ("build: .", "5: services.web.build: is there twice (first on line 3)", "each key once"),
        ("environment: {A: [b]}", "5: services.web.environment.A: is a list", "text, a number"),
        ("environment:\n  - =b", "6: services.web.environment[0]: '' is no name", "NAME=value"),
        ("environment:\n  A: ${HOME", "6: services.web.environment.A: has '${HOME', which is no variable", "$$"),
        ("environment:\n  A: x$(date)", "6: services.web.environment.A: has '$(date)', which is no variable", "$$"),
        ("environment: text", "5: services.web.environment: is 'text'", "a mapping"),
        ("command: 'a \"b'", "5: services.web.command: cannot be split into words", "a list"),
        ("command: {a: b}", "5: services.web.command: is a mapping", "a list"),
        ("ports: ['53/icmp']", "5: services.web.ports[0]: has the protocol 'icmp'", "tcp"),
        ("ports: ['9-1']", "5: services.web.ports[0]: is '9-1'", "ports from 1"),
        ("ports: [70000]", "5: services.web.ports[0]: is '70000'", "ports from 1"),
        ("ports: 80", "5: services.web.ports: is '80'", "a list"),
        ("depends_on: [db]", "5: services.web.depends_on: 'db' is no service", "one of web"),
        ("depends_on: [web]", "5: services.web.depends_on: is a cycle: web -> web", "in order"),
        (
            "depends_on:\n  web: {condition: service_healthy}\nx-y: &y 1",
            "5: services.web.depends_on: is a cycle",
            "in order",
        ),
    ],
)
def test_a_wrong_service_is_named_with_its_line(tmp_path: Path, lines: str, start: str, expected: str) -> None:
    message = _service_error(tmp_path, lines)
    assert message.startswith(start)
    assert expected in message.partition("; expected ")[2]


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [
        ("trials: 4", "trials: 0", "6: x-testbed.trials: is '0'; expected a whole number from 1"),
        ("trials: 4", "trails: 4", "6: x-testbed.trails: is not supported by the testbed; expected 'trials' perhaps"),
        (
            "ready: {service: web, port: 80, path: /, timeout_s: 5, timeout_vm_s: 50}",
            "",
            "5: x-testbed.ready: is missing",
        ),
        (
            "ready: {service: web, port: 80,",
            "ready: {service: web,",
            "7: x-testbed.ready.port: is missing; expected the TCP",
        ),
        ("timeout_s: 5,", "timeout_s: soon,", "7: x-testbed.ready.timeout_s: is 'soon'; expected a number above 0"),
        ("timeout_s: 5,", "timeout_s: 1e999,", "7: x-testbed.ready.timeout_s: is '1e999'"),
        ("timeout_s: 5,", "timeout_s: .nan,", "7: x-testbed.ready.timeout_s: is '.nan'"),
        ("ready: {service: web", "ready: {service: db", "7: x-testbed.ready.service: 'db' is no service"),
        ("port: 80, path: /, rates", "port: http, path: /, rates", "8: x-testbed.load.port: is 'http'"),
        ("path: /, rates", "path: click, rates", "8: x-testbed.load.path: is 'click'; expected a path"),
        ("path: /, rates", "path: /, method: FETCH, rates", "8: x-testbed.load.method: is 'FETCH'"),
        ("rates_per_s: [1]", "rates_per_s: []", "8: x-testbed.load.rates_per_s: has no rate"),
        ("rates_per_s: [1]", "rates_per_s: [1, 1.0]", "8: x-testbed.load.rates_per_s: has a rate twice"),
        ("rates_per_s: [1]", "rates_per_s: [1, -2]", "8: x-testbed.load.rates_per_s[1]: is '-2'"),
        ("rates_per_s: [1]", "rates_per_s: 1", "8: x-testbed.load.rates_per_s: is '1'; expected a list"),
        ("fraction: 0.01", "fraction: 1.5", "9: x-testbed.slo.error_fraction: is '1.5'"),
        ("cap: 3", "cap: 2.5", "10: x-testbed.density.cap: is '2.5'"),
        ("density:", "quick: {density: {cap: 0}}\n  density:", "10: x-testbed.quick.density.cap: is '0'"),
        ("density:", "quick: {cap: 0}\n  density:", "10: x-testbed.quick.cap: is not supported"),
        (
            "services:",
            "service:",
            "1: service: is not supported by Compose or the testbed; expected 'services' perhaps",
        ),
        ("services:", "models: {}\nservices:", "1: models: is not supported by Compose or the testbed"),
        ("services:", "name: Big\nservices:", "1: name: is 'Big'"),
        ("  web:\n    build", "  we b:\n    build", "2: services.we b: 'we b' is no service name"),
        ("    build: .\n", "", "2: services.web.build: is missing"),
        ("build: .", "build: elsewhere", "3: services.web.build: there is no folder 'elsewhere'"),
        ("build: .", "build: {dockerfile: Nope}", "3: services.web.build.dockerfile: there is no 'Nope' in"),
        ("build: .", "build: {targets: x}", "3: services.web.build.targets: is not supported"),
        (
            "cpus: 0.5",
            "cpus: 0",
            "4: services.web.deploy.resources.limits.cpus: is '0'; expected a number at least 0.01",
        ),
        ("limits:", "reserve:", "4: services.web.deploy.resources.reserve: is not supported"),
        ("    build: .", "\tbuild: .", "3: not well-formed YAML: a tab; indent with blanks"),
        (
            "    build: .",
            "    build: [",
            "5: not well-formed YAML: while parsing a flow sequence that begins on line 3: did not find",
        ),
        ("    build: .", "    build: *x", "3: not well-formed YAML: no anchor &x before"),
        ("    build: .", "    ? [a]\n    : b\n    build: .", "3: services.web: has a key that is no text"),
        ("    build: .", "    <<: 3\n    build: .", "3: services.web.<<: is '3'; expected an alias of a mapping"),
        ("  web:\n", "  web: &x\n    <<: *x\n", "3: services.web.<<: is a part of &x, which it names"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, old: str, new: str, start: str) -> None:
    text = SERVICE + TESTBED
    assert text.count(old) == 1
    assert _error(tmp_path, text.replace(old, new)).startswith(start)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "compose.yaml:1: the file is empty"),
        (b"# nothing\n", "compose.yaml:1: the file is empty"),
        (b"- a\n", r"compose.yaml:1: \(top level\): is a list; expected a mapping"),
        (b"a: b\nc: \xff\n", "compose.yaml:2: byte 0xff is not UTF-8"),
        (b"a: b\nc: \x01\n", "compose.yaml:2: not well-formed YAML: a control character"),
        (b"[" * 100_000, "nested too deeply"),
        (b"a: b\n---\na: [\n", "compose.yaml:4: not well-formed YAML"),
    ],
)
def test_a_file_that_is_no_compose_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "compose.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load(str(tmp_path), tmp_path)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = """\
services:
  web:
    imagee: nginx
    build: elsewhere
    deploy: {resources: {limits: {cpus: none, memory: lots}}}
    ports: [http, 80]
    depends_on: [db]
  we b: {}
x-testbed:
  trails: 4
  ready: {service: wbe, timeout_s: soon}
  load: {rates_per_s: [1, fast, 1e300], duration_s: 1e308}
  slo: [p99_ms]
"""
    reported = [line.removeprefix(f"{tmp_path}/compose.yaml:") for line in f":{_error(tmp_path, text)}".splitlines()]
    assert [line.removeprefix(":").split(": ")[:2] for line in reported] == [
        ["3", "services.web.imagee"],
        ["4", "services.web.build"],
        ["5", "services.web.deploy.resources.limits.cpus"],
        ["5", "services.web.deploy.resources.limits.memory"],
        ["6", "services.web.ports[0]"],
        ["7", "services.web.depends_on"],
        ["8", "services.we b"],
        ["10", "x-testbed.trails"],
        ["11", "x-testbed.ready.port"],
        ["11", "x-testbed.ready.service"],
        ["11", "x-testbed.ready.timeout_s"],
        ["12", "x-testbed.load.rates_per_s[1]"],
        ["12", "x-testbed.load.rates_per_s[2]"],
        ["12", "x-testbed.load.duration_s"],
        ["13", "x-testbed.slo"],
    ]


def test_what_follows_from_a_mistake_is_not_told(tmp_path: Path) -> None:
    assert _error(tmp_path, "services: [web]\nx-testbed: 3\n").splitlines() == [
        "1: services: is a list; expected a mapping of keys to values",
        f"{tmp_path}/compose.yaml:2: x-testbed: is '3'; expected a mapping of keys to values",
    ]


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    message = _error(tmp_path, SERVICE + "".join(f"k{number}: 1\n" for number in range(500)) + TESTBED)
    assert len(message.splitlines()) == 51
    assert message.endswith("\nand 450 more")


def test_a_service_and_a_port_are_enough(tmp_path: Path) -> None:
    scenario = _load(tmp_path, SERVICE + "x-testbed: {ready: {service: web, port: 80}}\n")
    settings, quick = scenario.settings, scenario.quick
    assert (settings.load.service, settings.load.port, settings.load.path) == ("web", 80, "/")
    assert settings.ready.timeout_vm_s > settings.ready.timeout_s
    assert 2 <= quick.trials < settings.trials
    assert len(quick.load.rates_per_s) == 1 < len(settings.load.rates_per_s)
    assert quick.load.duration_s < settings.load.duration_s and quick.density.cap < settings.density.cap


def test_the_load_asks_what_the_ready_check_asks(tmp_path: Path) -> None:
    text = SERVICE + "x-testbed: {ready: {service: web, port: 81, path: /health}, load: {path: }}\n"
    load = _load(tmp_path, text).settings.load
    assert (load.service, load.port, load.path) == ("web", 81, "/health")


def test_quick_is_what_it_says(tmp_path: Path) -> None:
    quick = "quick: {trials: 9, load: {rates_per_s: [7, 8], duration_s: 60}, density: {cap: 11}}"
    scenario = _load(tmp_path, SERVICE + "x-testbed: {ready: {service: web, port: 80}, " + quick + "}\n")
    assert (scenario.quick.trials, scenario.quick.load.rates_per_s, scenario.quick.density.cap) == (9, (7.0, 8.0), 11)
    assert (scenario.quick.load.duration_s, scenario.quick.load.warmup_s) == (60.0, 1.0)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("trials: 4", "trials: 10001", "from 1 to 10000 (trials)"),
        ("timeout_s: 5,", "timeout_s: 86401,", "at most 86400 (seconds)"),
        ("timeout_vm_s: 50", "timeout_vm_s: 1e308", "at most 86400 (seconds)"),
        ("rates_per_s: [1]", "rates_per_s: [1e300]", "at most 1000000 (requests per second)"),
        ("rates_per_s: [1]", "rates_per_s: [[1]]", "at most 1000000 (requests per second)"),
        ("rates_per_s: [1]", "rates_per_s: [1000000], duration_s: 6", "there twice"),
        ("rates_per_s: [1], duration_s: 2", "rates_per_s: [1000000], duration_s: 6", "at most 5000000: rate times"),
        ("duration_s: 2", "duration_s: 1e308", "at most 86400 (seconds)"),
        ("warmup_s: 0.5", "warmup_s: -1", "at least 0 and at most 86400 (seconds)"),
        ("connections: 1", "connections: 1e3", "from 1 to 10000 (connections)"),
        ("p99_ms: 100", "p99_ms: 1e17", "at most 3600000 (milliseconds)"),
        ("fraction: 0.01", "fraction: 1.01", "at most 1 (a fraction of the requests)"),
        ("rate_per_s: 1,", "rate_per_s: 1e7,", "at most 1000000 (requests per second)"),
        ("window_s: 1", "window_s: 0", "above 0 and at most 86400 (seconds)"),
        ("cap: 3", "cap: 99999999999999999999999999", "from 1 to 10000 (applications)"),
        ("memory: 64M", "memory: 999999999999999T", "at most 64T"),
        ("memory: 64M", "memory: 64.1T", "at most 64T"),
        ("memory: 64M", "memory: 0.1", "at most 64T"),
        ("cpus: 0.5", "cpus: 1e-300", "at least 0.01 and at most 4096 (processors)"),
        ("cpus: 0.5", "cpus: 1_000", "at most 4096 (processors)"),
        ("cpus: 0.5", "cpus: 0.5, pids: 4194305", "from -1 to 4194304 (processes and threads)"),
        ("slo: {p99_ms: 100, error_fraction: 0.01}", "slo: [100]", "a mapping of keys to values"),
        ("services:", "name: " + "a" * 41 + "\nservices:", "at most 40 of a to z"),
        ("build: .", "build: " + "a" * 5000, "the folder to build from"),
        ("build: .", 'build: ""', "the folder to build from"),
        ("build: .", "build: {dockerfile: /etc/passwd}", "a Dockerfile in that folder"),
        ("build: .", "build: {dockerfile: " + "b" * 300 + "}", "a Dockerfile"),
        ("path: /, timeout_s", 'path: "/\\e[31m", timeout_s', "without blanks"),
    ],
)
def test_every_number_and_text_has_bounds(tmp_path: Path, old: str, new: str, expected: str) -> None:
    text = SERVICE + TESTBED
    assert text.count(old) == 1
    if expected == "there twice":
        assert "duration_s: is there twice" in _error(tmp_path, text.replace(old, new))
        return
    message = _error(tmp_path, text.replace(old, new))
    assert expected in message.partition("; expected ")[2] and len(message) < 1000


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
            build = _load(folder, text).services[0].build
            assert build is not None and build.dockerfile is not None and build.dockerfile.is_file()
        else:
            assert "services.web.build.dockerfile: " in (message := _error(folder, text))
            assert "leads out of" in message and "password" not in message


def test_messages_are_for_a_terminal(tmp_path: Path) -> None:
    message = _error(tmp_path, '"a\\e[31m\\nb": 1\nname: "c\\e[31m"\n' + SERVICE + TESTBED)
    assert "a?[31m?b" in message and "\x1b" not in message


def test_merges_of_merges_end(tmp_path: Path) -> None:
    levels = "".join(f"x-{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
    wide = f"x-0: &l0 {{environment: {{A: b}}}}\n{levels}" + SERVICE.replace("build: .", "<<: *l11\n    build: .")
    chain = "".join(f"x-{n}: &l{n} {{<<: *l{n - 1}, k{n}: 1}}\n" for n in range(1, 3000))
    deep = f"x-0: &l0 {{a: b}}\n{chain}" + SERVICE.replace("build: .", "<<: *l2999\n    build: .")
    began = time.monotonic()
    assert _load(tmp_path, wide + TESTBED).services[0].environment == (("A", "b"),)
    assert "merges more than 500000 keys; expected fewer" in _error(tmp_path, deep + TESTBED)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: [" + "1," * 100_001 + "]\n", ":1: more than 100000 values"),
        ("".join(f"k{number}: 1\n" for number in range(50_001)), "more than 100000 values"),
        ("# " + "x" * 10_000_000, "longer than 4194304 bytes"),
        ("- " * 100_000, "nested too deeply: more than 64"),
        ("{a: " * 100_000, "nested too deeply: more than 64"),
        ("a: &a 1\nb: [" + "*a," * 100_000 + "]", "more than 100000 values"),
        ("a: " + "x" * 1_000_000 + "\n", "services: is missing"),
        ("? " + "x" * 1_000_000 + "\n: 1\n", "services: is missing"),
        ("? " + "x." * 500_000 + "\n: 1\n", "services: is missing"),
    ],
)
def test_size_has_bounds_in_time(tmp_path: Path, text: str, message: str) -> None:
    began = time.monotonic()
    (tmp_path / "compose.yaml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load(str(tmp_path), tmp_path)
    assert time.monotonic() - began < 3
    assert len(str(caught.value)) < 5000


def test_the_longest_file_is_read_in_time(tmp_path: Path) -> None:
    environment = "".join(f"      V{number}: {'x' * 80}\n" for number in range(9000))
    began = time.monotonic()
    scenario = _load(tmp_path, f"{SERVICE}    environment:\n{environment}{TESTBED}")
    assert len(scenario.services[0].environment) == 9000
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", ["compose.override.yaml", "docker-compose.override.yml"])
def test_an_override_is_merged_as_compose_does(tmp_path: Path, name: str) -> None:
    _load(tmp_path, SERVICE + TESTBED)
    (tmp_path / name).write_text("services: {web: {user: nobody}}\n")
    scenario = load(str(tmp_path), tmp_path.parent)
    assert scenario.services[0].user == "nobody"
    assert scenario.application.notes[0] == f"merged: compose.yaml, {name}"
    # A file that is named is read alone.
    assert load(f"{tmp_path}/compose.yaml", tmp_path.parent).services[0].user == ""


def test_the_longest_name_leaves_room_for_a_monitors_socket() -> None:
    monitor = STATE_ROOT / make_run_id("a" * 40) / "libvirt/lib/qemu" / f"domain-1000-{'b' * 20}" / "monitor.sock"
    assert len(bytes(monitor)) <= 107


def test_a_scenario_file_that_is_no_file_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root:password\n")
    folder = tmp_path / "scenario"
    folder.mkdir()
    (folder / "compose.yaml").symlink_to("../secret")
    with pytest.raises(UsageError, match="a link that leads out of") as caught:
        load(str(folder), tmp_path)
    assert "password" not in str(caught.value)
    (folder / "compose.yaml").unlink()
    os.mkfifo(folder / "compose.yaml")
    with pytest.raises(UsageError, match=r"has no compose\.yaml"):
        load(str(folder), tmp_path)
    with pytest.raises(UsageError, match="unknown scenario"):
        load("a" * 5000, tmp_path)


WRONG = (
    *("", "null", "true", "text", "0", "-1", "1e300", "1e308", "-0", ".inf", ".nan", "9" * 400, "1" + "0" * 18, "0x10"),
    *("[]", "[[]]", "{}", "{a: b}", "[a, b]", "[1, 1]", "[null]", "[{a: [b]}]", "{<<: {}}", "{<<: 1}", "&a [*a]"),
    *("&a {<<: *a}", '"\\0"', '"\\e[31m"', '"${HOME}"', '"$$"', "x" * 5000, "!!python/name:os.system x", "1:30"),
)


def _places(text: str) -> list[tuple[int, str]]:
    """The lines with a key, and the line up to the key's colon."""
    matches = ((number, re.match(r"( *(?:- )?[\w-]+:|  *-)", line)) for number, line in enumerate(text.splitlines()))
    return [(number, match[0]) for number, match in matches if match]


@pytest.mark.no_cover
def test_clickme_with_any_value_replaced_is_read_or_refused(tmp_path: Path) -> None:
    """Each key's value, and all below it, by each wrong value: an answer in time, never a traceback."""
    folder = tmp_path / "clickme"
    shutil.copytree(CLICKME, folder)
    text = (CLICKME / "compose.yaml").read_text()
    lines = text.splitlines()
    refused = 0
    for number, key in _places(text):
        indent = len(key) - len(key.lstrip())
        end = number + 1
        while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent):
            end += 1
        for wrong in WRONG:
            (folder / "compose.yaml").write_text("\n".join([*lines[:number], f"{key} {wrong}", *lines[end:]]))
            began = time.monotonic()
            try:
                load(str(folder), tmp_path)
            except UsageError as error:
                refused += 1
                assert str(error).startswith(f"{folder}/compose.yaml:") and len(str(error)) < 20_000
                assert "\x1b" not in str(error)
            assert time.monotonic() - began < 2
    assert refused > 1000


def test_clickme_with_any_line_lost_or_bytes_changed_is_read_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "clickme"
    shutil.copytree(CLICKME, folder)
    content = (CLICKME / "compose.yaml").read_bytes()
    lines = content.splitlines(keepends=True)
    changed = [b"".join(lines[:number] + lines[number + 1 :]) for number in range(len(lines))]
    generator = random.Random(1)
    for _ in range(300):
        at, length = generator.randrange(len(content)), generator.randrange(4)
        other = bytes(
            generator.choice(b"\0\t\n\r \"'#%&*-:<>?@[]`{|}!,\\$\x80\xff09az") for _ in range(generator.randrange(4))
        )
        changed.append(content[:at] + other + content[at + length :])
    for text in changed:
        (folder / "compose.yaml").write_bytes(text)
        try:
            load(str(folder), tmp_path)
        except UsageError as error:
            assert str(error).startswith(f"{folder}/compose.yaml:")


def test_aliases_of_aliases_cost_nothing(tmp_path: Path) -> None:
    levels = "\n".join(f"x-{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12))
    scenario = _load(tmp_path, f"x-0: &l0 lol\n{levels}\n{SERVICE}{TESTBED}")
    assert scenario.services[0].name == "web"


def test_a_dependency_cycle_is_shown(tmp_path: Path) -> None:
    services = "services:\n"
    for name, needed in (("web", "b"), ("b", "c"), ("c", "b")):
        services += f"  {name}:\n    build: .\n    depends_on: [{needed}]\n    {LIMITS}\n"
    assert _error(tmp_path, services + TESTBED).startswith("12: services.c.depends_on: is a cycle: b -> c -> b")


def test_an_unknown_scenario_lists_the_known(tmp_path: Path) -> None:
    _load(tmp_path, SERVICE + TESTBED)
    with pytest.raises(UsageError, match="unknown scenario 'clickmee'\n  known scenarios: clickme"):
        load("clickmee", CLICKME.parent)
    with pytest.raises(UsageError, match="does not exist"):
        load(f"{tmp_path}/absent", CLICKME.parent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"has no compose\.yaml"):
        load(f"{tmp_path}/empty", CLICKME.parent)
    for name in ("", ".."):
        with pytest.raises(UsageError, match="known scenarios: clickme"):
            load(name, CLICKME.parent)
    assert load(f"{tmp_path}/compose.yaml", CLICKME.parent).services[0].name == "web"

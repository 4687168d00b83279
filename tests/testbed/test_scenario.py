"""Scenarios: what a compose.yaml means, and what is said about one that is wrong."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.bench import filters
from testbed.scenario import Scenario, load

CLICKME = Path(__file__).parents[2] / "scenarios" / "clickme"

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
  load: {service: web, port: 80, path: /, rates_per_s: [1], duration_s: 2, connections: 1}
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
    assert web.depends_on == ("redis",)
    assert web.dockerfile == CLICKME / "web" / "Dockerfile"
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
    assert scenario.settings == scenario.quick
    assert (scenario.settings.ready.status, scenario.settings.ready.body) == (200, "")
    assert (scenario.settings.load.method, scenario.settings.load.warmup_s) == ("GET", 0)
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
    assert b.environment == (("N", "1.50"), ("T", "text"), ("E", ""))
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
        ("image: nginx", "5: services.web.image: is not supported", "build"),
        ("memory: 1G", "5: services.web.memory: is not supported", "one of build"),
        ("environmnet: {}", "5: services.web.environmnet: is not supported", "'environment' perhaps"),
        (
            "security_opt: [apparmor=x]",
            "5: services.web.security_opt[0]: 'apparmor=x' is not supported",
            "seccomp=unconfined",
        ),
        ("build: .", "5: services.web.build: is there twice (first on line 3)", "each key once"),
        ("environment: {A: null}", "5: services.web.environment.A: is empty", "text or a number"),
        ("environment: {A: yes}", "5: services.web.environment.A: is the boolean yes", "quote it"),
        ("environment:\n  - A", "6: services.web.environment[0]: A has no value", "NAME=value"),
        ("environment:\n  A: ${HOME}", "6: services.web.environment.A: uses the variable ${HOME}", "$$"),
        ("environment:\n  A: x$$$HOME", "6: services.web.environment.A: uses the variable $HOME", "$$"),
        ("environment: text", "5: services.web.environment: is 'text'", "a mapping"),
        ("command: 'a \"b'", "5: services.web.command: cannot be split into words", "a list"),
        ("command: {a: b}", "5: services.web.command: is a mapping", "a list"),
        ("ports: ['53/udp']", "5: services.web.ports[0]: is '53/udp'", "TCP port"),
        ("ports: ['1-9']", "5: services.web.ports[0]: is '1-9'", "TCP port"),
        ("ports: [70000]", "5: services.web.ports[0]: is '70000'", "TCP port"),
        ("ports: 80", "5: services.web.ports: is '80'", "a list"),
        ("depends_on: [db]", "5: services.web.depends_on: 'db' is no service", "one of web"),
        ("depends_on: [web]", "5: services.web.depends_on: is a cycle: web -> web", "in order"),
        (
            "depends_on:\n  web: {condition: service_healthy}",
            "6: services.web.depends_on.web.condition: 'service_healthy' is not supported",
            "service_started",
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
        ("trials: 4", "trials:", "6: x-testbed.trials: is missing"),
        ("  trials: 4\n", "", "5: x-testbed.trials: is missing"),
        ("path: /, timeout_s: 5,", "path: /,", "7: x-testbed.ready.timeout_s: is missing"),
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
        ("x-testbed:", "x-test:", "1: x-testbed: is missing"),
        ("services:", "service:", "1: service: is not supported by the testbed; expected 'services' perhaps"),
        ("services:", "networks: {}\nservices:", "1: networks: is not supported by the testbed; expected none"),
        ("services:", "name: Big\nservices:", "1: name: is 'Big'"),
        ("  web:\n    build", "  we b:\n    build", "2: services.we b: 'we b' is no service name"),
        ("    build: .\n", "", "2: services.web.build: is missing"),
        ("build: .", "build: elsewhere", "3: services.web.build: there is no folder 'elsewhere'"),
        ("build: .", "build: {dockerfile: Nope}", "3: services.web.build.dockerfile: there is no 'Nope' in"),
        ("build: .", "build: {target: x}", "3: services.web.build.target: is not supported"),
        ("memory: 64M, ", "", "4: services.web.deploy.resources.limits.memory: is missing"),
        ("cpus: 0.5", "cpus: 0", "4: services.web.deploy.resources.limits.cpus: is '0'; expected a number above 0"),
        ("limits:", "reservations:", "4: services.web.deploy.resources.reservations: is not supported"),
        ("    build: .", "\tbuild: .", "3: not well-formed YAML: a tab; indent with blanks"),
        (
            "    build: .",
            "    build: [",
            "5: not well-formed YAML: while parsing a flow sequence that begins on line 3, exp",
        ),
        ("    build: .", "    build: *x", "3: not well-formed YAML: found undefined alias"),
        ("    build: .", "    ? [a]\n    : b\n    build: .", "3: services.web: has a key that is no text"),
        ("    build: .", "    <<: 3\n    build: .", "3: services.web.<<: is '3'; expected an alias of a mapping"),
        ("  web:\n", "  web: &x\n    <<: *x\n", "2: services.web: merges itself"),
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
        (b"a: b\n---\na: b\n", "compose.yaml:2: not well-formed YAML"),
    ],
)
def test_a_file_that_is_no_compose_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "compose.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load(str(tmp_path), tmp_path)


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

"""Mistakes in scenarios: each is named with its line, all at once, and none takes longer than it may."""

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
from testbed.scenario.model import load
from tests.testbed.scenario.texts import CLICKME, LIMITS, SERVICE, TESTBED, error_of, load_text


def _service_error(folder: Path, lines: str) -> str:
    """The error for a service whose first line after the limits is line 5."""
    return error_of(folder, SERVICE + textwrap.indent(textwrap.dedent(lines), "    ") + "\n" + TESTBED)


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
    assert error_of(tmp_path, text.replace(old, new)).startswith(start)


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
    reported = [line.removeprefix(f"{tmp_path}/compose.yaml:") for line in f":{error_of(tmp_path, text)}".splitlines()]
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
    assert error_of(tmp_path, "services: [web]\nx-testbed: 3\n").splitlines() == [
        "1: services: is a list; expected a mapping of keys to values",
        f"{tmp_path}/compose.yaml:2: x-testbed: is '3'; expected a mapping of keys to values",
    ]


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    message = error_of(tmp_path, SERVICE + "".join(f"k{number}: 1\n" for number in range(500)) + TESTBED)
    assert len(message.splitlines()) == 51
    assert message.endswith("\nand 450 more")


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
        assert "duration_s: is there twice" in error_of(tmp_path, text.replace(old, new))
        return
    message = error_of(tmp_path, text.replace(old, new))
    assert expected in message.partition("; expected ")[2] and len(message) < 1000


def test_messages_are_for_a_terminal(tmp_path: Path) -> None:
    message = error_of(tmp_path, '"a\\e[31m\\nb": 1\nname: "c\\e[31m"\n' + SERVICE + TESTBED)
    assert "a?[31m?b" in message and "\x1b" not in message


def test_merges_of_merges_end(tmp_path: Path) -> None:
    levels = "".join(f"x-{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
    wide = f"x-0: &l0 {{environment: {{A: b}}}}\n{levels}" + SERVICE.replace("build: .", "<<: *l11\n    build: .")
    chain = "".join(f"x-{n}: &l{n} {{<<: *l{n - 1}, k{n}: 1}}\n" for n in range(1, 3000))
    deep = f"x-0: &l0 {{a: b}}\n{chain}" + SERVICE.replace("build: .", "<<: *l2999\n    build: .")
    began = time.monotonic()
    assert load_text(tmp_path, wide + TESTBED).services[0].environment == (("A", "b"),)
    assert "merges more than 500000 keys; expected fewer" in error_of(tmp_path, deep + TESTBED)
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
    scenario = load_text(tmp_path, f"{SERVICE}    environment:\n{environment}{TESTBED}")
    assert len(scenario.services[0].environment) == 9000
    assert time.monotonic() - began < 5


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
    scenario = load_text(tmp_path, f"x-0: &l0 lol\n{levels}\n{SERVICE}{TESTBED}")
    assert scenario.services[0].name == "web"


def test_a_dependency_cycle_is_shown(tmp_path: Path) -> None:
    services = "services:\n"
    for name, needed in (("web", "b"), ("b", "c"), ("c", "b")):
        services += f"  {name}:\n    build: .\n    depends_on: [{needed}]\n    {LIMITS}\n"
    assert error_of(tmp_path, services + TESTBED).startswith("12: services.c.depends_on: is a cycle: b -> c -> b")


def test_an_unknown_scenario_lists_the_known(tmp_path: Path) -> None:
    load_text(tmp_path, SERVICE + TESTBED)
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

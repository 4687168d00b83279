"""The load of a scenario: mixes of requests and schedules, and what is said of those that are wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.load.arrivals import Schedule
from testbed.load.requests import Request
from testbed.scenario.loads import Load
from testbed.scenario.model import Scenario, load

HEAD = """\
services:
  web:
    build: .
    deploy: {resources: {limits: {cpus: 1, memory: 64M}}}
x-testbed:
  ready: {service: web, port: 80}
"""


def scenario_of(folder: Path, text: str) -> Scenario:
    (folder / "Dockerfile").touch()
    (folder / "compose.yaml").write_text(HEAD + text)
    return load(str(folder), folder)


def error_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(UsageError) as error:
        scenario_of(folder, text)
    return [line.removeprefix(f"{folder}/compose.yaml:") for line in str(error.value).splitlines()]


def load_of(folder: Path, text: str) -> Load:
    return scenario_of(folder, text).settings.load


def test_a_mix_has_methods_paths_bodies_headers_and_weights(tmp_path: Path) -> None:
    read = load_of(
        tmp_path,
        """\
  load:
    requests:
      - {path: /, weight: 9}
      - method: POST
        path: /click
        status: 201
        headers: {Content-Type: application/json, X-Empty: ""}
        body: '{"clicks": 1, "price": "$$5"}'
""",
    )
    assert read.requests == read.kinds
    assert read.kinds == (
        Request("GET", "/", weight=9.0),
        Request(
            "POST",
            "/click",
            201,
            (("Content-Type", "application/json"), ("X-Empty", "")),
            '{"clicks": 1, "price": "$5"}',
        ),
    )
    assert (read.method, read.path) == ("GET", "/"), "the main one"


def test_without_a_mix_there_is_one_kind(tmp_path: Path) -> None:
    read = load_of(tmp_path, "  load: {method: HEAD, path: /health}\n")
    assert (read.requests, read.kinds) == ((), (Request("HEAD", "/health"),))
    assert read.schedule == Schedule()


def test_the_ready_check_stays_what_it_is(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, "  load: {requests: [{path: /a}, {path: /b}]}\n")
    assert (scenario.settings.ready.path, scenario.settings.load.path) == ("/", "/a")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("requests: []", "7: x-testbed.load.requests: has no requests; expected a list of 1 to 64"),
        ("requests: {path: /}", "7: x-testbed.load.requests: is a mapping; expected a list"),
        ("requests: [{method: GET}]", "7: x-testbed.load.requests[0].path: is missing"),
        ("requests: [{path: a}]", "7: x-testbed.load.requests[0].path: is 'a'"),
        ("requests: [{path: /, url: /}]", "7: x-testbed.load.requests[0].url: is not supported"),
        ("requests: [{path: /, method: get}]", "7: x-testbed.load.requests[0].method: is 'get'; expected one of GET"),
        ("requests: [{path: /, weight: 0}]", "7: x-testbed.load.requests[0].weight: is '0'; expected a number above 0"),
        ("requests: [{path: /, weight: 1e9}]", "7: x-testbed.load.requests[0].weight: is '1e9'"),
        ("requests: [{path: /, status: 99}]", "7: x-testbed.load.requests[0].status: is '99'"),
        ("requests: [{path: /, body: x}]", "7: x-testbed.load.requests[0].body: is there with the method GET"),
        ("requests: [{path: /}], method: GET", "7: x-testbed.load.method: is there beside requests"),
        ("requests: [{path: /}], path: /", "7: x-testbed.load.path: is there beside requests"),
        (
            'requests: [{path: /, headers: {X: "a\\r\\nY: b"}}]',
            "7: x-testbed.load.requests[0].headers.X: has a value that is more than one line",
        ),
        (
            'requests: [{path: /, headers: {"X: y\\r\\nZ": b}}]',
            "7: x-testbed.load.requests[0].headers.X: y??Z: is not a header's name",
        ),
        (
            "requests: [{path: /, headers: {content-length: 3}}]",
            "7: x-testbed.load.requests[0].headers.content-length: is set by the load generator",
        ),
        (
            "requests: [{path: /, headers: {X: a, x: b}}]",
            "7: x-testbed.load.requests[0].headers.x: is there twice",
        ),
        ("requests: [{path: /, headers: [X]}]", "7: x-testbed.load.requests[0].headers: is a list; expected a mapping"),
        ("schedule: bursts", "7: x-testbed.load.schedule: is 'bursts'; expected one of poisson, constant, ramp, trace"),
        ("ramp_from_per_s: 3", "7: x-testbed.load.ramp_from_per_s: is there without a ramp"),
        ("schedule: ramp, ramp_from_per_s: -3", "7: x-testbed.load.ramp_from_per_s: is '-3'"),
        ("trace: day.csv", "7: x-testbed.load.trace: is there without its schedule"),
        ("schedule: trace", "7: x-testbed.load.schedule: is a trace, and none is named"),
        ("schedule: trace, trace: day.csv, rates_per_s: [1]", "7: x-testbed.load.rates_per_s: is there beside a trace"),
        ("schedule: trace, trace: none.csv", "7: x-testbed.load.trace: read "),
        ("schedule: trace, trace: ../day.csv", "7: x-testbed.load.trace: is '../day.csv'; expected the name of a CSV"),
        ("schedule: trace, trace: /etc/passwd", "7: x-testbed.load.trace: is '/etc/passwd'"),
        ("schedule: trace, trace: link.csv", "7: x-testbed.load.trace: "),
        ("schedule: trace, trace: folder", "7: x-testbed.load.trace: read "),
        ("schedule: trace, trace: pipe", "7: x-testbed.load.trace: read "),
        ("schedule: ramp, rates_per_s: [600000]", "7: x-testbed.load.rates_per_s: makes 6000000 requests in all"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_key(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text("t_s,rate_per_s\n0,10\n")
    (tmp_path / "link.csv").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (line,) = error_of(tmp_path, f"  load: {{{text}}}\n")
    assert line.startswith(expected)
    assert line.isprintable()


def test_all_mistakes_of_a_load_are_told_at_once(tmp_path: Path) -> None:
    text = """\
  load:
    schedule: trace
    trace: /day.csv
    connections: 0
    requests:
      - {path: nowhere, weight: -1}
      - {method: PUT, headers: {Host: "a b", Upgrade: h2c}, body: [1]}
"""
    assert [line.split(": ")[:2] for line in error_of(tmp_path, text)] == [
        ["9", "x-testbed.load.trace"],
        ["10", "x-testbed.load.connections"],
        ["12", "x-testbed.load.requests[0].weight"],
        ["12", "x-testbed.load.requests[0].path"],
        ["13", "x-testbed.load.requests[1].body"],
        ["13", "x-testbed.load.requests[1].path"],
        ["13", "x-testbed.load.requests[1].headers.Upgrade"],
    ]


def test_a_trace_is_read_from_the_scenario_s_folder(tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text("t_s,rate_per_s\n0,0\n5, 40\n7.5,20.5\r\n")
    scenario = scenario_of(tmp_path, "  load: {schedule: trace, trace: day.csv, duration_s: 10}\n")
    read = scenario.settings.load
    assert read.schedule == Schedule("trace", trace=((0.0, 0.0), (5.0, 40.0), (7.5, 20.5)))
    assert read.rates_per_s == (15.125,), "it is called by its mean"
    assert scenario.quick.load.duration_s == 10, "the first four seconds have no request"


def test_quick_replays_the_beginning_of_a_trace(tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text("t_s,rate_per_s\n0,10\n2,30\n")
    quick = scenario_of(tmp_path, "  load: {schedule: trace, trace: day.csv, duration_s: 60}\n").quick.load
    assert (quick.duration_s, quick.rates_per_s) == (4.0, (20.0,))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "t_s,rate_per_s\n",
        "rate,t\n0,1\n",
        "t_s,rate_per_s\n1,10\n",
        "t_s,rate_per_s\n0,10\n0,20\n",
        "t_s,rate_per_s\n0,10\n5\n",
        "t_s,rate_per_s\n0,10\n5,-1\n",
        "t_s,rate_per_s\n0,nan\n",
        "t_s,rate_per_s\n0,1e3\n",
        "t_s,rate_per_s\n0,10000000\n",
        "t_s,rate_per_s\n0,10\n90000,10\n",
        "t_s,rate_per_s\n0,0\n",
        "t_s,rate_per_s\n" + "".join(f"{number},1\n" for number in range(10_001)),
        "t_s,rate_per_s\n0,10\n" + "5,1" + " " * (1 << 20) + "\n",
        "t_s,rate_per_s\n0,\x1b[31m\n",
        "\xff\xfe",
    ],
    ids=range(16),
)
def test_a_file_that_is_no_trace_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_bytes(content.encode("latin-1"))
    (line,) = error_of(tmp_path, "  load: {schedule: trace, trace: day.csv}\n")
    assert line.startswith("7: x-testbed.load.trace: ")
    assert line.isprintable() and len(line) < 400

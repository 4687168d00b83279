"""Where an application is asked whose files do not say how it is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.load.requests import ANY_STATUS
from testbed.scenario.model import Asked, Scenario, load

SETTINGS = "x-testbed: {trials: 3, ready: {service: web, port: 81, path: /own}}\n"
CHECKED = "  web: {{image: x, ports: [{}], healthcheck: {{test: {}}}}}\n"


def read(folder: Path, services: str, asked: Asked = Asked()) -> Scenario:  # noqa: B008
    (folder / "compose.yaml").write_text(f"services:\n{services}")
    return load(f"{folder}/compose.yaml", folder, asked, {})


@pytest.mark.parametrize(
    ("services", "front"),
    [
        ("  web: {image: x, ports: ['8080:80']}\n", ("web", 80, "/")),
        ("  web: {image: x, ports: ['53:53/udp', '443:443', '8080:80']}\n", ("web", 80, "/")),
        ("  web: {image: x, ports: ['9999:9999', '9998:9998']}\n", ("web", 9999, "/")),
        ("  db: {image: x, ports: [5432]}\n  web: {image: x, ports: [3000], depends_on: [db]}\n", ("web", 3000, "/")),
        ("  web: {image: x, ports: [8000], depends_on: [db]}\n  db: {image: x, ports: [8080]}\n", ("web", 8000, "/")),
        ("  web: {image: x, expose: [8000]}\n  db: {image: x, ports: [5432]}\n", ("db", 5432, "")),
        ("  web: {image: x, expose: [8000]}\n", ("web", 8000, "/")),
        (CHECKED.format("80, 9000", "curl -f http://localhost:9000/up?a=b || exit 1"), ("web", 9000, "/up?a=b")),
        (CHECKED.format("80", "[CMD, wget, 'http://127.0.0.1']"), ("web", 80, "/")),
        (CHECKED.format("3000", "curl localhost:3000/health"), ("web", 3000, "/health")),
        (CHECKED.format("80", "curl http://localhost:81/x"), ("web", 80, "/")),
        (CHECKED.format("80", "redis-cli -u redis://localhost:80/0"), ("web", 80, "/")),
    ],
)  # fmt: skip
def test_what_is_asked(tmp_path: Path, services: str, front: tuple[str, int, str]) -> None:
    scenario = read(tmp_path, services)
    for settings in (scenario.settings, scenario.quick):
        ready, asked = settings.ready, settings.load
        assert (ready.service, ready.port, ready.path) == front
        assert (asked.service, asked.port, asked.path) == (front[0], front[1], front[2] or "/")
        assert settings.measures == (("start", "density", "utilisation") if front[2] else ("start",))
        assert ready.status == ANY_STATUS and [one.expect_status for one in asked.kinds] == [ANY_STATUS]
    assert {one.name: one.ports for one in scenario.services if one.ports} == {front[0]: (front[1],)}
    told = f"ready with the first answer of http://{front[0]}:{front[1]}{front[2]} ("
    connected = f"ready when {front[0]} takes a connection at port {front[1]}"
    assert (told if front[2] else connected) in scenario.application.notes[-1]


def test_nothing_is_asked_of_what_has_no_port(tmp_path: Path) -> None:
    scenario = read(tmp_path, "  worker: {image: x}\n")
    assert scenario.settings.ready.service == ""
    assert scenario.application.notes[-1].endswith("no service publishes a port, so nothing is asked of it")


@pytest.mark.parametrize("beside", [SETTINGS, "trials: 3\nready: {service: web, port: 81, path: /own}\n"])
def test_settings_in_a_file_beside(tmp_path: Path, beside: str) -> None:
    (tmp_path / "testbed.yaml").write_text(beside)
    asked = Asked(settings=f"{tmp_path}/testbed.yaml")
    for own in ("", "x-testbed: {ready: {service: web, port: 82}}\n"):
        scenario = read(tmp_path, f"  web: {{image: x, ports: [80]}}\n{own}", asked)
        assert (scenario.settings.trials, scenario.settings.ready.port, scenario.settings.load.path) == (3, 81, "/own")
        assert scenario.services[0].ports == (80,)


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ("ready: {service: db, port: 1}\n", "testbed.yaml:1: x-testbed.ready.service: 'db' is no service"),
        ("reddy: {}\n", "testbed.yaml:1: x-testbed.reddy: is not supported"),
        ("", "testbed.yaml:1: no documents"),
        ("[\n", "testbed.yaml:2: not well-formed YAML"),
    ],
)
def test_mistakes_in_that_file(tmp_path: Path, beside: str, message: str) -> None:
    (tmp_path / "testbed.yaml").write_text(beside)
    with pytest.raises(UsageError) as caught:
        read(tmp_path, "  web: {image: x, ports: [80]}\n", Asked(settings=f"{tmp_path}/testbed.yaml"))
    assert message in str(caught.value)


def test_files_are_merged_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("services: {web: {ports: [81]}}\n")
    asked = Asked(files=(f"{tmp_path}/b.yaml",))
    (tmp_path / "compose.override.yaml").write_text("services: {web: {ports: [82]}}\n")
    (tmp_path / "compose.yaml").write_text("services: {web: {image: x, ports: [80]}}\n")
    for name in (f"{tmp_path}/compose.yaml", str(tmp_path)):
        scenario = load(name, tmp_path, asked, {})
        assert [one.target for one in scenario.services[0].offers] == [80, 81]
        assert scenario.application.notes[0] == "merged: compose.yaml, b.yaml"


def test_a_name_that_ends_as_a_compose_file_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prod.yaml").write_text("services: {web: {image: x, ports: [80]}}\n")
    monkeypatch.chdir(tmp_path)
    assert load("prod.yaml", tmp_path / "scenarios").services[0].name == "web"


def test_a_mistake_that_a_variable_makes_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, "  web: {image: x, volumes: ['${WHERE}:/data'], ports: [80]}\n")
    assert "volumes[0]: is ':/data', whose source is empty" in str(caught.value)
    assert caught.value.hint == "these variables have no value here: WHERE"

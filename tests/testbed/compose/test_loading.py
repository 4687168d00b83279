"""What compose files take from other files: extends, include, variables, profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.compose.application import NOTHING_ASKED, Asked
from tests.testbed.compose.applications import read_files


def test_services_extend_each_other(tmp_path: Path) -> None:
    common = """
services:
  base: {image: "busybox:$TAG", environment: {A: "1", B: "1"}, volumes: ["./data:/data"], command: [a]}
  middle: {extends: base, environment: {B: "2"}, ports: [80]}
"""
    text = """
services:
  web:
    extends: {file: sub/common.yaml, service: middle}
    environment: {C: "3"}
    command: !reset null
    ports: [81]
  same: {extends: {service: web}, image: other}
"""
    application = read_files(tmp_path, {"compose.yaml": text, "sub/common.yaml": common}, "compose.yaml", TAG="7")
    services = {service.name: service for service in application.services}
    web = services["web"]
    assert web.image == "busybox:7" and services["same"].image == "other"
    assert web.environment == (("A", "1"), ("B", "2"), ("C", "3")) == services["same"].environment
    assert web.ports == (80, 81) and web.command is None
    assert web.mounts[0].source == f"{tmp_path}/sub/data", "from the file that says it"


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ("web", "compose.yaml:1: services.web.extends: is a cycle: web -> web"),
        ("nobody", "services.web.extends: 'nobody' is no service to extend; expected one of web"),
        ("{service: x, file: gone.yaml}", "services.web.extends.file: there is no file 'gone.yaml'"),
        ("{service: x, file: 'https://h/c.yaml'}", "services.web.extends.file: 'https://h/c.yaml' is not on this host"),
        ("{file: other.yaml}", "services.web.extends.service: is missing"),
        ("{service: x, file: secret}", "services.web.extends.file: 'secret' is no YAML by its name"),
        ("{service: x, file: link.yaml}", "a link that leads out of"),
        ("{service: b, file: other.yaml}", "other.yaml:1: services.b.extends: is a cycle: web -> b -> web"),
        ("{service: x, file: other.yaml, files: y}", "services.web.extends.files: is not supported"),
    ],
)
def test_what_cannot_be_extended(tmp_path: Path, extends: str, message: str) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (tmp_path / "outside.yaml").write_text("root:password\n")
    (folder / "secret").write_text("root:password\n")
    (folder / "link.yaml").symlink_to("../outside.yaml")
    other = "services: {a: {extends: b}, b: {extends: {service: web, file: compose.yaml}}}\n"
    text = f"services: {{web: {{image: nginx, extends: {extends}}}}}\n"
    with pytest.raises(UsageError) as caught:
        read_files(folder, {"compose.yaml": text, "other.yaml": other}, "compose.yaml")
    assert message in str(caught.value) and "password" not in str(caught.value)


def test_included_files_have_folders_and_variables_of_their_own(tmp_path: Path) -> None:
    files = {
        "compose.yaml": """
include:
  - sub/compose.yaml
  - path: [other/a.yaml, other/b.yaml]
    env_file: other.env
    project_directory: place
services: {web: {image: "nginx:$TAG", depends_on: [db, cache]}}
volumes: {shared: }
""",
        ".env": "TAG=outer\n",
        "sub/.env": "TAG=inner\nDB=13\n",
        "sub/compose.yaml": "services: {db: {image: 'pg:$DB-$TAG', volumes: ['./d:/d', 'v:/v']}}\nvolumes: {v: }\n",
        "other.env": "TAG=x\nN=5\n",
        "other/a.yaml": "services: {cache: {image: 'redis:$N', volumes: ['./d:/d']}}\n",
        "other/b.yaml": "services: {cache: {command: [b]}}\n",
    }
    application = read_files(tmp_path, files, "compose.yaml")
    services = {service.name: service for service in application.services}
    assert services["web"].image == "nginx:outer"
    assert services["db"].image == "pg:13-outer", "the outer project's variables come first"
    assert services["db"].mounts[0].source == f"{tmp_path}/sub/d"
    assert services["cache"].image == "redis:5" and services["cache"].command == ("b",)
    assert services["cache"].mounts[0].source == f"{tmp_path}/place/d"
    assert {volume.name for volume in application.volumes} == {"shared", "v"}


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("[other.yaml]", r"compose.yaml:1: include\[0\]: has services.web, which this file has otherwise"),
        ("[compose.yaml]", r"include\[0\]: 'compose.yaml' includes this file"),
        ("[gone.yaml]", r"include\[0\]: there is no file 'gone.yaml'"),
        ("['oci://h/x']", r"include\[0\]: 'oci://h/x' is not on this host"),
        ("[{path: fine.yaml, env_file: gone.env}]", r"include\[0\]: read .*gone.env"),
        ("text", r"include: is 'text'; expected a list"),
    ],
)
def test_what_cannot_be_included(tmp_path: Path, include: str, message: str) -> None:
    other = "services: {web: {image: other}}\n"
    fine = "services: {b: {image: other}}\n"
    text = f"include: {include}\nservices: {{web: {{image: nginx}}}}\n"
    with pytest.raises(UsageError, match=message):
        read_files(tmp_path, {"compose.yaml": text, "other.yaml": other, "fine.yaml": fine}, "compose.yaml")


def test_the_same_file_may_be_included_twice(tmp_path: Path) -> None:
    files = {
        "compose.yaml": "include: [a.yaml, b.yaml]\nservices: {web: {image: nginx}}\n",
        "a.yaml": "include: [common.yaml]\nservices: {a: {image: x}}\n",
        "b.yaml": "include: [common.yaml]\nservices: {b: {image: x}}\n",
        "common.yaml": "services: {c: {image: x}}\n",
    }
    application = read_files(tmp_path, files, "compose.yaml")
    assert {service.name for service in application.services} == {"web", "a", "b", "c"}


def test_the_environment_comes_before_the_file_of_variables(tmp_path: Path) -> None:
    text = "services: {web: {image: '$A-$B-$C', environment: [A, NONE, D=$$A]}}\n"
    files = {"compose.yaml": text, ".env": "A=file\nB=file-$A\n"}
    application = read_files(tmp_path, files, "compose.yaml", A="outer")
    (web,) = application.services
    assert web.image == "outer-file-outer-" and web.environment == (("A", "outer"), ("D", "$A"))
    assert application.variables == (("A", "outer"), ("B", "file-outer"))
    assert "variables without a value, taken as empty: C" in application.notes
    asked = Asked(env_files=(f"{tmp_path}/own.env",))
    files = {"compose.yaml": text, "own.env": "C=own\n"}
    assert read_files(tmp_path, files, "compose.yaml", asked=asked).services[0].image == "--own"


def test_profiles(tmp_path: Path) -> None:
    text = """
services:
  web: {image: nginx, depends_on: {debug: {condition: service_started, required: false}}}
  debug: {image: x, profiles: [debug, dev]}
  test: {image: x, profiles: test, depends_on: [debug]}
"""
    files = {"compose.yaml": text}

    def names(asked: Asked = NOTHING_ASKED, **variables: str) -> list[str]:
        return [service.name for service in read_files(tmp_path, files, asked=asked, **variables).services]

    assert names() == ["web"]
    assert names(Asked(profiles=("dev",))) == ["debug", "web"]
    assert names(COMPOSE_PROFILES="test,debug") == ["debug", "web", "test"]
    assert names(Asked(profiles=("*",))) == ["debug", "web", "test"]
    with pytest.raises(UsageError, match=r"services.test.depends_on: 'debug' is of a profile that is not on"):
        names(Asked(profiles=("test",)))


def test_all_mistakes_of_all_files_are_told_by_file_and_line(tmp_path: Path) -> None:
    files = {
        "compose.yaml": "services:\n  web:\n    imagee: x\n    ports: [x]\n",
        "over.yaml": "services:\n  web:\n    dns: ['${']\n  db:\n    user: [a]\n",
    }
    with pytest.raises(UsageError) as caught:
        read_files(tmp_path, files)
    reported = [line.removeprefix(f"{tmp_path}/").split(": ")[:2] for line in str(caught.value).splitlines()]
    assert [tuple(one) for one in reported] == [
        ("compose.yaml:3", "services.web.imagee"),
        ("compose.yaml:4", "services.web.ports[0]"),
        ("over.yaml:2", "services.web.build"),
        ("over.yaml:3", "services.web.dns[0]"),
        ("over.yaml:4", "services.db.build"),
        ("over.yaml:5", "services.db.user"),
    ]

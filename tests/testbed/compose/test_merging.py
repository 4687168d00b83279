"""Several files as one: what compose-spec's "Merge" and compose-go's own tests say of each kind of key."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.compose.model import Dependency, Port
from tests.testbed.compose.applications import read_files

BASE = """
services:
  web:
    image: nginx
    command: [one, two]
    environment: {A: "1", B: "2"}
    labels: [x=1]
    ports: ["8080:80", "9000:90"]
    volumes: ["./a:/work", "named:/data:ro"]
    expose: ["1"]
    dns: 1.1.1.1
    tmpfs: /run
    cap_add: [NET_ADMIN]
    depends_on: [db]
    networks: [front]
    ulimits: {nofile: 10, nproc: {soft: 1, hard: 2}}
    healthcheck: {test: [CMD, a], interval: 10s}
    build: .
    x-own: {a: 1, b: 2}
    secrets: [s]
    extra_hosts: ["h:1.2.3.4"]
    logging: {driver: syslog, options: {a: b}}
  db: {image: postgres}
volumes: {named: }
networks: {front: , back: }
secrets: {s: {content: one}}
"""
OVER = """
services:
  web:
    command: three
    environment: [B=3, C=4]
    labels: {y: "2"}
    ports: ["8080:80", "8443:443"]
    volumes: ["./b:/work"]
    expose: ["1", "2"]
    dns: [8.8.8.8]
    tmpfs: [/run, /tmp]
    cap_add: [NET_ADMIN, SYS_TIME]
    depends_on: {cache: {condition: service_healthy}}
    networks: {back: {aliases: [w]}}
    ulimits: {nofile: {soft: 5, hard: 6}}
    healthcheck: {test: b, retries: 7}
    build: {args: {X: y}}
    x-own: {c: 3}
    secrets: [{source: s, target: s, mode: 0400}]
    extra_hosts: {h: 5.6.7.8}
    logging: {driver: json-file}
  cache: {image: redis}
"""


@pytest.fixture(autouse=True)
def dockerfile(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")


def test_each_key_has_its_rule(tmp_path: Path) -> None:
    application = read_files(tmp_path, {"compose.yaml": BASE, "over.yaml": OVER})
    services = {service.name: service for service in application.services}
    web = services["web"]
    assert set(services) == {"web", "db", "cache"}
    assert web.command == ("three",)
    assert web.environment == (("A", "1"), ("B", "3"), ("C", "4"))
    assert web.offers[:3] == (Port(80, published="8080"), Port(90, published="9000"), Port(443, published="8443"))
    assert [(one.target, one.source) for one in web.mounts[:2]] == [("/work", f"{tmp_path}/b"), ("/data", "named")]
    assert [one.target for one in web.mounts] == ["/work", "/data", "/run", "/tmp"]
    assert [one.target for one in web.offers if one.exposed] == [1, 2]
    assert web.dns == ("1.1.1.1", "8.8.8.8")
    assert web.cap_add == ("CAP_NET_ADMIN", "CAP_SYS_TIME")
    assert web.depends_on == (Dependency("db"), Dependency("cache", "service_healthy"))
    assert [(one.network, one.aliases) for one in web.networks] == [("front", ()), ("back", ("w",))]
    assert [(one.name, one.soft, one.hard) for one in web.ulimits] == [("nofile", 5, 6), ("nproc", 1, 2)]
    assert web.healthcheck is not None and web.healthcheck.test == ("/bin/sh", "-c", "b")
    assert (web.healthcheck.interval_s, web.healthcheck.retries) == (10.0, 7)
    assert web.build is not None and web.build.args == (("X", "y"),) and web.build.context == tmp_path
    assert [(one.target, one.mode) for one in web.secrets] == [("/run/secrets/s", 0o400)]
    assert web.hosts == (("h", "5.6.7.8"),)


def test_reset_and_override(tmp_path: Path) -> None:
    over = """
services:
  web:
    ports: !override ["1:1"]
    environment: {A: !reset null}
    volumes: !reset []
    command: !reset null
    dns: !override 9.9.9.9
    healthcheck: !override {test: c}
    secrets: !reset
  db: !reset null
"""
    application = read_files(tmp_path, {"compose.yaml": BASE.replace("depends_on: [db]", ""), "over.yaml": over})
    (web,) = application.services
    assert web.offers[0] == Port(1, published="1") and web.environment == (("B", "2"),)
    assert web.command is None and web.dns == ("9.9.9.9",) and web.secrets == ()
    assert [one.target for one in web.mounts] == ["/run"]
    assert web.healthcheck is not None and web.healthcheck.interval_s == 30.0


def test_marks_without_a_base_are_no_values(tmp_path: Path) -> None:
    text = "services: {web: {image: nginx, dns: !reset [1.1.1.1], ports: !override [80], command: [a, !reset b]}}\n"
    (web,) = read_files(tmp_path, {"compose.yaml": text}).services
    assert (web.dns, web.ports, web.command) == ((), (80,), ("a",))


def test_null_changes_nothing_but_a_scalar(tmp_path: Path) -> None:
    over = "services: {web: {environment: , ports: , working_dir: }}\n"
    base = BASE.replace("image: nginx", "image: nginx\n    working_dir: /srv")
    web = read_files(tmp_path, {"compose.yaml": base, "over.yaml": over}).services[-1]
    assert len(web.environment) == 2 and len(web.ports) == 3 and web.working_dir == ""


def test_documents_of_one_file_are_merged(tmp_path: Path) -> None:
    text = "services: {web: {image: nginx, ports: [80]}}\n---\nservices: {web: {ports: [81]}}\n"
    (web,) = read_files(tmp_path, {"compose.yaml": text}).services
    assert web.ports == (80, 81)


def test_paths_start_from_the_first_file(tmp_path: Path) -> None:
    over = "services: {web: {volumes: ['./c:/work']}}\n"
    web = read_files(tmp_path, {"compose.yaml": BASE, "sub/over.yaml": over}).services[-1]
    assert web.mounts[0].source == f"{tmp_path}/c"


def test_forms_that_do_not_fit_are_named_with_both_files(tmp_path: Path) -> None:
    over = "services:\n  web:\n    volumes: {a: b}\n"
    with pytest.raises(
        UsageError, match=r"over.yaml:3: services.web.volumes: is a mapping, and a list in compose.yaml"
    ):
        read_files(tmp_path, {"compose.yaml": BASE, "over.yaml": over})


def test_merging_what_multiplies_ends(tmp_path: Path) -> None:
    levels = "\n".join(
        f"n{level}: &n{level} {{{', '.join(f'k{index}: *n{level - 1}' for index in range(9))}}}"
        for level in range(1, 9)
    )
    text = f"n0: &n0 {{a: 1}}\n{levels}\nservices: {{web: {{image: nginx}}}}\n"
    began_s = time.process_time()
    with pytest.raises(UsageError, match="more than 100000 values to merge"):
        read_files(tmp_path, {"compose.yaml": text, "over.yaml": text})
    assert time.process_time() - began_s < 10

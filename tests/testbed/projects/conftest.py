"""A small application for tests of projects: two services of one image that is made of a static busybox."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.projects.control import bring_down, bring_up
from testbed.projects.holder import Order
from testbed.projects.record import Project, find
from testbed.projects.volumes import remove_volumes
from tests.owned import no_dead_run_left

DOCKERFILE = """FROM scratch
COPY busybox /bin/busybox
COPY busybox /bin/sh
COPY index.html /www/index.html
COPY index.html /data/seed
ENV PATH=/bin GREETING=hello
CMD ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
"""
COMPOSE = """name: {name}
services:
  web:
    build: ./web
    command: ["/bin/busybox", "httpd", "-f", "-p", "{port}", "-h", "/www"]
    ports: ["{port}"]
    depends_on: [side]
    deploy: &limits {{resources: {{limits: {{cpus: "0.5", memory: 128M}}}}}}
  side:
    build: ./web
    command: ["/bin/sh", "-c", {script}]
    deploy: *limits
x-testbed:
  ready: {{service: web, port: {port}, path: /index.html, body: here, timeout_s: 10}}
"""
# Ends well when it is asked to, and says so.
SIDE = '''"trap 'echo asked to end; exit 7' TERM; echo began >&2; while :; do busybox sleep 0.05; done"'''
Write = Callable[..., Path]
Start = Callable[..., Project]


@pytest.fixture
def write_scenario(tmp_path: Path, run_name: str) -> Write:
    """Return what writes the scenario and returns its folder."""

    def write(script: str = SIDE, port: int = 18099, compose: str = COMPOSE) -> Path:
        folder = tmp_path / "app"
        (folder / "web").mkdir(parents=True)
        shutil.copy2("/bin/busybox", folder / "web" / "busybox")
        (folder / "web" / "Dockerfile").write_text(DOCKERFILE)
        (folder / "web" / "index.html").write_text("<p>here</p>\n")
        (folder / "compose.yaml").write_text(compose.format(name=run_name, port=port, script=script))
        return folder

    return write


@pytest.fixture
def start(home: Path, run_name: str) -> Iterator[Start]:
    """Return what brings a scenario up; whatever is up at the end is brought down, and nothing may be left then."""
    names: list[str] = []

    def bring(
        folder: Path, name: str = run_name, platform: str = "container", timeout_s: float | None = None
    ) -> Project:
        names.append(name)
        order = Order(name, str(folder), str(folder.parent), platform, timeout_s=timeout_s)
        return bring_up(order, lambda line: None, share=True)

    with no_dead_run_left():
        yield bring
        for name in names:
            if (project := find(name)) is not None:
                bring_down(project, 0)
            assert find(name) is None
            remove_volumes(name)

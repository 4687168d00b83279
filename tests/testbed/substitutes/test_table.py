"""Which images have a substitute, and that each can be built: its Dockerfile, and the files that it copies."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from runtime import container
from runtime.builder import dockerfile
from runtime.builder.context import Context
from runtime.home import store_root
from runtime.images.process import image_process
from runtime.images.store import Store
from runtime.spec import Resources, Spec
from testbed.substitutes.resolving import find_image, resolver
from testbed.substitutes.table import FOLDER, SHARED, Substitute, find_substitute, list_substitutes


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("nginx", "nginx"),
        ("nginx:1.27-alpine", "nginx"),
        ("docker.io/library/redis:7", "redis"),
        ("docker.io/postgres:16@sha256:" + "a" * 64, "postgres"),
        ("library/php", "php"),
        ("php:8.3-apache", "php-apache"),
        ("php:8-fpm-alpine", "php-fpm"),
        ("rabbitmq:3", "rabbitmq"),
        ("bitnami/redis", ""),
        ("ghcr.io/library/redis", ""),
        ("redis/redis-stack", ""),
        ("mongo", ""),
        ("localhost:5000/nginx", ""),
        ("", ""),
    ],
)
def test_which_image_has_one(reference: str, name: str) -> None:
    found = find_substitute(reference)
    assert (found.name if found else "") == name


def test_a_tag_may_ask_for_more() -> None:
    management = find_substitute("rabbitmq:3-management")
    assert management is not None and "rabbitmq_management" in dict(management.arguments)["PLUGINS"]
    assert management.reference != Substitute("rabbitmq").reference


@pytest.mark.parametrize("folder", sorted(FOLDER.iterdir()), ids=lambda folder: folder.name)
def test_each_can_be_planned(folder: Path) -> None:
    file = dockerfile.read(folder / "Dockerfile", folder)
    assert (file.instructions[0].name, file.instructions[0].words) == ("FROM", ("testbed/base",))
    own, shared = Context.at(folder, folder / "Dockerfile"), Context.at(SHARED)
    for instruction in file.instructions:
        if instruction.name == "COPY":
            context = shared if instruction.flag("from") == "shared" else own
            words = [word for word in instruction.words if not word.startswith("--")]
            assert all(list(context.sources(word)) for word in words[:-1])
    assert folder.name.partition("-")[0] in list_substitutes() and Substitute(folder.name).package


@pytest.mark.parametrize(
    ("name", "counted_on"),
    [
        ("python", {"ca-certificates", "netbase", "tzdata", "python3-pip"}),
        ("node", {"npm", "yarnpkg"}),
        ("php-fpm", {"curl", "xz-utils"}),
    ],
)
def test_files_count_on_what_the_official_image_has(name: str, counted_on: set[str]) -> None:
    """Public Dockerfiles use these without installing them: the zone of time by dpkg-reconfigure, for one."""
    file = dockerfile.read(FOLDER / name / "Dockerfile", FOLDER / name)
    installed = {word for one in file.instructions if one.name == "RUN" for word in " ".join(one.words).split()}
    assert counted_on <= installed


def test_extensions_of_php_are_packages_of_the_distribution(tmp_path: Path) -> None:
    for name, text in (
        ("php", 'case "$2" in *pcntl*) ;; *) exit 1 ;; esac'),
        ("apt-get", 'echo "$@"'),
        ("find", "echo x"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = SHARED / "php/docker-php-ext-install"
    words = [str(script), "-j", "4", "mysqli", "pdo_pgsql", "xsl", "intl", "pcntl"]
    done = subprocess.run(words, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-4:] == ["php-mysql", "php-pgsql", "php-xml", "php-intl"]
    none = subprocess.run(
        [str(script), "pcntl"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, check=True
    )
    assert none.stdout == b"", "it is there already"


@pytest.mark.parametrize(
    "script", sorted([*FOLDER.rglob("*.sh"), *SHARED.glob("php/*")]), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_scripts_are_a_shells(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", script], check=True)


@pytest.mark.root
@pytest.mark.network
def test_a_substitute_runs_as_the_image_does(cgroup_parent: str, tmp_path: Path) -> None:
    """Options alone are the server's, which runs as a user of its own, in the folder of its data."""
    told: list[str] = []
    image = find_image("redis:7-alpine", resolver(Store(store_root() / "images"), told.append, environment={}))
    assert any("redis:7-alpine is not to be had: redis-server of the distribution" in line for line in told)
    process = image_process(image, command=("--port", "7000"), environment={})
    script = (
        '"$@" & until redis-cli -p 7000 ping; do sleep 0.1; done; stat -c %U /proc/$!; redis-cli -p 7000 config get dir'
    )
    process = image_process(image, command=("-c", script, "-", *process.args), entrypoint=("sh",), environment={})
    spec = Spec(process, tuple(str(layer.path) for layer in image.layers), "redis", Resources(128 << 20, 1.0, 32))
    log = tmp_path / "log"
    with log.open("wb") as file:
        assert container.run(spec, name=f"{cgroup_parent}/redis", log=file.fileno()) == 0, log.read_text()
    assert log.read_text().splitlines()[-4:] == ["PONG", "redis", "dir", "/data"]


@pytest.mark.root
@pytest.mark.network
def test_a_database_has_the_healthcheck_of_the_image(cgroup_parent: str, tmp_path: Path) -> None:
    """It fails as long as the server does not listen to other hosts, and passes then, without a password."""
    image = find_image("mariadb:11", resolver(Store(store_root() / "images"), print, environment={}))
    process = image_process(image, environment={})
    script = """
        healthcheck.sh --connect 2>&1 || echo early
        "$@" 2>/dev/null & until healthcheck.sh --connect --innodb_initialized 2>/dev/null; do sleep 0.2; done
        healthcheck.sh --galera_online 2>&1 || echo none of the tests; echo ready; kill %1; wait
    """
    command = ("-c", script, "-", *process.args)
    environment = {"MARIADB_ROOT_PASSWORD": "it's"}
    process = image_process(image, command=command, entrypoint=("bash",), environment=environment)
    spec = Spec(process, tuple(str(layer.path) for layer in image.layers), "db", Resources(512 << 20, 1.0, 128))
    log = tmp_path / "log"
    with log.open("wb") as file:
        assert container.run(spec, name=f"{cgroup_parent}/db", log=file.fileno()) == 0, log.read_text()
    assert re.search(r"(?s)early.*--galera_online is none of .*none of the tests\nready\n$", log.read_text())

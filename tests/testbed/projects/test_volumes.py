"""What services of virtual machines mount of the host: the same bytes as in containers, for several at once, and no
more than that, whatever a guest tries."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.projects.control import bring_down
from testbed.projects.record import Project
from testbed.projects.volumes import volumes_folder
from tests.testbed.projects.conftest import Start, Write
from tests.testbed.projects.test_compose import execute

pytestmark = [pytest.mark.root, pytest.mark.vm]

COMPOSE = """name: {name}
services:
  web:
    build: ./web
    ports: ["{port}:8080"]
    volumes: ["data:/data", "./out:/out", "./conf:/conf:ro", "/anonymous"]
    secrets: [{{source: token, uid: "33", mode: 0440}}]
    depends_on: [side]
    deploy: &limits {{resources: {{limits: {{cpus: "0.5", memory: 128M}}}}}}
  side:
    build: ./web
    command: ["/bin/sh", "-c", {script}]
    volumes: ["data:/data:ro", "./out:/out", "./conf/file:/etc/one", "/anonymous"]
    cap_add: [SYS_ADMIN]
    deploy: *limits
volumes: {{data: }}
secrets: {{token: {{file: ./token}}}}
x-testbed:
  ready: {{service: web, port: 8080, path: /index.html}}
"""
# What a guest may try: through a link and past the top, to a device, and to the whole of its device without the flags
# of its mounts. It says what it could do.
HOSTILE = """
busybox ln -s {outside} /out/link; busybox cat /out/link /out/../outside /out/../../../{outside} && echo read
busybox mknod /out/disk b 8 0 && echo made
busybox mount -o remount,rw /data; echo > /data/mine && echo wrote
busybox mkdir /whole; busybox mount -t virtiofs testbed /whole && echo mounted
for one in /whole /whole/*; do echo > $one/mine; busybox mkdir $one/deep; done
busybox cat /whole/../outside && echo read
busybox ls /whole/*/
exit 0
"""


@pytest.fixture
def folder(write_scenario: Write) -> Path:
    folder = write_scenario(port=18097, compose=COMPOSE)
    (folder / "conf").mkdir()
    (folder / "conf" / "file").write_text("as it was\n")
    (folder / "token").write_text("s3cret")
    (folder / "outside").write_text("not for guests\n")
    return folder


def look(project: Project, service: str, script: str) -> list[str]:
    return execute(project, service, script).split()


def check_sharing(project: Project) -> None:
    """Write in one service, and see it in the other."""
    assert look(project, "web", "busybox ls /data; busybox cat /run/secrets/token /conf/file") == [
        *("seed", "s3cretas", "it", "was"),
    ]
    assert look(project, "web", "busybox stat -c %u:%g:%a /run/secrets/token") == ["33:0:440"]
    execute(project, "web", "echo one > /out/a; echo > /data/new; echo > /anonymous/web")
    assert look(project, "side", "busybox cat /out/a; busybox ls /data /anonymous") == [
        *("one", "/anonymous:", "/data:", "new", "seed"),
    ]
    execute(
        project, "side", "echo two > /out/a; busybox chown 5:6 /out/a; busybox chmod 4751 /out/a; echo b > /etc/one"
    )
    assert look(project, "web", "busybox cat /out/a /conf/file; busybox stat -c %u:%g:%a /out/a") == [
        *("two", "b", "5:6:4751"),
    ]


def test_two_guests_and_later_containers_see_the_same_directories(start: Start, folder: Path, run_name: str) -> None:
    project = start(folder, platform="vm")
    check_sharing(project)
    out = folder / "out"
    assert (out / "a").read_text() == "two\n" and (folder / "conf" / "file").read_text() == "b\n"
    assert (out / "a").stat().st_mode == stat.S_IFREG | 0o4751 and (out / "a").stat().st_uid == 5
    (out / "a").write_text("new\n")
    assert look(project, "side", "busybox cat /out/a") == ["new"]
    execute(project, "web", "echo > /conf/x || echo > /out/refused")
    assert (out / "refused").exists() and not (folder / "conf" / "x").exists()

    told = look(project, "side", HOSTILE.format(outside=folder / "outside"))
    assert "mounted" in told and not {"read", "made", "wrote"} & {*told}
    data, secret = volumes_folder(run_name) / "data", folder / "token"
    assert not (out / "disk").exists() and (out / "link").is_symlink() and secret.read_text() == "s3cret"
    assert sorted(path.name for path in data.iterdir()) == ["new", "seed"]
    made = {path.name for path in out.iterdir()}
    assert {"a", "link", "refused"} <= made <= {"a", "link", "refused", "deep", "mine"}, "its own it may write to"

    bring_down(project, 0)
    volumes = volumes_folder(run_name)
    assert sorted(path.name for path in volumes.iterdir()) == ["data", "side@anonymous", "web@anonymous"]
    assert stat.S_IMODE(volumes.stat().st_mode) == 0o700
    project = start(folder)
    assert look(project, "web", "busybox ls /data /anonymous; busybox cat /out/a") == [
        *("/anonymous:", "web", "/data:", "new", "seed", "new"),
    ]


@pytest.mark.parametrize("platform", ["vm-micro", "vm-pod", "vm-containers"])
def test_other_machines_share_the_same_way(start: Start, folder: Path, platform: str) -> None:
    check_sharing(start(folder, platform=platform))


def test_a_machine_that_can_be_lent_nothing_shares_nothing(start: Start, folder: Path) -> None:
    with pytest.raises(
        UsageError, match=r"volume data is shared by side and web, which vm-ksm cannot have: KSM merges"
    ):
        start(folder, platform="vm-ksm")

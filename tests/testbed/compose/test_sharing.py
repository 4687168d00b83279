"""Whose namespaces services share: how files say it, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.compose.application import Asked
from testbed.compose.model import Application, Dependency
from testbed.compose.sharing import find_owner, list_borrowers
from tests.testbed.compose.applications import read_files


def read(folder: Path, services: str, *profiles: str) -> Application:
    indented = "".join(f"  {line}\n" for line in services.strip().splitlines())
    return read_files(folder, {"compose.yaml": f"services:\n{indented}"}, asked=Asked(profiles=profiles))


def test_a_container_is_a_service_of_the_file(tmp_path: Path) -> None:
    """By the name of its container, or by its own."""
    application = read(
        tmp_path,
        """
web: {image: x, network_mode: "container:tunnel", pid: "container:db", ipc: "service:db", depends_on: [db]}
vpn: {image: x, container_name: tunnel}
db: {image: x, ipc: shareable}
""",
    )
    *before, web = application.services
    assert {one.name for one in before} == {"vpn", "db"} and web.name == "web"
    assert (web.network_mode, web.pid, web.ipc) == ("service:vpn", "service:db", "service:db")
    assert web.depends_on == (Dependency("db"), Dependency("vpn"))


def test_one_may_share_what_another_shares(tmp_path: Path) -> None:
    services = read(
        tmp_path,
        """
last: {image: x, network_mode: "service:middle", ports: [81]}
middle: {image: x, network_mode: "service:first", pid: host}
first: {image: x, ports: [80]}
apart: {image: x, ipc: "service:last"}
""",
    ).services
    assert [one.name for one in services] == ["first", "middle", "last", "apart"]
    assert {one.name: find_owner(one, services).name for one in services} == {
        "first": "first", "middle": "first", "last": "first", "apart": "apart",
    }  # fmt: skip
    assert [one.name for one in list_borrowers("first", services)] == ["middle", "last", "apart"]
    assert list_borrowers("apart", services) == () and services[2].ports == (81,)


def test_without_a_network_nobody_asks_at_its_ports(tmp_path: Path) -> None:
    application = read(
        tmp_path, "web: {image: x, network_mode: 'service:alone', ports: [80]}\nalone: {image: x, network_mode: none}"
    )
    web = application.services[1]
    assert (web.offers, web.ports) == ((), ())
    assert any("ports (web)" in note for note in application.notes)


WRONG = [
    ("network_mode: 'service:gone'", "2: services.web.network_mode: 'gone' is no service of this file; expected"),
    ("pid: 'service:off'", "2: services.web.pid: 'off' is of a profile that is not on; expected --profile NAME"),
    ("pid: 'container:sleeping'", "services.web.pid: 'off' is of a profile that is not on"),
    ("ipc: 'container:x'", "services.web.ipc: 'x' is no container of this file, and there are no others; expected one"),
    ("network_mode: 'service:many'", "services.web.network_mode: 'many' has 3 copies, and no service shares with all"),
    ("network_mode: 'service:more'", "services.web.network_mode: 'more' has 2 copies, and no service shares with all"),
    ("ipc: 'service:own'", "services.web.ipc: 'own' keeps its own to itself (ipc: private); expected ipc: shareable"),
    ("ipc: 'service:without'", "services.web.ipc: 'without' keeps its own to itself (ipc: none)"),
    ("depends_on: [own], pid: 'service:web'", "services.web.pid: is a cycle: web -> web"),
    ("links: [own], network_mode: 'service:other'", "other.ipc: is a cycle: web -> other -> web"),
]
OTHERS = """
off: {image: x, profiles: [later], container_name: sleeping}
many: {image: x, deploy: {replicas: 3}}
more: {image: x, scale: 2}
own: {image: x, ipc: private}
without: {image: x, ipc: none}
other: {image: x, depends_on: [own], ipc: "service:web"}
"""


@pytest.mark.parametrize(("key", "message"), WRONG)
def test_what_cannot_be_shared_is_named_by_key(tmp_path: Path, key: str, message: str) -> None:
    others = OTHERS if "service:other" in key else OTHERS[: OTHERS.index("other:")]
    with pytest.raises(UsageError) as caught:
        read(tmp_path, f"web: {{image: x, {key}}}\n{others.strip()}")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path}/compose.yaml:") and message in line


def test_a_profile_that_is_on_has_what_is_shared(tmp_path: Path) -> None:
    text = "web: {image: x, pid: 'service:off'}\noff: {image: x, profiles: [later]}"
    assert [one.name for one in read(tmp_path, text, "later").services] == ["off", "web"]


@pytest.mark.parametrize(
    ("ipc", "size"),
    [("private", 2**20), ("shareable", 2**20), ("none", None), ("host", None), ("service:db", None)],
)
def test_who_has_anothers_shared_memory_has_it_as_large_as_that_is(tmp_path: Path, ipc: str, size: int | None) -> None:
    application = read(tmp_path, f"web: {{image: x, ipc: '{ipc}', shm_size: 1m}}\ndb: {{image: x}}")
    web = next(one for one in application.services if one.name == "web")
    assert web.shm_bytes == size
    assert any("shm_size (web)" in note for note in application.notes) == (size is None)

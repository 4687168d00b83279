"""A container's devices: nodes in its root, the host's own, or nodes that the launcher makes outside."""

from __future__ import annotations

import stat
from errno import EEXIST, EROFS

import pytest

from runtime.config.types import Device, IDMapping, Linux
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.devices import every_device, host_node_steps, link_steps, node_steps, outside_node_steps
from runtime.plan.mounts import FIRST_HELD
from tests.runtime.plan.bundles import assert_order, of_type

NUMBERS = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
FUSE = Device("/dev/fuse", "c", 10, 229, 0o600)
DEFAULTS = every_device(())


def only_node(device: Device) -> s.Mknod:
    (node,) = of_type(node_steps([device]), s.Mknod)
    return node


def test_every_container_has_the_specifications_devices_for_everybody() -> None:
    """config-linux.md, "Default Devices"."""
    found = {device.path: (device.type, device.major, device.minor, device.file_mode) for device in DEFAULTS}
    assert found == {f"/dev/{name}": ("c", *numbers, 0o666) for name, numbers in NUMBERS.items()}


def test_the_configurations_devices_come_after_them_and_may_replace_them() -> None:
    null = Device("/dev/null", "c", 1, 3, 0o600)
    paths = [device.path for device in every_device([null, FUSE])]
    assert sorted(paths) == sorted([*(f"/dev/{name}" for name in NUMBERS), "/dev/fuse"])
    assert every_device([null, FUSE])[-2:] == [null, FUSE]


def test_links_stand_back_behind_what_is_there() -> None:
    """The image may have them, or a /dev that cannot be written."""
    links = {step.path: step.target for step in of_type(link_steps(), s.Symlink)}
    streams = {f"dev/{name}": f"/proc/self/fd/{fd}" for fd, name in enumerate(("stdin", "stdout", "stderr"))}
    assert links == {"dev/fd": "/proc/self/fd", "dev/ptmx": "pts/ptmx", **streams}
    assert all(step.inside and {*step.tolerate} == {EEXIST, EROFS} for step in of_type(link_steps(), s.Symlink))


@pytest.mark.parametrize(
    ("kind", "type_bits"), [("c", stat.S_IFCHR), ("u", stat.S_IFCHR), ("b", stat.S_IFBLK), ("p", stat.S_IFIFO)]
)
def test_a_nodes_type(kind: str, type_bits: int) -> None:
    node = only_node(Device("/dev/x", kind, 7, 8))
    assert (stat.S_IFMT(node.mode), node.major, node.minor) == (type_bits, 7, 8)


@pytest.mark.parametrize(
    ("given", "mode"),
    [(None, 0o666), (0, 0), (0o600, 0o600), (0o4755, 0o4755), (stat.S_IFREG | 0o640, 0o640), (stat.S_IFBLK, 0)],
)
def test_a_nodes_mode_is_its_permissions_and_nothing_of_its_type(given: int | None, mode: int) -> None:
    node = only_node(Device("/dev/x", "c", 1, 1, given))
    assert node.mode == stat.S_IFCHR | mode


@pytest.mark.parametrize(
    ("uid", "gid", "owner"), [(None, None, (0, 0)), (5, None, (5, 0)), (None, 6, (0, 6)), (5, 6, (5, 6))]
)
def test_a_nodes_owner_is_root_unless_it_is_said(uid: int | None, gid: int | None, owner: tuple[int, int]) -> None:
    node = only_node(Device("/dev/x", "c", 1, 1, uid=uid, gid=gid))
    assert (node.uid, node.gid) == owner


def test_nodes_are_made_below_the_root_with_the_directories_that_they_lie_in() -> None:
    devices = [Device(path, "c", 1, 1) for path in ("/dev/a/b/x", "/dev/a/y", "/z", "/../dev/w")]
    steps = node_steps(devices)
    assert [step.path for step in of_type(steps, s.Mkdir)] == ["dev", "dev/a", "dev/a/b"], "each once"
    assert [step.path for step in of_type(steps, s.Mknod)] == ["dev/a/b/x", "dev/a/y", "z", "dev/w"]
    assert_order(steps, *(step for step in steps if isinstance(step, s.Mkdir)), s.Mknod)
    assert all(step.inside for step in of_type(steps, s.Mknod) + of_type(steps, s.Mkdir))


def test_a_dev_that_cannot_be_written_is_left_as_it_is() -> None:
    assert all(EROFS in step.tolerate for step in node_steps(DEFAULTS))
    assert not any(EEXIST in step.tolerate for step in of_type(node_steps(DEFAULTS), s.Mknod)), "an image's would stay"


def test_the_hosts_nodes_are_no_way_to_programs() -> None:
    attributes = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC
    assert host_node_steps([FUSE]) == [s.Bind("/dev/fuse", "dev/fuse", set=attributes)]
    assert [step.target for step in of_type(host_node_steps(DEFAULTS), s.Bind)] == [f"dev/{name}" for name in NUMBERS]


def test_nodes_outside_lie_where_nobody_else_sees_them_and_only_while_they_are_copied() -> None:
    made, attached = outside_node_steps([*DEFAULTS, FUSE], Linux())
    nodes = of_type(made, s.Mknod)
    slave = s.Mount("", "/", "", k.MS_REC | k.MS_SLAVE)
    assert_order(made, s.Unshare(k.CLONE_NEWNS), slave, lambda step: getattr(step, "fstype", "") == "tmpfs", s.Mknod)
    assert isinstance(made[-1], s.Unmount) and made[-1].flags == k.MNT_DETACH
    (files,) = (step for step in of_type(made, s.Mount) if step.fstype == "tmpfs")
    assert files.target == made[-1].target and all(node.path.startswith(f"{files.target}/") for node in nodes)
    assert not files.flags & k.MS_NODEV, "they would not open"
    for node, bind, device in zip(nodes, of_type(attached, s.Bind), [*DEFAULTS, FUSE], strict=True):
        (copy,) = (step for step in of_type(made, s.OpenTree) if step.source == node.path)
        assert made.index(copy) == made.index(node) + 1
        assert (bind.held, f"/{bind.target}") == (copy.fd, device.path)
        assert (node.major, node.minor) == (device.major, device.minor)
        assert not node.inside and node.tolerate == (), "no excuse: the file system is ours"
    assert [step.fd for step in of_type(made, s.OpenTree)] == list(range(FIRST_HELD, FIRST_HELD + len(nodes)))


@pytest.mark.parametrize(
    ("inside", "on_host"),
    [(0, 1000), (1, 0), (2, 0), (9, 0), (10, 100_000), (14, 100_004), (15, 0), (100, 7), (101, 0)],
)
def test_an_owner_is_the_hosts_number_for_it(inside: int, on_host: int) -> None:
    """An id that has none is the host's root's: nobody's, inside."""
    ids = (IDMapping(0, 1000, 1), IDMapping(10, 100_000, 5), IDMapping(100, 7, 1))
    for linux, owned, expected in (
        (Linux(uid_mappings=ids), Device("/dev/x", "c", uid=inside), (on_host, 0)),
        (Linux(gid_mappings=ids), Device("/dev/x", "c", gid=inside), (0, on_host)),
    ):
        made, _ = outside_node_steps([owned], linux)
        (node,) = of_type(made, s.Mknod)
        assert (node.uid, node.gid) == expected

"""Entries of ``mounts`` become steps: binds, new file systems, cgroups, and copies that the launcher takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config.default import DEFAULT_MOUNTS
from runtime.config.types import IDMapping, Linux, Mount
from runtime.errors import UsageError
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.mounts import (
    FIRST_HELD,
    MountMaps,
    held_first,
    inside,
    is_bind,
    is_shared,
    map_lines,
    may_share,
    mount_steps,
    propagations,
    shown_sysfs,
)
from tests.runtime.plan.bundles import BARE_HYBRID, BUNDLE, HYBRID, MAPPED, V1, V2, of_type

RO, NOSUID, NODEV, NOEXEC = k.MOUNT_ATTR_RDONLY, k.MOUNT_ATTR_NOSUID, k.MOUNT_ATTR_NODEV, k.MOUNT_ATTR_NOEXEC
TIGHT = NOSUID | NODEV | NOEXEC
MS_TIGHT = k.MS_NOSUID | k.MS_NODEV | k.MS_NOEXEC
NOTHING = Hierarchies({}, None, frozenset())
PEER, OTHER, HELD = (
    s.Bind("/a", "a", propagation=k.MS_SHARED),
    s.Bind("/b", "b", recursive=True),
    s.Bind("/c", "c", held=9),
)


def steps_of(mount: Mount, found: Hierarchies = V1, cgroup: str = "c", linux: Linux = MAPPED) -> list[s.Step]:
    return mount_steps(mount, found, cgroup, BUNDLE, MountMaps(linux))


def only_bind(*options: str, **changes: Any) -> s.Bind:
    (step,) = steps_of(Mount("/t", **{"type": "bind", "source": "/s", "options": options, **changes}))
    assert isinstance(step, s.Bind)
    return step


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("/", "."),
        ("//", "."),
        ("", "."),
        (".", "."),
        ("/a/../..", "."),
        ("a", "a"),
        ("/a/", "a"),
        ("//a//b/./c", "a/b/c"),
        ("/../../etc", "etc"),
        ("a/../../b", "b"),
        ("/a..b/...", "a..b/..."),
    ],
)
def test_a_path_is_below_the_root_whatever_it_says(path: str, below: str) -> None:
    assert inside(path) == below


def test_mappings_are_the_lines_of_the_kernels_files() -> None:
    assert map_lines((IDMapping(0, 1000, 1), IDMapping(1, 100_000, 65_536))) == "0 1000 1\n1 100000 65536\n"
    assert map_lines(()) == ""


@pytest.mark.parametrize(
    ("kind", "options", "binds"),
    [
        ("bind", (), True),
        ("", ("bind",), True),
        ("none", ("ro", "rbind"), True),
        ("tmpfs", ("bind",), True),
        ("tmpfs", ("ro",), False),
        ("rbind", (), False),
        ("", ("binding",), False),
    ],
)
def test_what_binds(kind: str, options: tuple[str, ...], binds: bool) -> None:
    mount = Mount("/t", kind, "/s", options)
    assert is_bind(mount) == binds
    assert [type(step) for step in steps_of(mount)] == [s.Bind if binds else s.Mount]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {}),
        (("bind",), {}),
        (("rbind",), {"recursive": True}),
        (("rbind", "bind"), {}),
        (("bind", "ro", "nosuid"), {"set": RO | NOSUID}),
        (("bind", "rw", "dev"), {"clear": RO | NODEV}),
        (("bind", "ro", "rw"), {"clear": RO}),
        (("bind", "noatime"), {"set": k.MOUNT_ATTR_NOATIME, "clear": k.MOUNT_ATTR_ATIME}),
        (("rbind", "rro", "rdev"), {"recursive": True, "set_all": RO, "clear_all": NODEV}),
        (("bind", "shared"), {"propagation": k.MS_SHARED}),
        (("rbind", "rslave"), {"recursive": True, "propagation": k.MS_SLAVE, "propagate_all": True}),
        (("bind", "size=1k", "sync"), {}),
    ],
)
def test_a_binds_options(options: tuple[str, ...], expected: dict[str, Any]) -> None:
    assert only_bind(*options) == s.Bind("/s", "t", **expected)


@pytest.mark.parametrize(
    ("source", "path"), [("/s/a", "/s/a"), ("vol", f"{BUNDLE}/vol"), ("../x", f"{BUNDLE}/../x"), ("", f"{BUNDLE}/")]
)
def test_a_relative_source_is_the_bundles(source: str, path: str) -> None:
    assert only_bind("bind", source=source).source == path


# --- mappings of ids


ONE, OTHER_IDS = (IDMapping(0, 5, 1),), (IDMapping(0, 6, 1),)


@pytest.mark.parametrize(
    ("option", "own", "maps", "all_of_it"),
    [
        ((), (), None, False),
        (("idmap",), (), MAPPED.uid_mappings, False),
        (("ridmap",), (), MAPPED.uid_mappings, True),
        ((), ONE, ONE, False),
        (("idmap",), ONE, ONE, False),
        (("ridmap",), ONE, ONE, True),
    ],
)
def test_a_mount_has_its_own_mapping_or_the_containers(
    option: tuple[str, ...], own: tuple[IDMapping, ...], maps: tuple[IDMapping, ...] | None, all_of_it: bool
) -> None:
    made = MountMaps(MAPPED)
    mount = Mount("/t", "bind", "/s", ("rbind", *option), own, own)
    (bind,) = of_type(mount_steps(mount, V1, "", BUNDLE, made), s.Bind)
    assert bind.map_all == all_of_it
    if maps is None:
        assert (bind.userns, made.steps) == ("", {})
    else:
        (step,) = made.steps.values()
        assert bind.userns == f"/proc/self/fd/{step.fd}"
        assert (step.uid_map, step.gid_map) == (map_lines(maps), map_lines(maps))


def test_the_same_mapping_is_made_once_and_another_beside_it() -> None:
    maps = MountMaps(MAPPED)
    mounts = [Mount("/t", "bind", "/s", ("idmap",), ids, groups) for ids, groups in (
        (ONE, ONE), (OTHER_IDS, ONE), (ONE, ONE), ((), ()), (MAPPED.uid_mappings, MAPPED.gid_mappings),
    )]  # fmt: skip
    paths = [maps.path(mount) for mount in mounts]
    assert paths[0] == paths[2] and paths[3] == paths[4]
    assert len(set(paths)) == len(maps.steps) == len({step.fd for step in maps.steps.values()}) == 3


def test_mappings_have_descriptors_below_those_of_copies() -> None:
    maps = MountMaps(Linux())
    for number in range(16):
        ids = (IDMapping(0, number, 1),)
        maps.path(Mount("/t", uid_mappings=ids, gid_mappings=ids))
    assert max(step.fd for step in maps.steps.values()) == FIRST_HELD - 1
    with pytest.raises(UsageError, match=r"config\.json: mounts: more than 16 different mappings"):
        maps.path(Mount("/t", uid_mappings=(IDMapping(0, 99, 1),), gid_mappings=ONE))


# --- new file systems


def test_one_that_is_said_to_be_of_a_size_is_no_part_of_another() -> None:
    assert may_share(Mount("/t", "tmpfs", "t", ("nosuid", "mode=755", "ro")))
    assert all(may_share(one) for one in DEFAULT_MOUNTS if one.type == "tmpfs")
    for options in (("size=65536k",), ("mode=755,size=1k",), ("uid=1000",), ("nr_inodes=8",)):
        assert not may_share(Mount("/t", "tmpfs", "t", options)), options
    assert not may_share(Mount("/t", "proc")) and not may_share(Mount("/t", "tmpfs", "/t", ("bind",)))


@pytest.mark.parametrize(
    ("mount", "step"),
    [
        (Mount("/t", "tmpfs", "shm", ("nosuid", "size=1k", "mode=755")),
         s.Mount("shm", "t", "tmpfs", k.MS_NOSUID, "size=1k,mode=755", inside=True)),
        (Mount("/t", "proc"), s.Mount("proc", "t", "proc", inside=True)),
        (Mount("/t", "tmpfs", "t", ("tmpcopyup",)), s.Mount("t", "t", "tmpfs", inside=True, copy_up=True)),
        (Mount("/t", "tmpfs", "t", ("ro",)), s.Mount("t", "t", "tmpfs", k.MS_RDONLY, inside=True)),
        (Mount("/dev", "tmpfs", "t", ("ro", "nosuid")), s.Mount("t", "dev", "tmpfs", k.MS_NOSUID, inside=True)),
        (Mount("/dev/shm", "tmpfs", "t", ("ro",)), s.Mount("t", "dev/shm", "tmpfs", k.MS_RDONLY, inside=True)),
    ],
)  # fmt: skip
def test_a_new_file_system(mount: Mount, step: s.Mount) -> None:
    """Nodes are still to be made in /dev, so that is not write-protected yet."""
    assert steps_of(mount) == [step]


@pytest.mark.parametrize(
    ("option", "after"),
    [
        ("shared", s.MountAttributes("t", propagation=k.MS_SHARED, recursive=True, inside=True)),
        ("rslave", s.MountAttributes("t", propagation=k.MS_SLAVE, recursive=True, inside=True)),
        ("rro", s.MountAttributes("t", RO, recursive=True, inside=True)),
        ("rdev", s.MountAttributes("t", 0, NODEV, recursive=True, inside=True)),
        ("ro", None),
        ("noatime", None),
    ],
)
@pytest.mark.parametrize("kind", ["tmpfs", "cgroup"])
def test_what_mount_cannot_say_comes_after_it(kind: str, option: str, after: s.Step | None) -> None:
    steps = steps_of(Mount("/t", kind, "t", (option,)))
    recursive = [step for step in of_type(steps, s.MountAttributes) if step.recursive]
    assert recursive == ([after] if after else []) and (not after or steps[-1] == after)


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        ((), ("rbind",)),
        (("nosuid", "noexec", "nodev", "ro"), ("rbind", "rro", "rnosuid", "rnoexec", "rnodev")),
        (("ro", "relatime", "mode=755"), ("rbind", "rro")),
    ],
)
def test_the_hosts_sys_is_protected_with_all_of_its_mounts(given: tuple[str, ...], bound: tuple[str, ...]) -> None:
    shown = shown_sysfs(Mount("/sys", "sysfs", "sysfs", given))
    assert shown == Mount("/sys", "bind", "/sys", bound) and is_bind(shown)


# --- cgroups


OWN_V2 = s.Bind("/cg/c", "t", set=TIGHT)
TMPFS = s.Mount("tmpfs", "t", "tmpfs", MS_TIGHT, "mode=755", inside=True)
OF_V1 = [s.Bind(f"/cg/{name}/c", f"t/{name}", set=TIGHT) for name in ("memory", "cpu", "pids", "devices")]
OF_HUGETLB = s.Bind("/cg/unified/c", "t/unified", set=TIGHT)


@pytest.mark.parametrize(
    ("kind", "found", "steps"),
    [
        ("cgroup", V1, [TMPFS, *OF_V1]),
        ("cgroup", V2, [OWN_V2]),
        ("cgroup", HYBRID, [TMPFS, *OF_V1, OF_HUGETLB]),
        ("cgroup", BARE_HYBRID, [TMPFS, *OF_V1]),
        ("cgroup", NOTHING, [TMPFS]),
        ("cgroup2", V2, [OWN_V2]),
        ("cgroup2", HYBRID, [s.Bind("/cg/unified/c", "t", set=TIGHT)]),
        # where it has no cgroup of its own in that hierarchy, and where there is none
        ("cgroup2", BARE_HYBRID, [s.Mount("cgroup2", "t", "cgroup2", MS_TIGHT, inside=True)]),
        ("cgroup2", V1, [s.Mount("cgroup2", "t", "cgroup2", MS_TIGHT, inside=True)]),
    ],
    ids=str,
)
def test_the_containers_own_cgroup_is_the_root_of_what_it_sees(
    kind: str, found: Hierarchies, steps: list[s.Step]
) -> None:
    assert sorted(map(str, steps_of(Mount("/t", kind, kind), found))) == sorted(map(str, steps))
    if len(steps) > 1:
        assert steps_of(Mount("/t", kind, kind), found)[0] == TMPFS, "what the others lie in"


@pytest.mark.parametrize("found", [V1, V2, HYBRID], ids=["v1", "v2", "hybrid"])
@pytest.mark.parametrize("kind", ["cgroup", "cgroup2"])
def test_a_container_without_a_cgroup_sees_an_empty_directory(kind: str, found: Hierarchies) -> None:
    steps = steps_of(Mount("/t", kind, kind, ("ro", "nosuid")), found, cgroup="")
    assert steps == [s.Mount("tmpfs", "t", "tmpfs", k.MS_RDONLY | k.MS_NOSUID, "mode=755", inside=True)]


@pytest.mark.parametrize("found", [V1, V2, HYBRID], ids=["v1", "v2", "hybrid"])
def test_cgroups_are_write_protected_and_so_is_the_directory_that_they_lie_in(found: Hierarchies) -> None:
    """The directory once its mount points are made."""
    steps = steps_of(Mount("/t", "cgroup", "cgroup", ("ro",)), found)
    assert {bind.set for bind in of_type(steps, s.Bind)} == {TIGHT | RO}
    protecting = s.MountAttributes("t", RO, inside=True)
    assert (steps[-1] == protecting) == bool(found.v1) == (protecting in steps)
    assert not any(step.flags & k.MS_RDONLY for step in of_type(steps, s.Mount))


def test_options_of_the_file_system_make_a_new_mount_of_version_two() -> None:
    steps = steps_of(Mount("/t", "cgroup2", "cgroup2", ("ro", "nsdelegate")), V2)
    assert steps == [s.Mount("cgroup2", "t", "cgroup2", MS_TIGHT | k.MS_RDONLY, "nsdelegate", inside=True)]


# --- propagation


SLAVE, REC = k.MS_SLAVE, k.MS_REC


@pytest.mark.parametrize(
    ("name", "of_copy", "of_root"),
    [
        ("", REC | SLAVE, 0),
        ("slave", REC | SLAVE, 0),
        ("rslave", REC | SLAVE, 0),
        ("rprivate", REC | k.MS_PRIVATE, 0),
        ("private", REC | SLAVE, k.MS_PRIVATE),
        ("shared", REC | SLAVE, k.MS_SHARED),
        ("rshared", REC | SLAVE, k.MS_SHARED | REC),
        ("unbindable", REC | SLAVE, k.MS_UNBINDABLE),
        ("runbindable", REC | SLAVE, k.MS_UNBINDABLE | REC),
    ],
)
def test_the_copy_leaves_the_hosts_peer_groups_whatever_the_root_becomes(name: str, of_copy: int, of_root: int) -> None:
    assert propagations(name) == (of_copy, of_root)


# --- copies that the launcher takes


def test_only_those_that_are_chosen_are_held() -> None:
    before: list[s.Step] = [s.Setsid(), OTHER, PEER, HELD]
    held, steps = held_first(before, 200, is_shared, 0)
    assert held == [s.OpenTree("/a", 200)]
    assert steps == [s.Setsid(), OTHER, replace(PEER, held=200), HELD]
    assert before == [s.Setsid(), OTHER, PEER, HELD], "the list that was given stays"


def test_descriptors_follow_each_other_and_what_is_held_already_keeps_its_own() -> None:
    held, steps = held_first([PEER, HELD, OTHER], 130, lambda _: True, k.MS_PRIVATE)
    assert held == [
        s.OpenTree("/a", 130, propagation=k.MS_PRIVATE),
        s.OpenTree("/b", 131, recursive=True, propagation=k.MS_PRIVATE),
    ]
    assert [bind.held for bind in of_type(steps, s.Bind)] == [130, 9, 131]


def test_the_copy_takes_the_mapping_and_leaves_the_attributes_to_what_is_attached() -> None:
    bind = s.Bind("/a", "a", set=RO, userns="/ns", map_all=True)
    held, steps = held_first([bind], 130, lambda _: True, 0)
    assert held == [s.OpenTree("/a", 130, userns="/ns", map_all=True)]
    assert steps == [replace(bind, held=130, userns="")]


@pytest.mark.parametrize("propagation", [0, k.MS_SLAVE, k.MS_PRIVATE, k.MS_SHARED, k.MS_UNBINDABLE])
def test_only_what_is_to_be_a_peer_is_shared(propagation: int) -> None:
    assert is_shared(s.Bind("/a", "a", propagation=propagation)) == (propagation == k.MS_SHARED)


def test_the_paths_of_hierarchies_name_their_controllers() -> None:
    joint = Path("/cg/cpu,cpuacct")
    found = Hierarchies({"cpu": joint, "cpuacct": joint}, None, frozenset())
    steps = steps_of(Mount("/sys/fs/cgroup", "cgroup", "cgroup"), found, "a/b")
    assert of_type(steps, s.Bind) == [s.Bind(f"{joint}/a/b", "sys/fs/cgroup/cpu,cpuacct", set=TIGHT)]

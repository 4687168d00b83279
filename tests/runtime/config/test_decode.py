"""Configurations from JSON: what is known is taken, what is not is told, and hostile files are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.config.bundle import load
from runtime.config.decode import decode, encode
from runtime.config.default import default_config, rootless_config
from runtime.config.types import Config
from runtime.config.validate import Host, check_id, validate
from runtime.errors import UsageError
from runtime.plan import steps as s
from runtime.plan.constants import ALL_CAPABILITIES
from runtime.plan.process import credential_steps

ONE_ID = {"containerID": 0, "hostID": 1, "size": 1}
HOST = Host(apparmor=False, selinux=False, resctrl=False)


def changed(path: str, value: object) -> dict[str, Any]:
    """The default configuration with one field set; ``path`` as ``process.args``."""
    config: dict[str, Any] = encode(default_config())
    place = config
    *parents, last = path.split(".")
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    return config


@pytest.mark.parametrize("config", [default_config(), rootless_config(1000, 1000)])
def test_what_spec_writes_is_read_back_and_valid(config: Config) -> None:
    assert decode(Config, json.loads(json.dumps(encode(config))), "") == config
    validate(config, HOST)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("process.args", "sh", "process.args: expected `array`, got `str`"),
        ("process.args", ["a", 1], r"process.args\[1\]: expected `str`, got `int`"),
        ("process.terminal", 1, "process.terminal: expected `bool`, got `int`"),
        ("process.user.uid", True, "process.user.uid: expected `int`, got `bool`"),
        ("process.user.uid", 1.0, "process.user.uid: expected `int`, got `float`"),
        ("process.user.uid", 1 << 70, "does not fit into 64 bits"),
        ("process.cwd", "/a\0b", "holds a NUL byte"),
        ("process.cwd", "/\ud800", "not text that UTF-8 can hold"),
        ("root", None, "object missing required field `root`"),
        ("mounts", [{"type": "proc"}], r"mounts\[0\]: object missing required field `destination`"),
        ("linux.sysctl", {"a": 1}, r"linux.sysctl\[\.\.\.\]: expected `str`, got `int`"),
        ("linux.namespaces", ["pid"], r"linux.namespaces\[0\]: expected `object`, got `str`"),
    ],
)
def test_what_does_not_fit_is_named(path: str, value: object, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        decode(Config, changed(path, value), "")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("process.argz", [], "process.argz"),
        ("linux.resources.memory.limt", 1, "linux.resources.memory.limt"),
        ("new", {"deep": [1]}, "new"),
        ("mounts", [{"destination": "/a", "kind": "x"}], "mounts[0].kind"),
        ("linux.resources.rdma", {"mlx": {"handles": 1}}, "linux.resources.rdma.mlx.handles"),
        ("linux.timeOffsets", {"boottime": {"secs": 0, "hours": 1}}, "linux.timeOffsets.boottime.hours"),
        ("hooks", {"poststop": [{"path": "/x", "user": 1}]}, "hooks.poststop[0].user"),
        ("a\nb", 1, "a\\nb"),
    ],
)
def test_what_is_unknown_is_ignored_and_told(path: str, value: object, told: str) -> None:
    warnings: list[str] = []
    config = decode(Config, changed(path, value), "", warnings.append)
    assert warnings == [f"{told}: unknown, and ignored"]
    assert config.process == default_config().process


def test_the_rest_of_an_object_with_an_unknown_property_is_still_checked() -> None:
    with pytest.raises(UsageError, match=r"linux.resources.memory.limit: expected `int | null`, got `str`"):
        decode(Config, changed("linux.resources.memory", {"limt": 1, "limit": "1"}), "")


def test_warnings_are_few_whatever_there_is() -> None:
    warnings: list[str] = []
    decode(Config, changed("process", {"cwd": "/", **dict.fromkeys(map(str, range(100_000)), 1)}), "", warnings.append)
    assert len(warnings) == 11 and warnings[-1].startswith("99990 more")


def test_capabilities_that_cannot_be_granted_are_left_out_and_told() -> None:
    warnings: list[str] = []
    sets = {"bounding": ["CAP_KILL", "CAP_NONSENSE"], "permitted": ["CAP_CHOWN", "CAP_KILL"]}
    config = decode(Config, changed("process.capabilities", sets), "")
    without_chown = replace(HOST, capabilities=ALL_CAPABILITIES & ~1)
    validate(config, without_chown, warnings.append)
    assert warnings == ["process.capabilities: unknown or not ours to give, and left out: CAP_CHOWN, CAP_NONSENSE"]
    assert config.process is not None
    steps = credential_steps(config.process, keep_groups=False, grantable=without_chown.capabilities)
    assert [step for step in steps if isinstance(step, s.BoundingSet)] == [s.BoundingSet(1 << 5)]
    assert [step.permitted for step in steps if isinstance(step, s.Capabilities)] == [1 << 5]


def test_all_capabilities_can_be_granted_in_a_user_namespace() -> None:
    nothing = replace(HOST, capabilities=0)
    assert nothing.grantable(rootless_config(1, 1)) == ALL_CAPABILITIES
    assert nothing.grantable(default_config()) == 0


def test_a_device_rule_of_spec_says_all() -> None:
    """runc refuses one without ``access``."""
    assert encode(default_config())["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UsageError, match="not a regular file"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("process.args", [], "process.args: empty"),
        ("process.cwd", "tmp", "process.cwd"),
        ("process.apparmorProfile", "x", "without AppArmor"),
        ("process.selinuxLabel", "x", "without SELinux"),
        ("process.oomScoreAdj", 2000, "oomScoreAdj"),
        ("linux.cgroupsPath", "/a\nb", "not the name of a cgroup"),
        ("linux.cgroupsPath", "/" + "x" * 256, "not the name of a cgroup"),
        ("linux.cgroupsPath", "/x" * 2000, "not the name of a cgroup"),
        ("linux.resources.devices", [{"allow": True, "type": "x"}], r"linux.resources.devices\[0\]"),
        ("linux.resources.devices", [{"allow": True, "access": "rx"}], r"linux.resources.devices\[0\]"),
        ("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}], "above the hard one"),
        ("linux.namespaces", [{"type": "pid"}], "no mount namespace"),
        ("linux.namespaces", [{"type": "mount"}, {"type": "mount"}], "there twice"),
        ("linux.namespaces", [{"type": "mount"}, {"type": "user"}, {"type": "uts"}], "needs a mapping"),
        ("linux.sysctl", {"kernel.panic": "1"}, "belongs to the whole kernel"),
        ("linux.sysctl", {"net/../kernel/panic": "1"}, "belongs to the whole kernel"),
        ("linux.timeOffsets", {"boottime": {"secs": 1}}, "time namespace"),
        ("linux.intelRdt", {"closID": "x"}, "linux.intelRdt"),
        ("linux.rootfsPropagation", "sideways", "rootfsPropagation"),
        ("linux.maskedPaths", ["proc/kcore"], "not absolute"),
        ("linux.personality", {"domain": "BSD"}, "personality"),
        ("mounts", [{"destination": "/proc", "type": "tmpfs", "source": "x"}], "only a proc file system"),
        ("mounts", [{"destination": "/proc/sysrq-trigger", "type": "tmpfs"}], "inside /proc"),
        ("mounts", [{"destination": "/a/../../proc/sys", "type": "tmpfs"}], "inside /proc"),
        ("mounts", [{"destination": "/d", "source": "/", "options": ["bind", "idmap"]}], "no mapping of its own"),
        ("hooks", {"prestart": [{"path": "relative"}]}, "not absolute"),
    ],
)
def test_what_cannot_be_carried_out_is_named(path: str, value: object, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        validate(decode(Config, changed(path, value), ""), HOST)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mounts", [{"destination": "/x", "type": "tmpfs"}]),
        ("root", {"path": "rootfs", "readonly": True}),
        ("linux.maskedPaths", ["/x"]),
        ("linux.readonlyPaths", ["/x"]),
        ("linux.rootfsPropagation", "rprivate"),
        ("linux", {"namespaces": [{"type": "user"}], "uidMappings": [ONE_ID], "gidMappings": [ONE_ID]}),
        ("process.terminal", True),
    ],
)
def test_without_a_mount_namespace_nothing_is_mounted(path: str, value: object) -> None:
    config: dict[str, Any] = {"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "hostname": "", "mounts": []}
    config |= {"process": {"cwd": "/", "args": ["true"]}, "linux": {"namespaces": []}}
    validate(decode(Config, config, ""), HOST)
    *parents, last = path.split(".")
    (config[parents[0]] if parents else config)[last] = value
    with pytest.raises(UsageError, match="no mount namespace of the container's own"):
        validate(decode(Config, config, ""), HOST)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"{", "Expecting"),
        (b"[" * 100_000, "deep"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "deep"),
        (b" " * (5 << 20), "larger"),
        (b'{"root": {}, "root": {}}', "there twice"),
        (b'{"a": NaN}', "not JSON"),
        (b"\xff\xfe\xfd{}", "byte 0 is not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ("{}".encode("utf-16"), "byte 0 is not UTF-8"),
        ("{}".encode("utf-16-le"), "Expecting|UTF-8"),
        (b'{"a\nb": 1, "a\nb": 2}', "control character"),
        (b'{"a\\nb": 1, "a\\nb": 2}', r"a\\nb: the field is there twice"),
        (b"{" + b",".join(b'"%d": 1' % n for n in range(100_000)) + b', "99999": 1}', "99999: the field"),
        (b"[]", "config.json: expected `object`, got `array`"),
        (b'{"ociVersion": "1.2.0", "root": {"path": "r"}, "windows": {}}', "Linux containers only"),
        (b'{"ociVersion": "2.0.0", "root": {"path": "r"}}', "ociVersion"),
        (b'{"ociVersion": ' + b"9" * 10_000 + b"}", "digits|string"),
    ],
)
def test_a_hostile_file_is_refused(text: bytes, named: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(UsageError, match=named):
        load(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\0", "a b", "x" * 234])
def test_what_is_no_id_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a name"):
        check_id(name)

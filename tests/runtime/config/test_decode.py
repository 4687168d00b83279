"""Configurations from JSON: what is known is taken, what is not is named, and hostile files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.config.bundle import load
from runtime.config.decode import decode, encode
from runtime.config.default import default_config, rootless_config
from runtime.config.types import Config
from runtime.config.validate import Host, check_id, validate
from runtime.errors import UsageError

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
        ("process.argz", [], "process: object contains unknown field `argz`"),
        ("linux.resources.memory.limt", 1, "linux.resources.memory: object contains unknown field `limt`"),
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
    ("path", "value", "named"),
    [
        ("process.args", [], "process.args: empty"),
        ("process.cwd", "tmp", "process.cwd"),
        ("process.apparmorProfile", "x", "without AppArmor"),
        ("process.selinuxLabel", "x", "without SELinux"),
        ("process.oomScoreAdj", 2000, "oomScoreAdj"),
        ("process.capabilities.bounding", ["CAP_NONSENSE"], "CAP_NONSENSE"),
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
        (b"\xff\xfe\xfd{}", "decode"),
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


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\0", "a b", "x" * 1025])
def test_an_id_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a name"):
        check_id(name)

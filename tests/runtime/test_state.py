"""Whose the state is: another's, or everybody's, is not believed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import UsageError
from runtime.oci.state import Damaged, Place, check_root, default_root, listing
from tests.runtime.oci import Runtime
from tests.waiting import until

pytestmark = pytest.mark.root
NOBODY = 65534
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("owner", "mode", "fine"),
    [
        (0, 0o700, True), (0, 0o711, True), (0, 0o755, True), (0, 0o750, True),  # as engines make theirs
        (0, 0o770, False), (0, 0o777, False), (0, 0o1777, False), (0, 0o702, False), (NOBODY, 0o700, False),
    ],
)  # fmt: skip
def test_a_root_is_ours_alone(owner: int, mode: int, fine: bool, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, owner, owner)
    root.chmod(mode)
    if fine:
        check_root(root)
        Place(root, "a").claim()
        return
    for attempt in (lambda: Place(root, "a"), lambda: listing(root)):
        with pytest.raises(UsageError, match=f"state root {root}: it belongs to user {owner}, mode {mode:04o}"):
            attempt()


def test_a_link_to_a_root_is_followed_unless_it_is_anothers(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "root")
    check_root(tmp_path / "link")
    os.chown(tmp_path / "link", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(UsageError, match="link: not a directory"):
        check_root(tmp_path / "link")


def test_what_is_no_directory_is_refused_and_what_is_not_there_is_fine(tmp_path: Path) -> None:
    check_root(tmp_path / "none")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="ot a directory"):
            check_root(path)


def test_a_directory_in_tmp_that_another_made_first_is_refused(tmp_path: Path) -> None:
    """As an unprivileged user's default is, without XDG_RUNTIME_DIR."""
    above = tmp_path / f"testbed-runtime-{os.geteuid()}"
    (above / "testbed-runtime").mkdir(parents=True, mode=0o700)
    check_root(above / "testbed-runtime")
    os.chown(above, NOBODY, NOBODY)
    with pytest.raises(UsageError, match=f"state root {above}"):
        check_root(above / "testbed-runtime")


def test_an_ordinary_users_own_is_made_for_it_alone() -> None:
    script = f"""
import os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from runtime.oci.state import Place, default_root
import runtime.oci.state
os.setresgid(61234, 61234, 61234); os.setresuid(61234, 61234, 61234); os.umask(0)
os.environ.pop("XDG_RUNTIME_DIR", None)
Place(default_root(), "a").claim()
print(default_root(), oct(os.stat(default_root()).st_mode), oct(os.stat(default_root().parent).st_mode))
Place(default_root(), "a").remove(); os.rmdir(default_root()); os.rmdir(default_root().parent)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["/tmp/testbed-runtime-61234/testbed-runtime", "0o40700", "0o40700"], done.stderr
    assert default_root() == Path("/run/testbed-runtime")


@pytest.mark.parametrize("command", [("state", "a"), ("kill", "a", "KILL"), ("delete", "--force", "a"), ("list",)])
def test_the_launcher_does_not_believe_anothers_root_either(oci: Runtime, command: tuple[str, ...]) -> None:
    oci.shell("sleep 1000")
    oci("run", "--detach", "a")
    oci.root.chmod(0o777)
    done = oci(*command, check=False)
    assert done.returncode == 1 and "mode 0777" in done.stderr
    oci.root.chmod(0o700)
    assert oci.state("a")["status"] == "running"
    oci("delete", "--force", "a")


def test_the_words_that_engines_look_for(oci: Runtime) -> None:
    """podman's getOCIRuntimeError and UpdateContainerStatus, containerd's checkKillError, moby's translation of start
    errors: they tell by runc's words what happened."""
    (oci.bundle / "rootfs" / "plain").write_text("")
    for command, words in (
        ("nonsense", "executable file `nonsense` not found in $PATH"),
        ("/nowhere", "no such file or directory"),
        ("/plain", "permission denied"),
        ("/bin", "permission denied|is a directory"),
        ("/plain/below", "not a directory"),
    ):
        oci.shell("", args=[command])
        done = oci("run", "a", check=False)
        assert any(each in done.stderr for each in words.split("|")) and command in done.stderr, done.stderr
    for line in (("state", "a"), ("kill", "a"), ("delete", "a"), ("start", "a"), ("exec", "a", "true")):
        assert "container a does not exist" in oci(*line, check=False).stderr
    oci.shell("true")
    oci("create", "a")
    assert "container with given ID already exists" in oci("create", "a", check=False).stderr
    oci("kill", "a", "KILL")
    until(lambda: oci.state("a")["status"] == "stopped", 10)
    assert "container not running" in oci("kill", "a", "TERM", check=False).stderr
    oci("delete", "a")


def test_a_record_that_leads_elsewhere_is_damaged(tmp_path: Path) -> None:
    place = Place(tmp_path, "a")
    place.claim()
    for cgroup in ("/", ".", "..", "a/..", "a//b", "../a", "/a", "a\\u0000b"):
        (place.directory / "record.json").write_text(
            f'{{"id": "a", "bundle": "", "rootfs": "", "cgroup": "{cgroup}", "config": "", "owner": ""}}'
        )
        with pytest.raises(Damaged, match="cgroup"):
            place.read()

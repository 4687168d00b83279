"""Whose the state is: another's, or everybody's, is not believed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtime.config.decode import encode
from runtime.config.default import rootless_config
from runtime.errors import UsageError
from runtime.launcher.build import COMMAND
from runtime.oci.state import Damaged, StateDir, check_root, default_root, listing
from tests.runtime.command_line import Runtime
from tests.waiting import until

pytestmark = pytest.mark.root
NOBODY = 65534
USER = 61234


@pytest.mark.parametrize(
    ("owner", "mode", "fine"),
    [
        (0, 0o700, True), (0, 0o711, True), (0, 0o755, True), (0, 0o750, True),  # as engines make theirs
        (0, 0o770, False), (0, 0o777, False), (0, 0o1777, False), (0, 0o702, False), (NOBODY, 0o700, False),
    ],
)  # fmt: skip
def test_a_root_is_ours_alone(owner: int, mode: int, fine: bool, oci: Runtime) -> None:
    root = oci.root
    root.mkdir()
    os.chown(root, owner, owner)
    root.chmod(mode)
    if fine:
        check_root(root)
        oci("run", "a")
        return
    for attempt in (lambda: StateDir(root, "a"), lambda: listing(root)):
        with pytest.raises(UsageError, match=f"state root {root}: it belongs to user {owner}, mode {mode:04o}"):
            attempt()
    assert "it belongs to" in oci("create", "a", check=False).stderr
    os.chown(root, 0, 0)
    root.chmod(0o700)


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


def test_an_ordinary_users_own_is_made_for_it_alone(oci: Runtime) -> None:
    config = encode(rootless_config(USER, USER))
    config["process"].update(args=["true"], terminal=False)
    oci.configure(config)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", oci.bundle], check=True)
    root = Path(f"/tmp/testbed-runtime-{USER}/testbed-runtime")
    assert default_root({}) == Path("/run/testbed-runtime")

    def run(*arguments: str) -> None:
        environment = {"PATH": os.environ["PATH"], "TESTBED_PLANNER": "off"}
        subprocess.run(
            [COMMAND, *arguments], check=True, cwd=oci.bundle, env=environment,
            user=USER, group=USER, extra_groups=[], umask=0, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    run("create", "a")
    try:
        assert [oct(path.stat().st_mode) for path in (root, root.parent)] == ["0o40700", "0o40700"]
        assert [path.stat().st_uid for path in (root, root.parent)] == [USER, USER]
    finally:
        run("delete", "--force", "a")
        root.rmdir()
        root.parent.rmdir()


@pytest.mark.parametrize("command", [("state", "a"), ("kill", "a", "KILL"), ("delete", "--force", "a"), ("list",)])
def test_no_command_believes_anothers_root(oci: Runtime, command: tuple[str, ...]) -> None:
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
    container = StateDir(tmp_path, "a")
    Path(container.directory).mkdir()
    for cgroup in ("/", ".", "..", "a/..", "a//b", "../a", "/a", "a\\u0000b"):
        Path(container.file("record.json")).write_text(
            f'{{"id": "a", "bundle": "", "rootfs": "", "cgroup": "{cgroup}", "config": "", "owner": ""}}'
        )
        with pytest.raises(Damaged, match="cgroup"):
            container.read()

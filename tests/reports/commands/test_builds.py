"""The tasks that build images, called as a user calls them, with a store of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.root


def invoke(home: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    script = "import sys, tasks; tasks.program.run(['testbed', *sys.argv[1:]])"
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=ROOT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TESTBED_HOME": str(home)},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A build context whose image has busybox, and a step that fails without an argument and a secret."""
    made = tmp_path / "app"
    made.mkdir()
    (made / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (made / "busybox").chmod(0o755)
    (made / "Dockerfile").write_text(
        "FROM scratch AS base\nCOPY busybox /bin/sh\nFROM base\nARG STATUS=4\nENV MADE=here\n"
        "RUN --mount=type=secret,id=key,env=KEY echo key $KEY; exit $STATUS\nFROM base AS other\n"
    )
    return made


def test_a_failed_step_is_told_and_its_shell_can_be_opened(folder: Path, tmp_path: Path) -> None:
    failed = invoke(tmp_path / "home", "images.build", str(folder), "--target", "1")
    assert failed.returncode == 6
    where = f"{folder}/Dockerfile:6"
    assert f"{where}: RUN echo key $KEY; exit $STATUS: exit status 4\n    key" in failed.stderr
    assert f"a shell before this step: ./invoke images.shell {where}\n" in failed.stderr
    shell = invoke(
        tmp_path / "home", "images.shell", where, stdin="echo $MADE $STATUS > /new; read x < /new; echo $x; exit 5"
    )
    assert (shell.returncode, shell.stdout) == (5, "here 4\n")
    assert [path for path in (tmp_path / "home/images/tmp").iterdir()] == []


def test_an_image_is_built_with_arguments_and_secrets_and_its_id_is_printed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    words = ("--target", "1", "--arg", "STATUS=0", "--secret", f"key={tmp_path}/key", "--tag", "some/app")
    built = invoke(tmp_path / "home", "images.build", str(folder), *words)
    assert built.returncode == 0, built.stderr
    assert built.stdout.startswith("sha256:") and "key secret" in built.stderr
    assert invoke(tmp_path / "home", "images.build", str(folder)).returncode == 0, "the last stage, without the step"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("images.build", "{0}", "--arg", "STATUS"), "--arg 'STATUS' is not NAME=value"),
        (("images.build", "{0}", "--target", "none"), "no stage 'none'\n  stages: base, other"),
        (("images.build", "{0}/nowhere"), "Dockerfile: No such file or directory"),
        (("images.shell", "{0}/Dockerfile"), "is not a Dockerfile and a line"),
        (("images.shell", "{0}/Dockerfile:3"), "no instruction begins there"),
    ],
)
def test_what_is_wrong_is_told_without_a_traceback(
    folder: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = invoke(tmp_path / "home", *(word.format(folder) for word in words))
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr

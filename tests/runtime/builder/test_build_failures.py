"""Builds that fail: where and why is told, nothing is left, and what an author writes is bounded."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, UsageError, WorkloadError
from runtime.images.model import Image
from runtime.images.store import Store
from runtime.lease import STATE_ROOT, is_held
from tests.owned import mounts_of
from tests.runtime.builder.builders import start_build
from tests.runtime.builder.test_build import Build
from tests.waiting import until

pytestmark = pytest.mark.root


def test_a_failing_run_says_where_and_why_and_leaves_nothing(build_text: Build, store: Store, tmp_path: Path) -> None:
    before = sorted(store.root.rglob("*"))
    with pytest.raises(WorkloadError) as caught:
        build_text("FROM tiny\n\nRUN echo working && \\\n    echo 'it broke' && exit 3\n")
    assert f"{tmp_path}/Dockerfile:3: RUN echo working" in caught.value.message
    assert "exit status 3\n    working\n    it broke" in caught.value.message
    assert caught.value.exit_code == 6
    assert sorted(store.root.rglob("*")) == before
    assert mounts_of(tmp_path, store.root) == []
    assert not Cgroup(f"testbed/build-{os.getpid()}").exists()
    assert store.find("test/app") is None


def test_a_failing_rebuild_keeps_the_image_of_before(build_text: Build, store: Store) -> None:
    first = build_text("FROM tiny\nRUN echo x > /x\n")
    with pytest.raises(WorkloadError):
        build_text("FROM tiny\nRUN echo x > /x\nRUN exit 1\n")
    assert store.get("test/app") == first


def test_an_interrupted_run_leaves_nothing(store: Store, tiny: Image, context: Path, tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM tiny\nRUN sleep 60\n")
    process = start_build(store, context, dockerfile, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -2, errors
    assert "KeyboardInterrupt" in errors
    assert store.leftovers() == ()
    assert not Cgroup(f"testbed/build-{process.pid}").exists()
    assert not (STATE_ROOT / f"build-{process.pid}").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("USER nobody-here", "user 'nobody-here' is not in the image's /etc/passwd"),
        ("COPY nothing /x", "COPY nothing: no such file"),
        ("COPY --chown=nobody-here file /x", "user 'nobody-here'"),
        ("COPY --chmod=rwx file /x", "--chmod=rwx is not an octal number"),
        ("COPY file /etc/passwd/x", "/etc/passwd is below a file, or is one, in the image: passwd"),
        ("COPY file file /x", "must end with a slash"),
        ("EXPOSE 70000", "'70000' is not a port"),
        ("ENV A=${B", "not closed"),
        # Numbers, quotes and paths have bounds.
        ("USER 4294967295", "is no user's or group's number"),
        ("USER 1099511627776:0", "is no user's or group's number"),
        ("USER 0:4294967296", "is no user's or group's number"),
        ("USER " + "9" * 5000, "is not in the image's"),
        ("COPY --chown=1099511627776 file /x", "is no user's or group's number"),
        ("COPY --chown=0:4294967295 file /x", "is no user's or group's number"),
        ("COPY --chmod=10000000000 file /x", "not an octal number"),
        ("COPY --chmod=-1 file /x", "not an octal number"),
        ("COPY --chmod=0o755 file /x", "not an octal number"),
        ("EXPOSE 99999999999999999999999", "is not a port"),
        ("EXPOSE \u0663", "is not a port"),
        ('WORKDIR "a', "not closed"),
        ("USER 'alice", "not closed"),
        ('COPY "file /x', "not closed"),
        ("LABEL a 'b", "not closed"),
        ("ENV ${UNSET}=1", "'' is no name"),
        ("WORKDIR /" + "a" * 300, "File name too long"),
        ("COPY file /" + "a/" * 3000 + "x", "a path of more than 4095 characters"),
    ],
)
def test_errors_point_at_their_line(build_text: Build, context: Path, line: str, message: str) -> None:
    (context / "file").write_text("x")
    with pytest.raises(UsageError) as caught:
        build_text(f"FROM tiny\n\n{line}\n")
    assert "Dockerfile:3: " in caught.value.message
    assert message in caught.value.message


def test_what_grows_without_bound_is_an_error(build_text: Build) -> None:
    doubled = "ENV a=xxxxxxxx\n" + "ENV a=$a$a$a$a$a$a$a$a$a$a\n" * 50
    with pytest.raises(UsageError, match=r"Dockerfile:7: ENV: .*longer than 131072"):
        build_text(f"FROM tiny\n{doubled}")
    for name in ("ENV", "ARG", "LABEL"):
        many = "".join(f"{name} b{number}=$a\n" for number in range(1000))
        with pytest.raises(UsageError, match=f"{name}: names and values are longer than 2097152 bytes together"):
            build_text("FROM tiny\nENV a=" + "x" * 60_000 + f"\n{many}")


def test_what_comes_before_from_is_bounded_too(build_text: Build) -> None:
    many = "".join(f"ARG b{number}=$a\n" for number in range(1000))
    with pytest.raises(UsageError, match="ARG: names and values are longer than 2097152 bytes"):
        build_text("ARG a=" + "x" * 60_000 + f"\n{many}FROM tiny\n")


def test_many_instructions_take_time_as_they_are_many(build_text: Build) -> None:
    """Twelve times as many take about twelve times as long; when each copied what came before, it was 140 times."""

    def seconds(lines: int) -> float:
        text = "".join(
            f"ENV A{n}=1\nARG B{n}=1\nLABEL c{n}=1\nEXPOSE {n + 1}-65535\nVOLUME {n}\nONBUILD USER {n}\n"
            for n in range(lines)
        )
        began = time.monotonic()
        image = build_text(f"FROM tiny\n{text}")
        assert len(image.config.env) == lines + 1 and len(image.history) == 6 * lines
        return time.monotonic() - began

    assert seconds(12_000) < 40 * seconds(1000)


def test_an_unknown_parent_image(build_text: Build) -> None:
    with pytest.raises(UsageError, match=r"Dockerfile:1: FROM tinny: no such image") as caught:
        build_text("FROM tinny\n")
    assert caught.value.hint == "known images: testbed/base, tiny"


def test_a_full_disk_is_reported_as_such_and_leaves_no_layer(
    tmp_path: Path, context: Path, tiny: Image, store: Store
) -> None:
    script = Path(__file__).with_name("full_disk.py")
    small = tmp_path / "small"
    small.mkdir()
    # The mount lives in the child's own mount namespace and is gone with it.
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, str(script), str(small), str(tiny.layers[0].path)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == PrerequisiteError.exit_code, done.stderr
    assert "no space left" in done.stdout
    assert "layers: 1, leftovers: 0" in done.stdout


def test_a_killed_build_takes_its_run_along_and_what_is_left_is_found_by_its_name(
    store: Store, tiny: Image, context: Path, tmp_path: Path
) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM tiny\nRUN sleep 60\n")
    process = start_build(store, context, dockerfile, signal.SIGKILL)
    cgroup = Cgroup(f"testbed/build-{process.pid}/run")
    until(lambda: cgroup.exists() and bool(cgroup.pids()), 10)
    process.communicate(timeout=20)
    assert process.returncode == -9
    try:
        until(lambda: not cgroup.pids(), 5, lambda: "the RUN lives on")
        assert not is_held(f"build-{process.pid}")
        assert [path.name.rpartition("-")[2] for path in store.leftovers()] == [str(process.pid)]
    finally:
        cgroup.kill()
        cgroup.remove()
        Cgroup(f"testbed/build-{process.pid}").remove()
        shutil.rmtree(STATE_ROOT / f"build-{process.pid}")

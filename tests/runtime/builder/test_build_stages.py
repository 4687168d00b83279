"""Builds of several stages, for real: what one takes from another, what is skipped, what runs at the same time."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.errors import UsageError, WorkloadError
from runtime.images.model import Image
from runtime.images.rootfs import lookup, read_text
from runtime.images.store import Store
from runtime.lease import STATE_ROOT
from tests.owned import mounts_of
from tests.runtime.builder.builders import start_build

pytestmark = pytest.mark.root

Build = Callable[..., Image]


def text_of(image: Image, path: str) -> str:
    return read_text(path, image.layers)


def status_of(image: Image, path: str) -> os.stat_result:
    found = lookup(path, image.layers)
    assert found is not None, path
    return found.lstat()


def test_a_stage_takes_files_of_another_with_owner_mode_and_time(build_text: Build) -> None:
    image = build_text(
        "FROM tiny AS build\nRUN mkdir -p /out/sub && echo x > /out/sub/file && echo gone > /out/gone"
        " && chmod 750 /out/sub && chown 1000:100 /out/sub/file && touch -d '2001-02-03 04:05:06' /out/sub/file"
        " && ln -s sub/file /out/link && mkfifo /out/pipe\nRUN rm /out/gone\n"
        "FROM tiny\nCOPY --from=build /out /in\nCOPY --from=0 --chown=alice /out/link /taken\n"
    )
    assert text_of(image, "/in/sub/file") == "x\n"
    status = status_of(image, "/in/sub/file")
    assert (status.st_uid, status.st_gid) == (1000, 100)
    assert time.gmtime(status.st_mtime)[:6] == (2001, 2, 3, 4, 5, 6)
    assert stat.S_IMODE(status_of(image, "/in/sub").st_mode) == 0o750
    assert lookup("/in/gone", image.layers) is None
    assert os.readlink(image.layers[1].path / "in/link") == "sub/file"
    assert stat.S_ISFIFO(status_of(image, "/in/pipe").st_mode)
    # What a link names is followed, as in a context.
    assert (text_of(image, "/taken"), status_of(image, "/taken").st_uid) == ("x\n", 1000)
    assert len(image.layers) == 3, "nothing else of the first stage is there"


def test_a_file_of_an_image_in_the_store_and_wild_cards(build_text: Build) -> None:
    image = build_text("FROM scratch\nCOPY --from=tiny /etc/pass* /etc/grou? /here/\nCOPY --from=tiny bin/busybox /\n")
    assert text_of(image, "/here/passwd").startswith("root:") and text_of(image, "/here/group")
    assert stat.S_IMODE(status_of(image, "/busybox").st_mode) == 0o755
    with pytest.raises(UsageError, match="Dockerfile:2: COPY /nothing: no such file in 'tiny'"):
        build_text("FROM scratch\nCOPY --from=tiny /nothing /\n")


def test_a_stage_goes_on_where_another_ended(build_text: Build) -> None:
    image = build_text(
        "ARG G=global\nFROM tiny AS base\nARG G\nENV A=1\nWORKDIR /w\nUSER alice\nLABEL l=m\n"
        'FROM base\nENV B=$A-$G\nCMD ["x"]\n'
    )
    assert image.config.env == ("PATH=/bin", "A=1", "B=1-global")
    assert (image.config.working_dir, image.config.user, image.config.labels) == ("/w", "alice", (("l", "m"),))


def test_a_stage_that_others_are_from_is_not_changed_by_them(build_text: Build) -> None:
    image = build_text(
        "FROM tiny AS base\nENV A=1\nFROM base AS one\nENV A=2\nRUN echo $A > /one\n"
        "FROM base\nCOPY --from=one /one /\nENV B=$A\n"
    )
    assert image.config.env[1:] == ("A=1", "B=1") and text_of(image, "/one") == "2\n"


def test_the_target_is_built_and_nothing_else(build_text: Build, progress: list[str]) -> None:
    text = "FROM tiny AS a\nRUN echo a > /a\nFROM tiny AS b\nRUN exit 1\nFROM a\nRUN echo c > /c\n"
    assert text_of(build_text(text), "/c") == "c\n"
    assert not any("exit 1" in line for line in progress)
    assert [line.split()[1] for line in progress if "RUN" in line] == ["2/4", "4/4"]
    image = build_text(text, target="a")
    assert (text_of(image, "/a"), lookup("/c", image.layers)) == ("a\n", None)
    with pytest.raises(WorkloadError, match="Dockerfile:4: RUN exit 1"):
        build_text(text, target="b")


def test_stages_that_do_not_need_each_other_run_side_by_side(build_text: Build, tmp_path: Path, store: Store) -> None:
    """Each waits for what the other writes, in a cache that they share: one after the other, both would fail."""
    wait = (
        "RUN --mount=type=cache,target=/c touch /c/{0}; n=0; until [ -e /c/{1} ];"
        " do n=$((n+1)); [ $n -lt 100 ] || exit 9; sleep 0.1; done; echo {0} > /{0}\n"
    )
    text = f"FROM tiny AS a\n{wait.format('a', 'b')}FROM tiny AS b\n{wait.format('b', 'a')}"
    image = build_text(f"{text}FROM tiny\nCOPY --from=a /a /\nCOPY --from=b /b /\n")
    assert (text_of(image, "/a"), text_of(image, "/b")) == ("a\n", "b\n")
    assert lookup("/c", image.layers) is None


def test_an_error_in_one_stage_ends_the_others_at_once_and_leaves_nothing(
    build_text: Build, store: Store, tmp_path: Path
) -> None:
    began = time.monotonic()
    with pytest.raises(WorkloadError, match="Dockerfile:4: RUN sleep 1; exit 7: exit status 7"):
        build_text(
            "FROM tiny AS a\nRUN sleep 60\nFROM tiny AS b\nRUN sleep 1; exit 7\n"
            "FROM tiny\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
        )
    assert time.monotonic() - began < 30
    assert store.leftovers() == () and mounts_of(tmp_path, store.root) == []


def test_stages_give_the_same_bits_again(build_text: Build, store: Store, context: Path) -> None:
    (context / "file").write_text("x")
    with tarfile.open(context / "a.tar", "w") as archive:
        archive.add(context / "file", "dir/file")
    text = (
        "FROM tiny AS a\nRUN mkdir -p /o/d && echo x > /o/d/x && echo y > /y\nADD a.tar /o/\nFROM tiny AS b\n"
        "COPY <<E /h\ntext\nE\nWORKDIR /w/d\nFROM b\nCOPY --from=a /o /o\nCOPY --link --from=a /y /y\nCOPY . /c/\n"
    )
    first = build_text(text)
    shutil.rmtree(store.root / "cache")
    assert build_text(text).id == first.id


def test_the_same_step_in_two_stages_is_one_layer(build_text: Build) -> None:
    image = build_text(
        "FROM tiny AS a\nRUN echo x > /x\nFROM tiny AS b\nRUN echo x > /x\nFROM tiny\n"
        "COPY --from=a /x /a\nCOPY --from=b /x /b\n"
    )
    assert text_of(image, "/a") == text_of(image, "/b") == "x\n"


def test_what_a_parent_leaves_for_its_children_is_executed_and_not_handed_on(
    build_text: Build, store: Store, context: Path
) -> None:
    (context / "file").write_text("1")
    parent = build_text("FROM tiny\nONBUILD COPY file /copied\nONBUILD RUN cat /copied > /run\n", reference="parent")
    assert parent.config.on_build == ("COPY file /copied", "RUN cat /copied > /run")
    found = store.get("parent")
    assert found.config.on_build == parent.config.on_build, "it survives the store"
    child = build_text("FROM parent\nRUN cat /run > /own\n")
    assert text_of(child, "/own") == "1" and child.config.on_build == ()
    (context / "file").unlink()
    with pytest.raises(UsageError, match=r"Dockerfile:2: COPY file: no such file"):
        build_text("\nFROM parent\n")


def test_resolver_gets_reference_and_platform(build_text: Build, tiny: Image) -> None:
    asked: list[tuple[str, str]] = []

    def resolve(reference: str, platform: str) -> Image | None:
        asked.append((reference, platform))
        return tiny if reference.startswith("r.example/") else None

    text = "FROM --platform=linux/arm64 r.example/a:1\nCOPY --from=r.example/b /etc/passwd /x\n"
    assert text_of(build_text(text, resolve=resolve), "/x").startswith("root:")
    assert asked == [("r.example/a:1", "linux/arm64"), ("r.example/b", "")]
    with pytest.raises(UsageError, match="Dockerfile:1: FROM nothing: no such image"):
        build_text("FROM nothing\n", resolve=resolve)
    with pytest.raises(UsageError, match="Dockerfile:1: FROM tiny: the platform linux/s390x"):
        build_text("FROM --platform=linux/s390x tiny\n")


def test_named_contexts_are_taken_before_stages_and_images(build_text: Build, tmp_path: Path) -> None:
    folder = tmp_path / "named"
    folder.mkdir()
    (folder / "file").write_text("named\n")
    (folder / "ignored").write_text("x")
    (folder / ".dockerignore").write_text("ignored\n")
    text = (
        "FROM nothing AS extra\nRUN exit 1\nFROM base\nCOPY --from=extra . /c/\nCOPY --from=users /etc/passwd /p\n"
        "RUN --mount=from=extra,target=/m cat /m/file > /seen\n"
    )
    contexts = {"extra": folder, "base": "tiny", "users": "tiny"}
    image = build_text(text, contexts=contexts, labels={"l": "m"})
    assert text_of(image, "/c/file") == text_of(image, "/seen") == "named\n" and text_of(image, "/p")
    assert lookup("/c/ignored", image.layers) is None and image.config.labels == (("l", "m"),)
    (folder / "file").write_text("changed\n")
    assert text_of(build_text(text, contexts=contexts), "/seen") == "changed\n"
    with pytest.raises(UsageError, match="Dockerfile:1: FROM extra: it is a folder"):
        build_text("FROM extra\n", contexts=contexts)


def test_the_builders_own_arguments(build_text: Build) -> None:
    image = build_text(
        "ARG TARGETARCH\nFROM --platform=$BUILDPLATFORM tiny\nENV A=x$TARGETARCH\nARG TARGETARCH\n"
        "ARG TARGETOS TARGETSTAGE\n"
        "ENV B=$TARGETOS/$TARGETARCH C=$TARGETSTAGE\n"
    )
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    assert image.config.env[1:] == ("A=x", f"B=linux/{machine}", "C=default")


def test_a_proxy_given_as_an_argument_is_known_to_run_alone(build_text: Build, store: Store) -> None:
    text = "FROM tiny\nENV A=x$http_proxy\nRUN echo $http_proxy > /seen\n"
    image = build_text(text, arguments={"http_proxy": "http://proxy.example:1"})
    assert text_of(image, "/seen") == "http://proxy.example:1\n" and image.config.env[1:] == ("A=x",)
    again = build_text(text, arguments={"http_proxy": "http://other.example:1"})
    assert again.id == image.id, "a proxy is nothing that a step depends on"


def test_an_interrupt_ends_all_stages_and_leaves_nothing(
    store: Store, tiny: Image, context: Path, tmp_path: Path
) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(
        "FROM tiny AS a\nRUN sleep 60\nFROM tiny AS b\nRUN sleep 61\n"
        "FROM tiny\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    )
    process = start_build(store, context, dockerfile, signal.SIGINT, after_s=2)
    _, errors = process.communicate(timeout=40)
    assert process.returncode == -2, errors
    assert "KeyboardInterrupt" in errors and "Cancelled" not in errors.splitlines()[-1]
    assert store.leftovers() == () and mounts_of(tmp_path, store.root) == []
    assert not Cgroup(f"testbed/build-{process.pid}").exists()
    assert not (STATE_ROOT / f"build-{process.pid}").exists()


def test_arguments_of_the_caller_are_before_all_others(build_text: Build) -> None:
    text = "ARG A=file\nARG B=$A\nFROM tiny\nARG A=stage\nARG B\nARG C\nENV X=$A Y=$B Z=${C-unset}\n"
    assert build_text(text).config.env[1:] == ("X=stage", "Y=file", "Z=unset")
    assert build_text(text, arguments={"A": "own", "C": ""}).config.env[1:] == ("X=own", "Y=own", "Z=")

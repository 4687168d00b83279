"""Dockerfiles built for real: RUN in containers of this runtime, layers in a store, and what failure leaves."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import container
from runtime.builder import build as build_module
from runtime.builder import stage
from runtime.errors import UsageError, WorkloadError
from runtime.images.model import Image
from runtime.images.process import image_process
from runtime.images.rootfs import lookup, read_text
from runtime.images.store import Store
from runtime.spec import Spec, User
from runtime.unionfs.depth import LAYERS_LIMIT
from runtime.unionfs.lookup import OPAQUE_XATTR

pytestmark = pytest.mark.root

Build = Callable[[str], Image]


def files(image: Image, layer: int = -1) -> set[str]:
    root = image.layers[layer].path
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def output(image: Image, run_name: str, folder: Path) -> str:
    spec = Spec(image_process(image, environment={}), tuple(str(layer.path) for layer in image.layers), "test")
    log = folder / "output"
    with log.open("wb") as file:
        status = container.run(spec, name=f"testbed/{run_name}", log=file.fileno())
    assert status == 0, log.read_text()
    return log.read_text()


def test_an_image_runs_as_its_dockerfile_says(
    build_text: Build, context: Path, cgroup_parent: str, run_name: str, tmp_path: Path
) -> None:
    (context / "hello.txt").write_text("hello from the context\n")
    image = build_text(
        "FROM tiny\nENV GREETING=hello\nRUN mkdir /made && echo run > /made/file\nWORKDIR /app\n"
        "COPY hello.txt .\nUSER alice\n"
        'CMD ["sh", "-c", "pwd; id -u; id -G; echo $GREETING; cat hello.txt /made/file"]\n'
    )
    assert output(image, f"{run_name}/a", tmp_path).splitlines() == [
        "/app", "1000", "100 29", "hello", "hello from the context", "run",
    ]  # fmt: skip


def test_configuration_of_all_the_metadata_instructions(build_text: Build) -> None:
    image = build_text(
        'ARG BASE=tiny\nFROM $BASE\nARG MODE=fast\nENV A=1 B=$A-$MODE\nENV B="${B} and ${MODE:+more}" C=$B\n'
        'WORKDIR srv\nWORKDIR ../tmp\nUSER alice:audio\nEXPOSE 8080 53/udp\nLABEL a.b="c d" $MODE=x\n'
        'ENTRYPOINT ["serve"]\nCMD now\n'
    )
    config = image.config
    assert config.env == ("PATH=/bin", "A=1", "B=-fast and more", "C=-fast")
    assert (config.working_dir, config.user) == ("/tmp", "alice:audio")
    assert config.exposed_ports == ("53/udp", "8080/tcp")
    assert config.labels == (("a.b", "c d"), ("fast", "x"))
    assert (config.entrypoint, config.cmd) == (("serve",), ("/bin/sh", "-c", "now"))
    assert len(image.layers) == 1
    assert [entry.empty_layer for entry in image.history] == [True] * 10


def test_what_a_later_step_writes_is_newer(build_text: Build, context: Path) -> None:
    """``make`` and ``test -nt`` decide by it, whether the steps before were executed now or found."""
    (context / "source").write_text("x")
    text = "FROM tiny\nCOPY source /\nRUN [ /source -nt /bin/busybox ] && touch /made && [ /made -nt /source ]\n"
    build_text(text)
    image = build_text(f"{text}RUN [ /made -nt /source ] && touch /again && [ /again -nt /made ]\n")
    times = [
        (layer.path / name).stat().st_mtime
        for layer, name in zip(image.layers[1:], ("source", "made", "again"), strict=True)
    ]
    assert times == sorted(set(times))


@pytest.mark.parametrize(
    "steps",
    [
        "RUN true\n" * 3,
        "COPY file /srv/\n" * 3,
        "RUN touch /x\nRUN rm /x\nRUN touch /x\n",
        "WORKDIR /a\nRUN true\n" * 2,
    ],
)
def test_the_same_step_again_is_built_on_and_run(
    build_text: Build, context: Path, cgroup_parent: str, run_name: str, tmp_path: Path, steps: str
) -> None:
    (context / "file").write_text("x")
    image = build_text(f'FROM tiny\n{steps}RUN echo on top > /top\nCMD ["cat", "/top"]\n')
    assert output(image, f"{run_name}/a", tmp_path) == "on top\n"


def test_a_runs_output_is_seen_while_it_runs_and_obeyed_by_no_terminal(build_text: Build, progress: list[str]) -> None:
    build_text("FROM tiny\nRUN printf 'one\\033[2J\\rtwo\\033]0;title\\007\\nthree'\n")
    assert [line.strip() for line in progress if line.startswith("    ")] == ["one", "two", "three"]


@pytest.mark.parametrize("command", ['["no-such-program", "x"]', '["/etc/passwd"]'])
def test_a_program_that_cannot_be_executed_is_named_with_its_line(build_text: Build, command: str) -> None:
    with pytest.raises(WorkloadError, match=r"Dockerfile:2: RUN (no-such-program x|/etc/passwd): execute "):
        build_text(f"FROM tiny\nRUN {command}\n")


def test_on_more_layers_than_an_overlay_has_a_run_sees_them_all(build_text: Build, store: Store) -> None:
    copies = "".join(f"COPY <<EOF /srv/{number}\n{number}\nEOF\n" for number in range(LAYERS_LIMIT + 20))
    build_text(f"FROM tiny\n{copies}RUN rm /srv/3 && cat /srv/* | sort -n | head -n 5 > /found\nRUN rm /srv/4\n")
    image = store.get("test/app")
    assert len(image.layers) == LAYERS_LIMIT + 23
    assert read_text("/found", image.layers).split() == ["0", "1", "2", "4", "5"]
    assert lookup("/srv/4", image.layers) is None and read_text(f"/srv/{LAYERS_LIMIT}", image.layers)


def test_there_are_not_any_number_of_layers(build_text: Build, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (context / "file").write_text("x")
    monkeypatch.setattr(stage, "MOST_LAYERS", 3)
    with pytest.raises(UsageError, match=r"Dockerfile:4: COPY: more than 3 layers"):
        build_text("FROM tiny\n" + "COPY file /a\n" * 3)


def test_copy_over_an_existing_tree_decides_on_nested_owners_and_modes(build_text: Build, context: Path) -> None:
    """BuildKit's rules: the destination stays as it is, or is made as any directory; what is below it takes the
    source's permissions."""
    (context / "dir/sub").mkdir(parents=True)
    (context / "dir").chmod(0o711)
    (context / "dir/sub").chmod(0o700)
    image = build_text(
        "FROM tiny\nRUN mkdir -p /app/sub && chmod 777 /app /app/sub\nCOPY --chown=alice dir /app\nCOPY dir /new\n"
    )
    app, sub, new = (lookup(path, image.layers) for path in ("/app", "/app/sub", "/new"))
    assert app and sub and new
    assert [(p.stat().st_uid, stat.S_IMODE(p.stat().st_mode)) for p in (app, sub, new)] == [
        (0, 0o777), (1000, 0o700), (0, 0o755),
    ]  # fmt: skip


def test_copy_keeps_capabilities_and_a_users_attributes(build_text: Build, context: Path) -> None:
    file = context / "tool"
    file.write_text("x")
    file.chmod(0o755)
    before = build_text("FROM tiny\nCOPY --chown=alice tool /tool\n")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(file, "security.capability", capability)
    os.setxattr(file, "user.note", b"kept")
    image = build_text("FROM tiny\nCOPY --chown=alice tool /tool\n")
    assert image.id != before.id
    copied = image.layers[-1].path / "tool"
    assert os.getxattr(copied, "security.capability") == capability
    assert os.getxattr(copied, "user.note") == b"kept"


def test_an_image_from_scratch_is_what_is_copied(
    build_text: Build, context: Path, cgroup_parent: str, run_name: str, tmp_path: Path
) -> None:
    shutil.copy("/bin/busybox", context / "busybox")
    image = build_text(
        'FROM scratch\nCOPY busybox /bin/\nWORKDIR /work\nRUN ["busybox", "touch", "made"]\n'
        'USER 7\nCMD ["busybox", "ls"]\n'
    )
    assert [files(image, layer) for layer in range(3)] == [{"bin", "bin/busybox"}, {"work"}, {"work", "work/made"}]
    assert output(image, f"{run_name}/a", tmp_path) == "made\n"


@pytest.mark.parametrize(
    ("rest", "message"),
    [("", "Dockerfile:1: the image has no files"), ("RUN true\n", "Dockerfile:2: overlay: an image without layers")],
)
def test_from_scratch_alone_there_is_nothing_to_run(build_text: Build, rest: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_text(f"FROM scratch\n{rest}")


def test_an_entrypoint_drops_the_parents_command(build_text: Build) -> None:
    assert build_text('FROM tiny\nENTRYPOINT ["x"]').config.cmd == ()
    assert build_text('FROM tiny\nCMD ["y"]\nENTRYPOINT ["x"]').config.cmd == ("y",)
    parent = 'FROM tiny AS parent\nCMD ["y"]\nFROM parent\n'
    assert build_text(f'{parent}ENTRYPOINT ["x"]').config.cmd == (), "a stage is as any parent"
    assert build_text(f"{parent}ENV A=1").config.cmd == ("y",)


def test_run_keeps_changes_and_nothing_of_the_runtimes(build_text: Build) -> None:
    image = build_text("FROM tiny\nRUN rm /bin/date && mkdir /srv/new && echo x > /tmp/x && cat /etc/resolv.conf\n")
    assert files(image) == {"usr", "usr/bin", "usr/bin/date", "srv", "srv/new", "tmp", "tmp/x"}
    assert stat.S_ISCHR((image.layers[1].path / "usr/bin/date").lstat().st_mode)
    assert lookup("/bin/date", image.layers) is None


def test_run_that_changes_nothing_is_an_empty_layer(build_text: Build) -> None:
    assert files(build_text("FROM tiny\nRUN true || exit 0\n")) == set()


def test_a_replaced_directory_hides_the_one_below(build_text: Build) -> None:
    image = build_text("FROM tiny\nRUN echo x > /srv/old\nRUN rm -r /srv && mkdir /srv && echo y > /srv/new\n")
    assert os.getxattr(image.layers[2].path / "srv", OPAQUE_XATTR) == b"y"
    assert lookup("/srv/old", image.layers) is None
    assert read_text("/srv/new", image.layers) == "y\n"


def test_run_sees_arg_and_env_and_the_user(build_text: Build) -> None:
    image = build_text(
        "FROM tiny\nARG WHO=arg\nARG BOTH=arg\nENV BOTH=env\nRUN chmod 777 /srv\nUSER alice\nWORKDIR /srv\n"
        'RUN echo "$WHO $BOTH $HOME $(id -u) $(pwd)" > seen\nRUN ["sh", "-c", "echo exec > form"]\n'
    )
    assert read_text("/srv/seen", image.layers) == "arg env /home/alice 1000 /srv\n"
    assert read_text("/srv/form", image.layers) == "exec\n"
    assert "WHO" not in "".join(image.config.env)
    assert (image.layers[2].path / "srv/seen").stat().st_uid == 1000


def test_copy_places_owns_and_merges(build_text: Build, context: Path) -> None:
    (context / "dir/sub").mkdir(parents=True)
    (context / "dir/a").write_text("a")
    (context / "dir/sub/b").write_text("b")
    (context / "dir/link").symlink_to("a")
    (context / "tool").write_text("tool")
    (context / "tool").chmod(0o755)
    image = build_text(
        "FROM tiny\nCOPY --chown=alice dir /app\nCOPY tool /bin/\n"
        "COPY --chmod=600 tool dir/a /etc/conf/\nCOPY tool /one\n"
    )
    assert files(image, 1) == {"app", "app/a", "app/sub", "app/sub/b", "app/link"}
    assert {(image.layers[1].path / name).lstat().st_uid for name in files(image, 1)} == {1000}
    # /bin is a link in the image: the file goes where it points, and the link stays.
    assert files(image, 2) == {"usr", "usr/bin", "usr/bin/tool"}
    assert (image.layers[2].path / "usr/bin/tool").stat().st_mode & 0o777 == 0o755
    assert files(image, 3) == {"etc", "etc/conf", "etc/conf/tool", "etc/conf/a"}
    assert (image.layers[3].path / "etc/conf/a").stat().st_mode & 0o777 == 0o600
    assert files(image, 4) == {"one"}


def test_copied_directories_on_the_way_stay_as_they_are(build_text: Build, context: Path) -> None:
    (context / "file").write_text("x")
    image = build_text("FROM tiny\nRUN chmod 1777 /srv && chown 1000:100 /srv\nCOPY file /srv/deep/file\n")
    status = (image.layers[2].path / "srv").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o1777, 1000, 100)


def test_the_second_build_finds_every_layer(build_text: Build, context: Path, progress: list[str]) -> None:
    (context / "file").write_text("1")
    text = "FROM tiny\nRUN echo x > /x\nCOPY file /file\nWORKDIR /new\nRUN echo y > /y\nCMD x\n"
    first = build_text(text)
    progress.clear()
    assert build_text(text) == first
    assert progress == [], "nothing was done"
    build_text(f"{text}RUN echo z > /z\n")
    assert [line for line in progress if line.endswith("(cached)")] == [
        "app 2/7 RUN echo x > /x (cached)",
        "app 3/7 COPY file /file (cached)",
        "app 4/7 WORKDIR /new (cached)",
        "app 5/7 RUN echo y > /y (cached)",
    ]
    assert [line.partition(" in ")[0] for line in progress[-3:]] == [
        "app 6/7 CMD x",
        "app 7/7 RUN echo z > /z",
        "app 7/7 done",
    ]


def test_what_changed_and_what_follows_is_made_again(build_text: Build, context: Path, progress: list[str]) -> None:
    (context / "file").write_text("1")
    text = "FROM tiny\nRUN echo x > /x\nCOPY file /file\nRUN cat /file > /copy\n"
    first = build_text(text)
    progress.clear()
    (context / "file").write_text("2")
    second = build_text(text)
    assert [line.rpartition(" ")[2] == "(cached)" for line in progress if "done" not in line] == [True, False, False]
    assert first.layers[:2] == second.layers[:2]
    assert read_text("/copy", second.layers) == "2"
    progress.clear()
    build_text("FROM tiny\nENV OTHER=1\nRUN echo x > /x\n")
    assert not any("(cached)" in line for line in progress)


def test_the_same_dockerfile_gives_the_same_image_anywhere(build_text: Build, store: Store) -> None:
    text = "FROM tiny\nRUN mkdir /d && echo x > /d/x && echo y > /d/y\n"
    first = build_text(text)
    for entry in (store.root / "cache").iterdir():
        entry.unlink()
    assert build_text(text).id == first.id


def test_an_argument_from_before_from_is_the_default_after_it(build_text: Build) -> None:
    image = build_text("ARG BASE=tiny\nFROM $BASE\nENV A=x$BASE\nARG BASE\nENV B=x$BASE\n")
    assert image.config.env[1:] == ("A=x", "B=xtiny")


def test_another_escape_character(build_text: Build) -> None:
    image = build_text("# escape=`\nFROM tiny\nENV A=C:\\ `\n B=`$A\nWORKDIR /a\\b\n")
    assert image.config.env[1:] == ("A=C:\\", "B=$A")
    assert image.config.working_dir == "/a\\b"


@pytest.mark.parametrize(
    ("wanted", "base", "release"),
    [
        ("testbed/base", "", ""),
        ("testbed/base", "trixie", "trixie"),
        ("testbed/base:noble", "trixie", "noble"),
        ("testbed/base:bookworm", "", "bookworm"),
    ],
)
def test_the_base_is_of_the_release_that_the_caller_or_the_file_names(
    store: Store, tiny: Image, context: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, base: str, release: str
) -> None:
    asked: list[str] = []

    def ensure_base(_store: Store, _progress: object, release: str) -> Image:
        asked.append(release)
        return tiny

    monkeypatch.setattr(build_module, "ensure_base", ensure_base)
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(f"FROM {wanted}\nENV A=b\n")
    build_module.build(store, context=context, dockerfile=dockerfile, reference="t/t", progress=print, base=base)
    assert asked == [release]


def test_users_of_the_image_decide_not_those_of_the_host(build_text: Build) -> None:
    image = build_text("FROM tiny\nRUN echo 'www-data:x:7:7::/w:/bin/sh' >> /etc/passwd\nUSER www-data\n")
    assert image_process(image, environment={}).user == User(7, 7)

"""RUN with mounts, here-documents, another shell and another network, for real; no mount is in the image."""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.builder.runs import Runs
from runtime.errors import UsageError, WorkloadError
from runtime.images.model import Image
from runtime.images.rootfs import lookup, read_text
from runtime.images.store import Store

pytestmark = pytest.mark.root

Build = Callable[..., Image]


def text_of(image: Image, path: str) -> str:
    return read_text(path, image.layers)


def files(image: Image, layer: int = -1) -> set[str]:
    root = image.layers[layer].path
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_a_context_is_bound_without_what_it_ignores_and_not_changed(build_text: Build, context: Path) -> None:
    (context / "src").mkdir()
    (context / "src/file").write_text("from the context\n")
    (context / "src/secret").write_text("s")
    (context / ".dockerignore").write_text("src/secret\n")
    text = (
        "FROM tiny\nRUN --mount=type=bind,source=src,target=/m/deep,rw ls /m/deep > /seen && cat /m/deep/file >> /seen"
        " && echo changed > /m/deep/file\n"
    )
    image = build_text(text)
    assert text_of(image, "/seen") == "file\nfrom the context\n" and files(image) == {"seen"}
    assert (context / "src/file").read_text() == "from the context\n"
    assert build_text(text).id == image.id
    (context / "src/file").write_text("another\n")
    assert text_of(build_text(text), "/seen") == "file\nanother\n"


def test_a_file_of_the_context_is_bound(build_text: Build, context: Path) -> None:
    (context / "list").write_text("a\n")
    image = build_text("FROM tiny\nWORKDIR /w\nRUN --mount=type=bind,source=list,target=list cat list > /seen\n")
    assert text_of(image, "/seen") == "a\n" and files(image) == {"seen"}


@pytest.mark.parametrize(("source", "message"), [("none*", "matches no file"), ("[ab]", "matches several files")])
def test_a_bind_is_of_one_source(build_text: Build, context: Path, source: str, message: str) -> None:
    for name in ("a", "b"):
        (context / name).write_text(name)
    for where in ("", ",from=0"):
        mount = f"--mount=type=bind,source={source},target=/x{where}"
        with pytest.raises(UsageError, match=message):
            build_text(f"FROM tiny\nRUN echo > /a; echo > /b\nFROM tiny\nRUN {mount} true\n")


def test_a_bind_is_read_only_unless_it_says_otherwise(build_text: Build, context: Path) -> None:
    (context / "file").write_text("x")
    with pytest.raises(WorkloadError, match="Read-only file system"):
        build_text("FROM tiny\nRUN --mount=target=/m touch /m/new\n")


def test_a_stage_is_bound_whole_or_a_file_of_it(build_text: Build) -> None:
    image = build_text(
        "FROM tiny AS a\nRUN mkdir /out && echo 1 > /out/one && echo gone > /out/gone\n"
        "RUN rm /out/gone && echo 2 > /out/two\n"
        "FROM tiny\nRUN --mount=from=a,source=/out,target=/mnt cat /mnt/* > /all\n"
        "RUN --mount=from=a,source=/out/two,target=/srv/two cat /srv/two > /two\n"
        "RUN --mount=from=a,target=/mnt,rw touch /mnt/new && ls /mnt/out > /listed\n"
    )
    assert (text_of(image, "/all"), text_of(image, "/two"), text_of(image, "/listed")) == (
        "1\n2\n",
        "2\n",
        "one\ntwo\n",
    )
    assert [files(image, layer) for layer in (1, 2, 3)] == [{"all"}, {"two"}, {"listed"}]


def test_a_cache_lasts_and_is_no_part_of_the_image(build_text: Build, store: Store) -> None:
    text = "FROM tiny\nRUN --mount=type=cache,target=/var/c,id=c{0} echo {1} >> /var/c/log && cat /var/c/log > /seen\n"
    build_text(text.format("", "one"))
    image = build_text(text.format("", "two"))
    assert text_of(image, "/seen") == "one\ntwo\n" and files(image) == {"seen"}
    assert text_of(build_text(text.format("2", "three")), "/seen") == "three\n"
    assert store.leftovers() == ()


def test_a_cache_may_begin_with_a_stages_files_and_be_somebodys(build_text: Build) -> None:
    image = build_text(
        "FROM tiny AS a\nRUN mkdir /s && echo begun > /s/file\nFROM tiny\nRUN chmod 777 /tmp\n"
        "USER alice\nWORKDIR /tmp\n"
        "RUN --mount=type=cache,target=/c,from=a,source=/s,uid=1000,mode=0700,sharing=locked"
        " cat /c/file > seen && ls -ldn /c >> seen && touch /c/own\n"
    )
    begun, listed = text_of(image, "/tmp/seen").splitlines()
    assert begun == "begun" and listed.split()[:3:2] == ["drwx------", "1000"]


def test_a_tmpfs_and_no_network(build_text: Build) -> None:
    image = build_text(
        "FROM tiny\nRUN --mount=type=tmpfs,target=/srv,size=1m --network=none"
        " touch /srv/x && grep -c tmpfs.*size=1024k /proc/mounts > /seen; ls /sys/class/net >> /seen\n"
    )
    assert text_of(image, "/seen") == "1\nlo\n" and files(image) == {"seen"}


def test_a_secret_is_seen_and_kept_nowhere(build_text: Build, store: Store) -> None:
    text = (
        "FROM tiny\nRUN --mount=type=secret,id=key"
        " --mount=type=secret,id=key,env=KEY,target=/etc/key,mode=0444,uid=1000"
        " [ $(cat /run/secrets/key) = $KEY ] && ls -ln /run/secrets/key /etc/key > /seen\n"
    )
    image = build_text(text, secrets={"key": b"hidden-indeed"})
    assert [line.split()[0] for line in text_of(image, "/seen").splitlines()] == ["-r--r--r--", "-r--------"]
    assert files(image) == {"seen"}
    for path in store.root.rglob("*"):
        assert not (path.is_file() and b"hidden-indeed" in path.read_bytes()), path
    assert build_text(text, secrets={"key": b"other"}).id == image.id, "a secret is nothing that a step depends on"


def test_other_users_of_the_host_do_not_see_a_secret(tmp_path: Path) -> None:
    with Runs() as runs:
        folder = runs.memory()
        assert folder == runs.memory() and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_a_secret_that_nobody_gave(build_text: Build) -> None:
    image = build_text("FROM tiny\nRUN --mount=type=secret,id=key [ ! -e /run/secrets/key ] && echo none > /seen\n")
    assert text_of(image, "/seen") == "none\n"
    with pytest.raises(UsageError, match="Dockerfile:2: RUN --mount: the secret 'key' is required"):
        build_text("FROM tiny\nRUN --mount=type=secret,id=key,required true\n")


def test_the_socket_of_an_agent(build_text: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("agent")
        image = build_text(
            "FROM tiny\nRUN --mount=type=ssh [ -S $SSH_AUTH_SOCK ] && echo $SSH_AUTH_SOCK > /seen\n",
            agents={"default": tmp_path / "agent"},
        )
    assert text_of(image, "/seen") == "/run/buildkit/ssh_agent.0\n" and files(image) == {"seen"}


def test_what_a_command_makes_under_a_mount_point_stays(build_text: Build) -> None:
    image = build_text(
        "FROM tiny\nRUN --mount=type=tmpfs,target=/srv/a/b touch /srv/a/own\nRUN --mount=type=tmpfs,target=/x/y true\n"
    )
    assert "srv/a/own" in files(image, 1) and "srv/a/b" not in files(image, 1)
    assert files(image, 2) == set()


# --- here-documents and shells


def test_here_documents_of_run(build_text: Build) -> None:
    image = build_text(
        "FROM tiny\nENV A=env\nRUN <<EOF\necho one $A > /seen\nif true; then\n  echo two >> /seen\nfi\nEOF\n"
        "RUN cat <<-FIRST >> /seen && cat <<'SECOND' >> /seen\n\tthree $A\n\tFIRST\nfour $A\nSECOND\n"
        "RUN <<EOF\n#!/bin/cat\nfive $A\nEOF\n"
        'RUN ["sh", "-c", "echo \'<<EOF\' > /six"]\n'
    )
    assert text_of(image, "/seen") == "one env\ntwo\nthree env\nfour $A\n" and text_of(image, "/six") == "<<EOF\n"
    assert lookup("/dev/pipes", image.layers) is None


def test_an_interpreter_reads_the_here_document_that_names_it(build_text: Build, progress: list[str]) -> None:
    build_text("FROM tiny\nRUN <<EOF\n#!/bin/cat\nfive $A\nEOF\n")
    assert [line.strip() for line in progress if line.startswith("    ")] == ["#!/bin/cat", "five $A"]


def test_a_failing_line_of_a_here_document_is_told_with_the_whole(build_text: Build) -> None:
    with pytest.raises(WorkloadError, match=r"Dockerfile:2: RUN <<EOF: exit status 3"):
        build_text("FROM tiny\nRUN <<EOF\nexit 3\nEOF\n")


def test_another_shell_is_for_what_follows_and_for_the_image(build_text: Build) -> None:
    image = build_text('FROM tiny\nRUN false; true\nSHELL ["/bin/sh", "-ec"]\nENTRYPOINT serve\n')
    assert image.config.shell == ("/bin/sh", "-ec") and image.config.entrypoint == ("/bin/sh", "-ec", "serve")
    with pytest.raises(WorkloadError, match="Dockerfile:3: RUN false; true: exit status 1"):
        build_text('FROM tiny\nSHELL ["/bin/sh", "-ec"]\nRUN false; true\n')


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--network=host", "RUN --network=host"),
        ("--security=insecure", "RUN --security=insecure"),
        ("--mount=type=bind,source=nothing,target=/x", "COPY nothing: no such file"),
        ("--mount=type=bind,target=/x,mode=1", "RUN: --mount: bind has no mode"),
    ],
)
def test_what_a_run_may_not_have_is_told_with_its_line(build_text: Build, flag: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_text(f"FROM tiny\n\nRUN {flag} true\n")
    assert f"Dockerfile:3: {message}" in caught.value.message

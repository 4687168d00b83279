"""Unions on real mounts: what shows, what is written where, and what stays when they change while in use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError, UsageError
from runtime.unionfs import branches, detached, drivers, mount_api, unions
from tests.runtime.shared_host import shared_host
from tests.runtime.unionfs.union_site import Site
from tests.waiting import until

pytestmark = pytest.mark.root
ROOT = Path(__file__).resolve().parents[3]
KERNELS = ("overlay", "fuse-overlayfs")


def usable(driver: str) -> str:
    verdict = drivers.probe(driver)
    if not verdict.works:
        pytest.skip(f"{driver}: {verdict.detail}")
    return driver


def digest(tree: Path) -> str:
    """The names, kinds and contents of a directory."""
    total = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        total.update(f"{path} {path.lstat().st_mode} {path.lstat().st_mtime_ns}".encode())
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


@pytest.mark.parametrize("driver", KERNELS)
def test_writes_go_to_the_writable_branch_and_readonly_means_it(site: Site, driver: str) -> None:
    before = digest(site.root / "b"), digest(site.root / "c")
    result = site.mount("a=rw:b=ro:c", usable(driver))
    assert result.driver == driver and result.attached == "first"
    assert (site.target / "file").read_text() == "of b"
    with (site.target / "deep" / "only").open("a") as file:
        file.write(", and more")
    (site.target / "file").unlink()
    (site.target / "deep" / "new").write_text("new")
    assert (site.root / "a" / "deep" / "only").read_text() == "only c, and more"
    assert (site.root / "a" / "deep" / "new").read_text() == "new"
    assert sorted(os.listdir(site.target)) == ["deep"]
    assert (digest(site.root / "b"), digest(site.root / "c")) == before
    site.umount()
    assert site.left() == []


def test_a_union_of_readonly_branches_takes_no_writes(site: Site) -> None:
    site.mount("b=ro:c=ro")
    with pytest.raises(OSError, match="Read-only file system"):
        (site.target / "new").write_text("x")


@pytest.mark.parametrize("driver", KERNELS)
@pytest.mark.parametrize("beneath", [True, False], ids=["beneath", "above"])
def test_a_branch_comes_and_goes_while_files_are_open(
    site: Site, driver: str, beneath: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.mount("a=rw:b=ro", usable(driver))
    if not beneath:  # as before Linux 6.5
        attach = mount_api.attach

        def old_attach(mount: int, target: str, beneath: bool = False) -> None:
            if beneath:
                raise OSError(22, "Invalid argument")
            attach(mount, target)

        monkeypatch.setattr(mount_api, "attach", old_attach)
        monkeypatch.setattr(drivers, "can_mount_beneath", lambda: False)
    reader = (site.target / "file").open()
    writer = (site.target / "log").open("w")
    result = unions.change(
        str(site.target), lambda union: branches.add(union, f"1:{site.root}/c=ro"), records=site.records
    )
    assert result.attached == ("beneath" if beneath else "above") and result.driver == driver
    assert (site.target / "file").read_text() == "of c"
    assert reader.read() == "of b"
    writer.write("after the change")
    writer.flush()
    assert (site.target / "log").read_text() == "after the change" == (site.root / "a" / "log").read_text()
    unions.change(str(site.target), lambda union: branches.delete(union, f"{site.root}/b"), records=site.records)
    assert sorted(os.listdir(site.target)) == ["deep", "file", "log"]
    reader.close()
    writer.close()
    site.umount()
    assert site.left() == []


def test_no_name_is_missing_at_any_moment_of_a_change(site: Site) -> None:
    site.mount("a=rw:b=ro")
    script = f"""
import os
print("ready", flush=True)
looks, missing = 0, 0
while os.path.exists({str(site.root / "a" / "go")!r}) or not looks:
    looks += 1
    missing += not os.path.exists({str(site.target / "file")!r})
print(looks, missing)"""
    (site.root / "a" / "go").touch()
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout and watcher.stdout.readline() == "ready\n"
        for words in ("c", "c") * 3:
            path = f"{site.root}/{words}"
            unions.change(str(site.target), lambda union, path=path: branches.add(union, path), site.records)  # type: ignore[misc]
            unions.change(str(site.target), lambda union, path=path: branches.delete(union, path), site.records)  # type: ignore[misc]
        (site.root / "a" / "go").unlink()
        looks, missing = map(int, watcher.stdout.readline().split())
    assert looks > 100 and missing == 0


@pytest.mark.parametrize("driver", KERNELS)
def test_a_branch_becomes_readonly_only_when_nobody_writes(site: Site, driver: str) -> None:
    site.mount("a=rw:b=ro", usable(driver))

    def change() -> unions.Result:
        return unions.change(
            str(site.target), lambda union: branches.modify(union, f"{site.root}/a=ro"), records=site.records
        )

    with (site.target / "log").open("w") as writer:
        with pytest.raises(UsageError, match="while files are open for that") as refused:
            change()
        assert str(os.getpid()) in refused.value.hint
        writer.write("still writable")
    (site.target / "other").write_text("and so is the union")
    change()
    with pytest.raises(OSError, match="Read-only"):
        (site.target / "more").write_text("x")
    assert (site.target / "log").read_text() == "still writable"


def test_several_writable_branches_get_new_files_by_policy(site: Site) -> None:
    usable("mergerfs")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(site.root / "a")], check=True)
    try:
        before = digest(site.root / "c")
        result = site.mount("a=rw:b=rw:c=ro", options=",create=mfs")
        assert result.driver == "mergerfs" and "create=mfs" in result.union
        (site.target / "new").write_text("x")
        assert (site.root / "b" / "new").exists() and not (site.root / "a" / "new").exists()
        with (site.target / "deep" / "only").open("a") as file:  # what only the read-only branch has
            file.write(", and more")
        (site.target / "deep" / "only").chmod(0o640)
        assert (site.root / "b" / "deep" / "only").read_text() == "only c, and more"
        shutil.rmtree(site.target / "deep")
        assert not (site.target / "deep").exists() and digest(site.root / "c") == before
        with (site.target / "new").open() as reader:
            unions.change(str(site.target), lambda union: branches.delete(union, f"{site.root}/a"), site.records)
            assert reader.read() == "x"
        assert site.records.find(str(site.target)).generation().driver == "overlay"
        site.umount()
    finally:
        subprocess.run(["umount", "--lazy", str(site.root / "a")], check=True)


def test_a_second_writable_branch_comes_while_files_are_open(site: Site) -> None:
    usable("mergerfs")
    site.mount("a=rw:b=ro")
    with (site.target / "log").open("w") as writer, (site.target / "file").open() as reader:
        changed = unions.change(
            str(site.target), lambda union: branches.add(union, f"prepend:{site.root}/c=rw"), site.records
        )
        assert changed.driver == "mergerfs" and changed.attached == "beneath"
        writer.write("of before")
        writer.flush()
        assert reader.read() == "of b" and (site.target / "file").read_text() == "of c"
        assert (site.target / "log").read_text() == "of before"
    (site.target / "deep" / "new").touch()  # where its directory is: the policy is tdp
    assert (site.root / "c" / "deep" / "new").exists()


def test_a_copied_union_is_a_picture(site: Site) -> None:
    result = site.mount("b=ro:c=ro", "copy")
    assert result.driver == "copy" and "do not show" in result.detail
    assert (site.target / "file").read_text() == "of b"
    (site.root / "b" / "later").touch()
    assert not (site.target / "later").exists()
    with pytest.raises(OSError, match="Read-only"):
        (site.target / "x").touch()
    again = unions.change(str(site.target), lambda union: union, site.records)
    assert again.driver == "copy" and (site.target / "later").exists()


@pytest.mark.parametrize("make", [detached.overlay_by_descriptors, detached.overlay_by_options])
def test_overlays_of_long_names_and_many_layers(
    site: Site, make: Callable[[detached.Stack], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    nested = make is detached.overlay_by_descriptors
    if nested and "descriptor" not in drivers.probe("overlay").detail:
        pytest.skip("this kernel's overlay takes no layers by descriptor")
    count = 700 if nested else 500
    folder = site.root / "c" / "with:colon,comma" / ("x" * 200)
    layers = [folder / f"{number:04}" for number in range(count)]
    for number, layer in enumerate(layers):
        layer.mkdir(parents=True)
        (layer / f"only-{number}").touch()
        (layer / "all").write_text(str(number))
    made = make(detached.Stack(tuple(map(str, layers)), None, "union-many"))
    try:
        assert len(os.listdir(f"/proc/self/fd/{made}")) == count + 1
        assert Path(f"/proc/self/fd/{made}/all").read_text() == "0"
    finally:
        os.close(made)
    with pytest.raises(UsageError, match="read-only branches"):
        make(detached.Stack(tuple(f"/{number}" for number in range(1000)), None, "union-many"))


def test_which_names_the_branch_and_what_changed_beneath(site: Site) -> None:
    site.mount("a=rw:b=ro:c=ro")

    def ask(name: str) -> unions.Location:
        return unions.which(str(site.target / name), site.records)

    shown = ask("file")
    assert shown.branch == f"{site.root}/b=ro" and shown.path == f"{site.root}/b/file"
    assert shown.also_in == (f"{site.root}/c=ro",) and not shown.differs and shown.driver.startswith("overlay")
    assert ask("deep/only").branch == f"{site.root}/c=ro"
    (site.target / "file").write_text("changed")
    assert ask("file").branch == f"{site.root}/a=rw" and len(ask("file").also_in) == 2
    (site.target / "file").unlink()
    assert ask("file").branch == "" and not ask("file").differs
    assert ask("file").deleted_in == (f"{site.root}/a=rw",) and len(ask("file").also_in) == 2
    assert not (site.target / "late").exists()  # which the kernel remembers
    (site.root / "b" / "late").touch()
    assert "does not show it yet" in ask("late").differs
    unions.change(str(site.target), lambda union: union, site.records)
    assert (site.target / "late").exists() and not ask("late").differs
    with pytest.raises(UsageError, match="in no union"):
        unions.which("/etc/passwd", site.records)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a=rw:nowhere=ro", "is no directory"),
        ("a=rw:m=ro", "would cover it"),
        ("a=rw:a=ro", "occurs twice"),
        ("b=ro:a=rw", "lies below the read-only"),
    ],
)
def test_what_makes_no_union_is_refused(site: Site, text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        site.mount(text)
    assert site.left() == []


def test_a_second_union_and_an_unknown_one_are_refused(site: Site) -> None:
    site.mount("a=rw:b=ro")
    with pytest.raises(UsageError, match="there is a union of ours"):
        site.mount("c=rw")
    with pytest.raises(UsageError, match="no union of ours"):
        unions.unmount(str(site.root), records=site.records)


def test_a_branch_that_takes_no_writes_is_not_taken_for_writable(site: Site) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(site.root / "a")], check=True)
    try:
        (site.root / "a" / "in").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(site.root / "a")], check=True)
        with pytest.raises(PrerequisiteError, match="Read-only file system"):
            site.mount("a/in=rw:b=ro")
        with pytest.raises(PrerequisiteError) as refused:
            site.mount("a=rw:b=ro")
        assert "is a mount point" in str(refused.value)
    finally:
        subprocess.run(["umount", str(site.root / "a")], check=True)


_ELSEWHERE = """
import json, os, sys
from pathlib import Path
from runtime.unionfs import branches, unions
from runtime.unionfs.records import Records

root, driver = Path(sys.argv[1]), sys.argv[2]
records, target = Records(root / "state"), str(root / "m")
seen = [unions.mount(f"br:{root}/a=rw:{root}/b=ro", target, driver, records).detail]
(root / "m" / "file").unlink()
unions.change(target, lambda union: branches.add(union, f"append:{root}/c"), records)
location = unions.which(str(root / "m" / "file"), records)
print(json.dumps([*seen, location.branch, location.deleted_in, sorted(os.listdir(target))]), flush=True)
sys.stdin.readline()
unions.unmount(target, records=records)
"""


def elsewhere(*enter: str) -> list[str]:
    """The command line of a union's life in another namespace."""
    return [*enter, "env", f"PYTHONPATH={ROOT}", sys.executable, "-c", _ELSEWHERE]


def test_a_user_namespace_has_unions_of_its_own(site: Site) -> None:
    words = elsewhere("unshare", "--user", "--map-root-user", "--mount")
    done = subprocess.run([*words, str(site.root), "overlay"], cwd=ROOT, input="\n", capture_output=True, text=True)
    if "unshare failed" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    detail, branch, deleted_in, names = json.loads(done.stdout)
    assert detail.endswith("userxattr") and names == ["deep"]
    assert branch == "" and deleted_in == [f"{site.root}/a=rw"]


@pytest.mark.parametrize("driver", KERNELS)
def test_where_the_host_is_shared_all_who_see_it_see_the_change(site: Site, driver: str) -> None:
    usable(driver)

    def mounts_in(pid: int) -> list[str]:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        return [line.partition(" - ")[2] for line in lines if f" {site.target} " in line]

    pipe = subprocess.PIPE
    with shared_host() as host:
        follower = ["unshare", "--mount", "--propagation", "slave", "cat"]
        words = [*elsewhere(*host.inside), str(site.root), driver]
        with (
            subprocess.Popen([*host.inside, *follower], stdin=pipe, stdout=pipe) as slave,
            subprocess.Popen(words, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as union,
        ):
            assert union.stdin and union.stdout and json.loads(union.stdout.readline())[3] == ["deep"]
            until(lambda: Path(f"/proc/{slave.pid}/comm").read_text() == "cat\n")
            seen = mounts_in(slave.pid), mounts_in(host.pid)
            assert [len(one) for one in seen] == [1, 1] and seen[0] == seen[1]
            union.stdin.write("\n")
            union.stdin.close()
            assert union.wait(20) == 0
            assert mounts_in(slave.pid) == mounts_in(host.pid) == []
            assert slave.stdin
            slave.stdin.close()

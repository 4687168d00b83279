"""The base image: what decides it, what it holds, and what is said when it cannot be made."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import PrerequisiteError
from runtime.home import store_root
from runtime.images import base
from runtime.images.model import Image
from runtime.images.releases import RELEASES, choose_release
from runtime.images.sources import parse_deb822
from runtime.images.store import Store
from tests.waiting import until


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The real base image from the store that everything shares: mmdebstrap runs once a machine."""
    yield base.ensure_base(Store(store_root() / "images"), print)


def test_every_input_is_in_the_key() -> None:
    inputs = base.Inputs("x86_64", "bookworm", (), (), ())
    changed = [
        replace(inputs, architecture="aarch64"),
        replace(inputs, codename="trixie"),
        replace(inputs, sources=tuple(parse_deb822("Types: deb\nURIs: u\nSuites: s\nComponents: main\n"))),
        replace(inputs, packages=("ca-certificates",)),
        replace(inputs, keyrings=(("/k", "00"),)),
    ]
    assert len({each.key() for each in (inputs, *changed)}) == len(changed) + 1
    assert replace(inputs).key() == inputs.key()


def test_only_proxies_are_taken_from_the_environment() -> None:
    assert base.proxy_environment({"http_proxy": "p", "SECRET": "s"}) == {"http_proxy": "p"}


def test_the_key_asks_no_program_and_is_the_same_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for by every build; and a store that is copied to another host is to be found there."""
    key = base.release_inputs().key()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3142")
    monkeypatch.setattr(base, "apt_options", lambda: ('Acquire::http::Proxy "http://127.0.0.1:3142";',))
    assert base.release_inputs().key() == key


@pytest.mark.root
def test_a_missing_mmdebstrap_is_named(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apt-config").symlink_to("/usr/bin/apt-config")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(PrerequisiteError, match="mmdebstrap is not installed") as caught:
        base.ensure_base(store, print)
    assert "apt-get install mmdebstrap" in caught.value.hint


@pytest.mark.root
def test_an_unreachable_source_is_named_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://127.0.0.1:9/debian bookworm main\n")
    inputs = base.release_inputs("bookworm", apt_folder=tmp_path)
    with pytest.raises(PrerequisiteError) as caught:
        base.ensure_system(store, inputs, "test/base", print)
    assert "from http://127.0.0.1:9/debian: exit status" in caught.value.message
    assert "apt-get update" in caught.value.hint
    assert store.leftovers() == ()
    assert store.cached(inputs.key()) is None
    assert list((store.root / "layers").iterdir()) == []


@pytest.mark.root
@pytest.mark.network
def test_the_image_is_a_clean_debian(image: Image) -> None:
    (layer,) = image.layers
    root = layer.path
    for name in ("etc/machine-id", "var/log/dpkg.log", "var/log/apt", "var/cache/ldconfig/aux-cache"):
        assert not (root / name).exists(), name
    for name in ("dev", "proc", "sys", "run", "tmp", "var/lib/apt/lists", "var/cache/apt"):
        assert list((root / name).iterdir()) == [], name
    assert (root / "etc/resolv.conf").read_text() == ""
    assert (root / "bin").is_symlink()
    assert (root / "etc/apt/apt.conf.d/99mmdebstrap").read_text() == 'Acquire::Languages "none";\n'
    assert (root / "usr/bin/apt-get").is_file()
    assert (root / "usr/sbin/policy-rc.d").stat().st_mode & 0o777 == 0o755
    assert root.stat().st_mode & 0o7777 == 0o755


@pytest.mark.root
@pytest.mark.network
def test_the_image_installs_from_the_hosts_sources_for_its_release(image: Image) -> None:
    root = image.layers[0].path
    codename = choose_release("", base.read_host()).codename
    files = sorted(path.name for path in (root / "etc/apt/sources.list.d").iterdir())
    assert files == ["base.sources"]
    assert not (root / "etc/apt/sources.list").exists()
    sources = parse_deb822((root / "etc/apt/sources.list.d/base.sources").read_text())
    assert sources == base.release_inputs().sources
    assert all(suite.startswith(codename) for source in sources for suite in source.suites)
    for source in sources:
        assert source.keyring is None or (root / source.keyring.lstrip("/")).is_file()


@pytest.mark.root
@pytest.mark.network
def test_the_distributions_other_release_comes_from_the_same_mirror() -> None:
    """The real image, from the store that everything shares: mmdebstrap runs once a machine."""
    host = base.read_host()
    own = choose_release("", host).codename
    others = [name for name, each in RELEASES.items() if each.distribution == host.distribution and name != own]
    if not others:
        pytest.skip(f"{host.distribution} has one release here")
    image = base.ensure_base(Store(store_root() / "images"), print, others[0])
    assert image.reference == f"testbed/base:{others[0]}"
    root = image.layers[0].path
    assert f"VERSION_CODENAME={others[0]}\n" in (root / "etc/os-release").read_text()
    sources = parse_deb822((root / "etc/apt/sources.list.d/base.sources").read_text())
    assert {uri for source in sources for uri in source.uris} == {
        uri for source in base.release_inputs().sources for uri in source.uris
    }
    assert base.ensure_base(Store(store_root() / "images"), print).reference == f"testbed/base:{own}"


@pytest.mark.root
@pytest.mark.network
def test_a_second_call_finds_it(image: Image) -> None:
    said: list[str] = []
    assert base.ensure_base(Store(store_root() / "images"), said.append) == image
    assert said == []


def processes_below(folder: Path) -> list[int]:
    """Processes whose command line names ``folder``, or that see a mount of it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder) in (path / "cmdline").read_bytes().decode() + (path / "mountinfo").read_text():
                found.append(int(path.name))
    return found


def temporary_files() -> set[str]:
    """What mmdebstrap has outside the store."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("mmdebstrap*")}


@pytest.mark.root
@pytest.mark.network
def test_nothing_of_mmdebstrap_outlives_a_killed_build(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from runtime.images import base; from runtime.images.store import Store\n"
        "base.ensure_base(Store(Path(sys.argv[1])), print)\n"
    )
    folder = tmp_path / "store"
    temporary = temporary_files()
    builder = subprocess.Popen([sys.executable, "-c", script, str(folder)], cwd=Path(__file__).parents[3])
    # The builder, unshare, mmdebstrap, and what it has started by then.
    until(lambda: len(processes_below(folder)) >= 5, 10, lambda: "mmdebstrap did not start")
    builder.kill()
    builder.wait()
    until(lambda: not processes_below(folder), 10)
    assert processes_below(folder) == []
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    assert temporary_files() == temporary

"""A host of another release: what it is given of this one, and that ./invoke finds all its packages there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.release_host import configuration, find_index_paths, own_capabilities
from runtime.images.base import read_host
from runtime.images.releases import RELEASES
from runtime.lease import STATE_ROOT

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "benchmarks" / "release_host.py"


def test_an_index_on_this_hosts_disk_is_found_with_its_files() -> None:
    configured = (
        ":env:.find-links='/opt/wheels'\n"
        "global.cert='/etc/ssl/certs/ca-certificates.crt'\n"
        "global.extra-index-url='file:///opt/index/simple https://index.example/simple'\n"
        "global.timeout='180'\n"
    )
    assert find_index_paths(configured) == ("/opt/wheels", "/etc/ssl/certs/ca-certificates.crt", "/opt/index")
    assert find_index_paths("") == ()


def test_capabilities_are_those_that_this_process_has() -> None:
    assert own_capabilities("Name:\tx\nCapEff:\t0000000000000005\n") == ("CAP_CHOWN", "CAP_DAC_READ_SEARCH")


def test_the_container_shares_all_but_mounts_and_processes(tmp_path: Path) -> None:
    config = configuration(tmp_path, ["./invoke"], "testbed/x/host", ("CAP_CHOWN",), ("/etc/pip.conf",), {"A": "b"})
    assert {each["type"] for each in config["linux"]["namespaces"]} == {"mount", "pid"}
    assert config["process"]["args"][-1] == "./invoke" and config["process"]["env"] == ["A=b"]
    mounts = {each["destination"]: each["options"] for each in config["mounts"] if each["type"] == "bind"}
    assert set(mounts) == {"/sys", "/dev", str(STATE_ROOT), "/etc/pip.conf"}
    assert "ro" in mounts["/etc/pip.conf"] and "ro" not in mounts["/sys"]


def packages() -> list[str]:
    """Those that ./invoke installs, for tests too, with what it adds for the Python that it finds."""
    text = (REPOSITORY / "invoke").read_text()
    lists = re.findall(r'packages="(?:\$packages )?([a-z][^"$]*)"', text)
    return [*" ".join(lists).split(), "python3-venv", "python3-dev"]


@pytest.mark.root
@pytest.mark.network
def test_the_distributions_other_release_has_every_package_of_invoke() -> None:
    """In a root of that release, a container of ours. All of ./invoke there takes minutes the first time, so it is a
    command: benchmarks/release_host.py trixie ./invoke test."""
    host = read_host()
    others = [each.codename for each in RELEASES.values() if each.distribution == host.distribution]
    others = [codename for codename in others if codename != host.codename]
    if not others:
        pytest.skip(f"{host.distribution} has no other release here")
    script = (
        "apt-get -qq update && apt-get -qq install --simulate --no-install-recommends "
        f"{' '.join(packages())} >/dev/null && sh -n ./invoke && . /etc/os-release && echo $VERSION_CODENAME; exit $?"
    )
    before = set(Path("/proc/self/mountinfo").read_text().splitlines())
    command = [sys.executable, str(SCRIPT), "--beside", others[0], "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, f"{others[0]}\n"), done.stderr
    assert set(Path("/proc/self/mountinfo").read_text().splitlines()) == before

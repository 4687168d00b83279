"""Facts: the parsing on text, the reading on this host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from testbed.host import facts as host
from testbed.host.facts import (
    parse_choice,
    parse_cpu_facts,
    parse_key_values,
    parse_kib,
    parse_memory_facts,
    read_facts,
    read_first_line,
    read_versions,
)

ROOT = Path(__file__).resolve().parents[3]

CPUINFO = """\
processor\t: 0
model name\t: AMD EPYC 7B13
microcode\t: 0xffffffff
flags\t\t: fpu sse2 svm hypervisor

processor\t: 1
model name\t: another
"""
MEMINFO = "MemTotal: 1000 kB\nMemAvailable: 400 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\n"


def test_the_processor_is_described_by_its_first_core() -> None:
    cpu = parse_cpu_facts(CPUINFO)
    assert cpu["model"] == "AMD EPYC 7B13"
    assert cpu["virtualisation_extension"] == "svm"
    assert cpu["under_hypervisor"] is True
    assert cpu["processors"] == len(os.sched_getaffinity(0))


def test_memory_is_in_bytes_and_swap_in_use_is_a_difference() -> None:
    memory = parse_memory_facts(MEMINFO)
    assert (memory["total_bytes"], memory["available_bytes"]) == (1_024_000, 409_600)
    assert memory["swap_used_bytes"] == 30 * 1024
    assert parse_kib(MEMINFO, "HugePages") == 0


def test_kernel_texts_are_parsed() -> None:
    assert parse_choice("always [madvise] never") == "madvise"
    assert parse_choice("tsc") == "tsc"
    assert parse_choice(None) is None
    release = "NAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\n# a comment\nNAME=second\n"
    assert parse_key_values(release, "=") == {"NAME": "Debian GNU/Linux", "VERSION_ID": "12"}


def test_the_facts_of_this_host_are_json_and_say_something() -> None:
    facts = json.loads(json.dumps(read_facts()))
    assert facts["kernel"] == os.uname().release
    assert facts["memory"]["total_bytes"] > facts["memory"]["available_bytes"] > 0
    assert facts["cgroups"]["mode"] in ("v1", "v2", "hybrid", "none")
    assert facts["cpu"]["model"]
    assert facts["speed"]["round_ns"] > 0 and facts["speed"]["factor"] >= 1


def test_versions_name_what_is_installed_and_what_is_not() -> None:
    versions = read_versions()
    assert versions["python"] and versions["hdrhistogram"]
    assert read_first_line("a-command-that-does-not-exist") is None
    assert read_first_line("sh", "-c", "echo complaint >&2; echo 1.5; echo more; exit 1") == "1.5"


def test_the_commit_that_measures_is_known_and_whether_it_was_changed(tmp_path: Path, monkeypatch: Any) -> None:
    source = host.read_source()
    assert re.fullmatch("[0-9a-f]{40}", str(source["commit"])) and isinstance(source["dirty"], bool)

    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True
        )

    monkeypatch.setattr(host, "_ROOT", tmp_path)
    assert host.read_source() == {"commit": None, "dirty": None}
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    assert host.read_source()["dirty"] is False
    (tmp_path / "file").write_text("new")
    assert host.read_source()["dirty"] is True


def test_what_is_below_the_host_is_known_where_its_processor_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(host, "PROC", tmp_path)
    for text, kind in (
        ("flags : vmx sse\n", ""),
        ("model name : QEMU TCG CPU version 2.5+\nflags : svm hypervisor\n", "qemu"),
    ):
        (tmp_path / "cpuinfo").write_text(text)
        host.detect_hypervisor.cache_clear()
        assert host.detect_hypervisor() == kind
    (tmp_path / "cpuinfo").write_text("model name : AMD EPYC\nflags : svm hypervisor\n")
    for said, kind in (("vmware", "vmware"), ("none", "unknown"), (None, "unknown")):
        monkeypatch.setattr(host, "read_first_line", lambda *command, said=said: said)
        host.detect_hypervisor.cache_clear()
        assert host.detect_hypervisor() == kind
    host.detect_hypervisor.cache_clear()


def test_who_asks_for_the_version_of_libvirt_first_keeps_its_warnings_off_the_terminal() -> None:
    """Whoever loads the library decides, and facts are read before any machine is started."""
    ask = "from testbed.host.facts import read_libvirt_version as ask; print(ask()); "
    script = ask + "import os; print(os.environ['LIBVIRT_DEBUG'])"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIBVIRT")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.stdout.split()[1:] == ["4"], done.stderr

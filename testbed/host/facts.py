"""Reads what the host is, for the manifest of a run.

Reading is apart from parsing: the functions that take text are pure. What a host does not tell is None in
the facts, never a guess.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from msgspec.structs import asdict

from runtime import __version__
from runtime.cgroups import hierarchies
from runtime.errors import PrerequisiteError
from runtime.kernel_files import parse_meminfo
from runtime.speed import measured, scale
from testbed.host.libvirt_library import load_libvirt

SYS = Path("/sys")
PROC = Path("/proc")
CPU = SYS / "devices/system/cpu"

# What decides figures or figures' meaning; a manifest names their versions.
PACKAGES = ("hdrhistogram", "libvirt-python", "matplotlib", "numpy", "pandas", "scipy")

EMULATOR = "qemu"
# In which a command tells its version.
_COMMAND_S = 10.0
_ROOT = Path(__file__).resolve().parents[2]


def read(path: Path) -> str | None:
    """Return a file's text without the white space around it; None when it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


def read_first_line(*command: str) -> str | None:
    """Return the first line of a command's standard output; None when it is absent or prints nothing there.

    The exit status is left alone: mkfs.erofs 1.5 prints its version and fails, whatever the option.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=scale(_COMMAND_S), check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.partition("\n")[0].strip() or None


def read_lines(*command: str) -> list[str]:
    """Return the lines of a command's standard output; none when it is absent, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=scale(_COMMAND_S), check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def parse_key_values(text: str, separator: str) -> dict[str, str]:
    """Parse ``key<separator>value`` lines, without white space and quotes around values; the first of a key counts."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, has_separator, value = line.partition(separator)
        if has_separator:
            values.setdefault(key.strip(), value.strip().strip("\"'"))
    return values


def parse_choice(text: str | None) -> str | None:
    """Return the chosen word of a sysfs list, ``always [madvise] never``; the text itself when it is one word."""
    if text is None or "[" not in text:
        return text
    return text.partition("[")[2].partition("]")[0]


def parse_kib(meminfo: str, key: str) -> int:
    """Return a value of /proc/meminfo in bytes; 0 when the key is absent."""
    return parse_meminfo(meminfo).get(key, 0)


def parse_cpu_facts(cpuinfo: str) -> dict[str, object]:
    """Return the processors' model, number, microcode, and whether a hypervisor is below, from /proc/cpuinfo (x86)."""
    first = parse_key_values(cpuinfo, ":")
    flags = first.get("flags", "").split()
    return {
        "model": first.get("model name"),
        "processors": len(os.sched_getaffinity(0)),
        "microcode": first.get("microcode"),
        "under_hypervisor": "hypervisor" in flags,
        "virtualisation_extension": next((flag for flag in ("vmx", "svm") if flag in flags), None),
        "smt": read(CPU / "smt/control"),
        "governor": read(CPU / "cpu0/cpufreq/scaling_governor"),
        "frequency_driver": read(CPU / "cpu0/cpufreq/scaling_driver"),
        "clocksource": read(SYS / "devices/system/clocksource/clocksource0/current_clocksource"),
        "mitigations": read_mitigations(),
    }


def is_domain_0(capabilities: Path = PROC / "xen/capabilities") -> bool:
    """Return whether Xen has booted this system, and it is the domain that may start others."""
    return "control_d" in (read(capabilities) or "")


@functools.cache
def detect_hypervisor() -> str:
    """Return what this host itself runs on, in systemd-detect-virt's words: ``kvm``, ``vmware``, or ``qemu``, which is
    QEMU that emulates the processor. ``unknown`` when that program is not there, empty on a machine of its own."""
    first = parse_key_values(read(PROC / "cpuinfo") or "", ":")
    if "hypervisor" not in first.get("flags", "").split():
        return ""
    if "TCG" in first.get("model name", ""):
        return EMULATOR
    kind = read_first_line("systemd-detect-virt", "--vm")
    return kind if kind and kind != "none" else "unknown"


def read_mitigations() -> dict[str, str]:
    """Return the kernel's word on each processor vulnerability that affects this host."""
    states = {path.name: read(path) or "" for path in sorted((CPU / "vulnerabilities").glob("*"))}
    return {name: state for name, state in states.items() if state != "Not affected"}


def parse_memory_facts(meminfo: str) -> dict[str, object]:
    """Return memory in bytes, and what the kernel does with pages behind the workload's back."""
    return {
        "total_bytes": parse_kib(meminfo, "MemTotal"),
        "available_bytes": parse_kib(meminfo, "MemAvailable"),
        "swap_total_bytes": parse_kib(meminfo, "SwapTotal"),
        "swap_used_bytes": parse_kib(meminfo, "SwapTotal") - parse_kib(meminfo, "SwapFree"),
        "transparent_hugepages": parse_choice(read(SYS / "kernel/mm/transparent_hugepage/enabled")),
        "ksm": read(SYS / "kernel/mm/ksm/run"),
        "overcommit": read(PROC / "sys/vm/overcommit_memory"),
    }


def read_facts() -> dict[str, object]:
    """Return the host as a manifest records it: processors, memory, kernel, cgroups, distribution. JSON throughout."""
    release = parse_key_values(read(Path("/etc/os-release")) or "", "=")
    mounted = hierarchies()
    vendor, product = (read(SYS / "class/dmi/id" / name) for name in ("sys_vendor", "product_name"))
    return {
        "cpu": parse_cpu_facts(read(PROC / "cpuinfo") or ""),
        "memory": parse_memory_facts(read(PROC / "meminfo") or ""),
        "kernel": platform.release(),
        "kernel_build": platform.version(),
        "architecture": platform.machine(),
        "machine": " ".join(filter(None, (vendor, product))) or None,
        "hypervisor": detect_hypervisor() or None,
        "distribution": release.get("PRETTY_NAME"),
        "cgroups": {
            "mode": mounted.mode,
            "v1_controllers": sorted(mounted.v1),
            "v2_controllers": sorted(mounted.v2),
        },
        "load_average": list(os.getloadavg()),
        # Limits of time are multiplied by the factor; it is that of runtime.speed.
        "speed": asdict(measured()),
    }


def read_source() -> dict[str, object]:
    """Return the commit that measures, and whether its files were changed since; None for what is not under git."""
    git = ("git", "-c", f"safe.directory={_ROOT}", "-C", str(_ROOT))
    commit = read_first_line(*git, "rev-parse", "HEAD")
    return {"commit": commit, "dirty": read_first_line(*git, "status", "--porcelain") is not None if commit else None}


def read_versions() -> dict[str, str | None]:
    """Return the versions of what measures and of what is measured; None for what is not installed."""
    return {
        "testbed": __version__,
        "python": platform.python_version(),
        "qemu": read_first_line("qemu-system-x86_64", "--version"),
        "libvirt": read_libvirt_version(),
        "mmdebstrap": read_first_line("mmdebstrap", "--version"),
        "mkfs.erofs": read_first_line("mkfs.erofs", "-V"),
        **{name: _package(name) for name in PACKAGES},
    }


def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def format_version(number: int) -> str:
    """Format a version number of libvirt's: major * 1,000,000 + minor * 1,000 + release."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def read_libvirt_version() -> str | None:
    """Return the version of the libvirt library, ``9.0.0``; None when it cannot be loaded."""
    try:
        return format_version(int(load_libvirt().getVersion()))
    except PrerequisiteError:
        return None

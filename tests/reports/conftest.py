"""Run folders for tests of the report: written as a bench writes them, with plausible figures."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import reports
from testbed.results import Metric, RunFolder, Status, Trial

MIB = 2**20
WriteRun = Callable[..., Path]

PLATFORMS: dict[str, dict[str, Any]] = {
    "container": {"label": "container", "emulated": False, "kernel": "6.1.0", "cgroups": "v1"},
    "vm": {"label": "vm (TCG, emulated)", "emulated": True, "accelerator": "tcg", "accelerator_reason": "no /dev/kvm"},
    "kvm": {"label": "vm (KVM)", "emulated": False, "accelerator": "kvm"},
    "container-pooled": {"label": "container (pooled)", "emulated": False, "temperature": "pooled"},
    # As a run recorded it that knew nothing of temperatures.
    "vm-restored": {"label": "vm-restored (KVM)", "emulated": False, "accelerator": "kvm"},
}
# Seconds to ready, seconds of CPU per request, bytes per copy.
SCALE = {
    "container": (0.62, 0.00045, 44 * MIB),
    "vm": (13.1, 0.0094, 395 * MIB),
    "kvm": (2.9, 0.0007, 290 * MIB),
    "container-pooled": (0.55, 0.00045, 44 * MIB),
    "vm-restored": (0.3, 0.0007, 290 * MIB),
}


def _manifest(run_id: str, platforms: Sequence[str]) -> dict[str, Any]:
    return {
        "run": run_id,
        "scenario": "clickme",
        "quick": False,
        "seed": 7,
        "started": "2026-03-01T12:00:00+00:00",
        "command": "./invoke bench --scenario clickme --seed 7",
        "measures": ["start", "density", "utilisation"],
        "settings": {
            "trials": 10,
            "ready": {"service": "web", "port": 8080, "path": "/health", "status": 200},
            "load": {"method": "POST", "path": "/click", "rates_per_s": [10, 50], "duration_s": 20},
            "slo": {"p99_ms": 250.0, "error_fraction": 0.01},
            "density": {"rate_per_s": 5.0, "cap": 12},
        },
        "images": {
            "web": {"reference": "clickme/web", "id": "sha256:" + "1a" * 32, "layers": ["sha256:" + "2b" * 32] * 3},
            "redis": {"reference": "clickme/redis", "id": "sha256:" + "3c" * 32, "layers": ["sha256:" + "2b" * 32]},
        },
        "versions": {"python": "3.11.2", "qemu": "7.2.0", "libvirt": "9.0.0", "kernel": "6.1.0"},
        "host": {"cpu": {"model": "Some CPU", "count": 2}, "memory_bytes": 24 << 30, "cgroups": "v1"},
        "noise": [],
        "platforms": {name: PLATFORMS[name] for name in platforms},
    }


def start_trial(number: int, platform: str, chance: random.Random) -> Trial:
    """A start whose phases are fixed parts of the time to ready."""
    ready = SCALE[platform][0] * chance.gauss(1, 0.04)
    parts = {"request": 0.0, "created": 0.02, "first_process": 0.3, "port_open": 0.93, "ready": 1.0}
    if platform != "container":
        parts |= {"kernel_entry": 0.05, "first_userspace": 0.2}
    figures = {name: parts[name] * ready for name in ("created", "first_process", "port_open", "ready")}
    for service, shift in (("redis", 0.0), ("web", 0.01 * ready)):
        for name in sorted(set(parts) - {"port_open", "ready"}, key=lambda name: parts[name]):
            figures[f"{service}.{name}"] = parts[name] * ready * 0.99 + shift
    metrics = tuple(Metric(name, value, "s") for name, value in figures.items())
    return Trial(number, number, platform, "start", "ok", metrics=metrics)


def density_trial(folder: RunFolder, number: int, platform: str, most: int, chance: random.Random) -> Trial:
    """A ramp to ``most`` copies, with its samples."""
    each = SCALE[platform][2]
    rows = [(0, 0.0, 0.0, 20e9, 0.0, 0.0, 0.0, 0.0)]
    for count in range(1, most + 1):
        taken = rows[-1][1] + each * (chance.gauss(1, 0.01) + (count == 1))
        p99_ms = SCALE[platform][1] * 8e3 * count * chance.gauss(1, 0.1)
        busy = min(1.0, 0.06 * count)
        rows.append((count, taken, taken * 0.9, 20e9 - taken * 1.1, p99_ms, 0.0, busy, 0.01))
    header = (
        "applications",
        "cgroup_bytes",
        "pss_bytes",
        "available_bytes",
        "p99_ms",
        "error_fraction",
        "host_utilisation",
        "host_others",
    )
    samples = folder.write_samples(f"t{number:03}", header, rows)
    metrics = [Metric("applications", most, "1"), Metric("host_others", 0.01, "1")]
    reason = f"cap: {most} applications" if platform == "container" else "slo: p99 312 ms, more than 250 ms"
    return Trial(number, number, platform, "density", "ok", reason, {"rate_per_s": 5.0}, tuple(metrics), samples)


def load_trial(number: int, platform: str, rate_per_s: float, chance: random.Random) -> Trial:
    """One rate; costs rise a little with it."""
    cpu_s = SCALE[platform][1] * chance.gauss(1, 0.05) + 0.01 / rate_per_s
    p50_s = cpu_s * 3 * (1 + rate_per_s / 300)
    metrics = (
        Metric("rate", rate_per_s, "1/s"),
        Metric("achieved_rate", rate_per_s * 0.998, "1/s"),
        Metric("requests_ok", rate_per_s * 20, "1"),
        Metric("requests_failed", 0, "1"),
        Metric("memory_cgroup", SCALE[platform][2], "bytes"),
        Metric("memory_pss", SCALE[platform][2] * 0.9, "bytes"),
        Metric("host_utilisation", min(1.0, rate_per_s * cpu_s / 2 + 0.02), "1"),
        Metric("host_application", min(0.98, rate_per_s * cpu_s / 2), "1"),
        Metric("host_generator", 0.01, "1"),
        Metric("host_others", 0.01, "1"),
        Metric("saturated", 0, "1"),
        Metric("generator_lag_p99", 0.0004, "s"),
        Metric("cpu_per_request", cpu_s, "s"),
        Metric("memory_per_request", SCALE[platform][2] / rate_per_s, "bytes s"),
        Metric("latency_p50", p50_s, "s"),
        Metric("latency_p99", p50_s * 4.2, "s"),
    )
    return Trial(number, number, platform, "utilisation", "ok", "", {"rate_per_s": rate_per_s}, metrics)


def _write(
    base: Path,
    platforms: Sequence[str] = ("container", "vm"),
    starts: int = 10,
    ramps: int = 1,
    blocks: int = 3,
    extra: Sequence[Trial] = (),
    status: Status = "finished",
    name: str = "20260301T120000Z-clickme-ab12",
    **changes: Any,
) -> Path:
    """A run folder with so many ok trials on each platform, then ``extra``; ``changes`` are of its manifest."""
    chance = random.Random(5)
    folder = RunFolder.create(base, name, _manifest(name, platforms))
    number = 0
    for platform in platforms:
        for _ in range(starts):
            folder.append(start_trial(number := number + 1, platform, chance))
        for _ in range(ramps):
            most = 12 if platform == "container" else 5
            folder.append(density_trial(folder, number := number + 1, platform, most, chance))
        for _ in range(blocks):
            for rate_per_s in (10.0, 25.0, 50.0, 100.0, 200.0)[: 4 if platform == "vm" else 5]:
                folder.append(load_trial(number := number + 1, platform, rate_per_s, chance))
    for trial in extra:
        folder.append(trial)
    folder.finish(status)
    manifest = {**folder.manifest, "finished": "2026-03-01T12:21:00+00:00", **changes}
    (folder.path / "manifest.json").write_text(json.dumps(manifest))
    return folder.path


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Write a run folder below the test's own directory."""
    return functools.partial(_write, tmp_path)


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of containers and emulated virtual machines, with a void trial on a host that was not quiet.

    It is rendered once, and only to be read.
    """
    late = Trial(900, 90, "container", "utilisation", "void", "the generator was late", {"rate_per_s": 200.0})
    path = _write(tmp_path_factory.mktemp("full"), extra=[late], noise=["load average 3.1"])
    reports.render(path)
    return path

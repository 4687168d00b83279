"""Neighbours that turn bad beside an application, both in real containers; and what a trial makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, UsageError
from runtime.images.model import Image, ImageConfig, Layer
from runtime.spec import Resources
from testbed.lab import Lab
from testbed.measures import neighbours
from testbed.measures.context import RunContext
from testbed.measures.neighbours import judge, make_victim_metrics, require_neighbours
from testbed.measures.schedule import PlannedTrial
from testbed.measures.trials import run_trials
from testbed.measures.utilisation import Window
from testbed.neighbours import neighbour
from testbed.neighbours.build import NEIGHBOUR
from testbed.neighbours.cases import TENANT, Case, Ceiling
from testbed.neighbours.image import PROGRAM, REFERENCE
from testbed.platforms.container import ContainerPlatform
from testbed.results import RunFolder, Trial
from testbed.sample import HostReading
from testbed.scenario.model import Density, Load, Ready, Scenario, Service, Settings, Slo
from testbed.scenario.neighbours import Neighbours
from tests.testbed.measures.test_utilisation import load_result

MIB = 1 << 20
KINDS = ("spin", "fork", "memory", "disk", "network", "cache", "rename", "mmap")
SETTINGS = Settings(
    trials=1,
    ready=Ready("web", 80, "/index.html", 200, "served", timeout_s=10.0, timeout_vm_s=10.0),
    load=Load("web", 80, "GET", "/index.html", (40.0,), duration_s=0.6, warmup_s=0.2, connections=4),
    slo=Slo(p99_ms=500.0, error_fraction=0.01),
    density=Density(rate_per_s=20.0, settle_s=0.1, window_s=0.4, cap=3),
    neighbours=Neighbours(KINDS, 40.0, 0.6),
)
Measure = Callable[..., Mapping[str, Trial]]


@pytest.fixture
def measure(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> Iterator[Measure]:
    """Measures cases with an application of one server; nothing of it is there at the end, and no ceiling."""
    (busybox_layer / "srv").mkdir()
    (busybox_layer / "srv" / "index.html").write_text("served")
    program = tmp_path / "neighbour" / PROGRAM.lstrip("/")
    program.parent.mkdir()
    shutil.copy2(NEIGHBOUR.build(), program)
    serve = ImageConfig(cmd=("busybox", "httpd", "-f", "-p", "80", "-h", "/srv"), env=("PATH=/bin",))
    images = {
        "web": Image("small/web", "sha256:0", serve, (Layer("sha256:1", busybox_layer),)),
        REFERENCE: Image(REFERENCE, "sha256:2", ImageConfig(entrypoint=(PROGRAM,)), (Layer("s:3", program.parent),)),
    }
    service = Service("web", Resources(64 * MIB, 1.0, 24), ports=(80,))
    scenario = Scenario("small", tmp_path, (service,), SETTINGS, SETTINGS)
    folder = RunFolder.create(tmp_path / "results", "run", {"run": "run", "scenario": "small"})
    said: list[str] = []
    with Lab() as lab:
        platform = ContainerPlatform(cgroup_parent.rpartition("/")[2], lab)
        context = RunContext(scenario, SETTINGS, images, {"container": platform}, lab, folder, 1, said.append)

        def run(*names: str) -> Mapping[str, Trial]:
            run_trials(context, PlannedTrial(1, 1, "container", "neighbours", names))
            return {str(trial.parameters["case"]): trial for trial in folder.trials()}

        yield run
        platform.close()
    limit = Cgroup(cgroup_parent).file("pids", "pids.max", "pids.max").read_text().strip()
    assert limit == "max", "the ceiling is a trial's"


def figures(trial: Trial) -> dict[str, float]:
    # A busy host may hold the generator up, or the application.
    assert trial.outcome in ("ok", "void") or trial.reason.startswith("alone it does not keep up"), trial.reason
    return {metric.metric: metric.value for metric in trial.metrics}


@pytest.mark.root
def test_a_fork_bomb_is_stopped_by_its_own_limit_or_by_the_runs(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "compute_ceiling", lambda *asked: Ceiling(512 * MIB, 200))
    trials = measure("alone", "fork, limits on", "fork, limits off")
    alone, limited, unlimited = (figures(trials[name]) for name in trials)
    assert alone["survived"] == limited["survived"] == unlimited["survived"] == 1
    assert "neighbour_work" not in alone and "neighbour_refused" not in alone
    assert TENANT.pids is not None
    assert 0 < limited["neighbour_work"] < TENANT.pids and limited["neighbour_refused"] > 0
    assert limited["neighbour_alive"] == 1
    assert unlimited["neighbour_refused"] > 0 and TENANT.pids < unlimited["neighbour_work"] < 200, "the run's tasks"
    assert 0 <= limited["host_neighbour"] <= 1 and limited["neighbour_cpu"] > 0


@pytest.mark.root
def test_a_memory_hog_is_killed_in_its_own_cgroup_and_the_application_goes_on(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(TENANT, memory_bytes=24 * MIB)  # a busy host takes its time to fill more
    monkeypatch.setattr(neighbours, "choose_resources", lambda *asked: small)
    (trial,) = measure("memory, limits on").values()
    found = figures(trial)
    assert found["neighbour_killed"] >= 1 and found["survived"] == 1 and found["requests_failed"] == 0
    assert 0 < found["neighbour_memory"] <= 24 * MIB


@pytest.mark.root
@pytest.mark.parametrize("kind", ["disk", "rename", "network"])
def test_what_needs_a_root_or_a_network_of_its_own_has_them(kind: str, measure: Measure) -> None:
    (trial,) = measure(f"{kind}, limits on").values()
    found = figures(trial)
    assert found["neighbour_work"] > 0 and found["survived"] == 1
    assert trial.samples and trial.histogram


@pytest.mark.root
def test_a_neighbour_that_does_not_start_fails_alone(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour, "make_command", lambda *words: ("nothing",))
    trials = measure("spin, limits on", "alone")
    failed = trials["spin, limits on"]
    assert failed.outcome == "failed" and "does not answer: it has ended: exit status 1" in failed.reason
    assert figures(trials["alone"])["survived"] == 1


@pytest.mark.root
def test_a_host_without_headroom_ends_the_run(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "RESERVE_BYTES", 1 << 50)
    with pytest.raises(PrerequisiteError, match="in reserve"):
        measure("alone")


def window(**changes: object) -> Window:
    before, after = HostReading(0, 0, 0, 0, 0), HostReading(10**9, 50, 0, 200, 0)
    return Window(load_result(failed=0, failures={}, **changes), {}, before, after)


def test_what_a_neighbour_did_is_a_result_and_no_failure() -> None:
    bad, alone = Case("fork", False), Case()
    assert judge(bad, window(ok=0), 0.01, "") == ("ok", "")
    assert judge(bad, window(), 0.01, "it has ended") == ("ok", "")
    assert judge(bad, window(late=True, reason="late"), 0.01, "") == ("void", "late")
    assert judge(alone, window(), 0.01, "") == ("ok", "")
    for changes in ({"ok": 0}, {"saturated": True}):
        outcome, reason = judge(alone, window(**changes), 0.01, "")
        assert outcome == "failed" and "lower x-testbed.neighbours.rate_per_s" in reason
    failing = replace(window(), load=load_result(failed=2))
    assert judge(alone, failing, 0.01, "")[1].startswith("alone it does not keep up with its load: 2 of 102 requests")
    assert judge(alone, window(), 0.01, "gone") == ("failed", "alone: gone")


def test_a_broken_level_is_one_that_is_broken_for_sure() -> None:
    def broken(limit_ms: float) -> float:
        return {one.metric: one.value for one in make_victim_metrics(window(), limit_ms, survived=True)}["slo_broken"]

    assert broken(5.0) == 1 and broken(50.0) == 0


def test_warm_and_foreign_platforms_are_refused_in_a_line() -> None:
    require_neighbours(("container", "container@again", "vm", "vm-containers"))
    with pytest.raises(UsageError, match="neighbours on vm-restored: it starts warm"):
        require_neighbours(("container", "vm-restored"))
    with pytest.raises(UsageError, match="neighbours on docker: its instances may be elsewhere"):
        require_neighbours(("docker",))

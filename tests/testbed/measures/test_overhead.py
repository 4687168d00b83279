"""What a platform's own processes take, over its instances: the sum, what is shared, and nothing without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.lab import Lab
from testbed.measures import overhead
from testbed.measures.overhead import Beside
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.protocol import Instance, Overhead
from testbed.results import Metric


class Supervised(ContainerPlatform):
    """A platform whose instances have a supervisor each; that of ``gone`` has ended."""

    daemon: Overhead | None = None

    def overhead(self, instance: Instance) -> Overhead:
        if instance.name == "gone":
            raise FileNotFoundError(instance.name)
        return Overhead(1000, 2_000_000)

    def shared_overhead(self) -> Overhead | None:
        return self.daemon


@pytest.fixture
def instances() -> list[Instance]:
    return [Instance(name, 0, {}, Path("/dev/null")) for name in ("a", "gone", "b")]


def test_a_platform_without_such_processes_has_no_figures(instances: list[Instance]) -> None:
    platform = ContainerPlatform("run", Lab())
    assert overhead.read(platform, instances) is None
    assert overhead.make_metrics(None, None) == ()
    platform.close()


def test_what_instances_have_is_summed(instances: list[Instance]) -> None:
    platform = Supervised("run", Lab())
    before = overhead.read(platform, ())
    after = overhead.read(platform, instances)
    assert after == Beside(Overhead(2000, 4_000_000))
    assert overhead.make_metrics(before, after) == (
        Metric("overhead_memory", 2000, "bytes"),
        Metric("overhead_cpu", 0.004, "s"),
    )
    platform.close()


def test_what_is_shared_stands_apart(instances: list[Instance]) -> None:
    platform = Supervised("run", Lab())
    platform.daemon = Overhead(5000, 7_000_000_000)
    before = overhead.read(platform, instances)
    platform.daemon = Overhead(6000, 9_500_000_000)
    metrics = overhead.make_metrics(before, overhead.read(platform, instances))
    assert [(one.metric, one.value) for one in metrics] == [
        ("overhead_memory", 2000),
        ("overhead_cpu", 0.0),
        ("shared_overhead_memory", 6000),
        ("shared_overhead_cpu", 2.5),
    ]
    platform.close()

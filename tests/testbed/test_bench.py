"""What a run does before it measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.bench import bench
from testbed.request import Options

SCENARIOS = Path(__file__).parents[2] / "scenarios"


@pytest.mark.parametrize(
    ("asked", "added"),
    [(("container", "vm-restored"), "vm"), (("container-pooled", "vm-restored"), "container, vm"), (("vm",), "")],
)
def test_the_cold_counterparts_of_warm_platforms_are_measured_too(
    asked: tuple[str, ...], added: str, tmp_path: Path
) -> None:
    """It says so before anything is built; the measure that there is not ends the run then."""
    lines: list[str] = []
    options = Options("clickme", asked, "auto", ("nothing",), None, True, 1, tmp_path, SCENARIOS, ())
    with pytest.raises(UsageError, match="unknown measure nothing"):
        bench(options, lines.append)
    said = [f"measured too, as warm starts are compared beside cold ones only: {added}"] if added else []
    assert lines == said

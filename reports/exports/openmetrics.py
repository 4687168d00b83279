"""The figures of a run as OpenMetrics text, version 1.0.0 (https://openmetrics.io): gauges, for a gateway to take."""

from __future__ import annotations

import re
from datetime import datetime

from runtime.output import printable
from testbed.runs.figures import Figure
from testbed.runs.sides import Measured
from testbed.statistics import estimate_median_of_series

_UNITS = {"s": "seconds", "bytes": "bytes", "1/s": "per_second", "1": ""}
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_]")


def export_run(measured: Measured) -> bytes:
    """Return a gauge a metric, with the median and both ends of its interval as samples, at the time of the run.

    Labels are the scenario, platform, offered rate, run and clock: of a run in the reference machine, whose seconds are
    10⁹ instructions, ``clock`` is ``instructions``.
    """
    families: dict[str, list[str]] = {}
    units: dict[str, str] = {}
    at = _read_time(measured)
    for figure, values in measured.figures.items():
        unit = _UNITS.get(figure.direction.unit, figure.direction.unit.replace("/s", "_per_second"))
        name = _NOT_IN_NAME.sub("_", "_".join(filter(None, ("testbed", figure.measure, figure.metric, unit))))
        units[name] = unit
        estimate = estimate_median_of_series(values)
        shown = {"median": estimate.value}
        shown |= {"low": estimate.low, "high": estimate.high} if estimate.is_interval else {}
        families.setdefault(name, []).extend(
            f"{name}{{{_labels(measured, figure, statistic)}}} {value!r}{at}" for statistic, value in shown.items()
        )
    lines = []
    for name, samples in families.items():
        lines.append(f"# TYPE {name} gauge")
        if units[name]:
            lines.append(f"# UNIT {name} {units[name]}")
        lines += samples
    return "\n".join([*lines, "# EOF", ""]).encode()


def _labels(measured: Measured, figure: Figure, statistic: str) -> str:
    labels = {
        "scenario": measured.run.folder.scenario,
        "platform": figure.platform,
        **({"rate_per_s": f"{figure.rate_per_s:g}"} if figure.rate_per_s else {}),
        **({"mix": figure.mix} if figure.mix else {}),
        "run": measured.run_id,
        "clock": "instructions" if measured.run.instruction_time else "host",
        "statistic": statistic,
    }
    return ",".join(f'{name}="{_escape(text)}"' for name, text in labels.items())


def _escape(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _read_time(measured: Measured) -> str:
    """Return when the run began as a sample's timestamp, seconds since 1970; "" where the manifest does not say."""
    try:
        return f" {datetime.fromisoformat(str(measured.run.manifest.get('started'))).timestamp():.0f}"
    except (ValueError, OverflowError, OSError):
        return ""

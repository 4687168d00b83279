"""Compares two sides, figure by figure: what differs in what they were made of, what changed, and what a gate says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.aliases import is_alias
from testbed.analysis import list_faults
from testbed.runs.figures import DIRECTIONS, METRICS, Figure
from testbed.runs.fingerprint import (
    Difference,
    list_changed_platforms,
    list_differences,
    list_doubts,
    list_obstacles,
    read_commit,
)
from testbed.runs.sides import Measured
from testbed.runs.verdict import (
    ALPHA,
    RESULTS,
    Change,
    Judgement,
    Result,
    estimate_change,
    estimate_own_noise,
    find_p_of_harm,
    judge,
    judge_exactly,
)
from testbed.statistics import Estimate, adjust_holm, estimate_median_of_series

# The fraction by which a figure may get worse where nothing else is asked for.
DEFAULT_LIMIT = 0.05


class Limits(Struct, frozen=True):
    """What a figure may get worse by, relative: ``all`` of them, or by metric. ``metrics`` are those that are judged,
    none: those that DIRECTIONS marks."""

    all: float | None = None
    by_metric: Mapping[str, float] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()

    def of(self, figure: Figure, default: float) -> float:
        """Return a figure's limit."""
        return self.by_metric.get(figure.metric, default if self.all is None else self.all)

    def judges(self, figure: Figure) -> bool:
        """Whether a gate judges the figure."""
        return figure.metric in self.metrics if self.metrics else figure.direction.gated


class Row(Struct, frozen=True):
    """A figure on both sides: each run's median with its interval, the change, and what a gate says of it, None where
    it does not judge it."""

    figure: Figure
    before: tuple[Estimate, ...]
    after: tuple[Estimate, ...]
    change: Change | None
    noise: float | None
    judgement: Judgement | None

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to say of it: it is not judged, and its interval has no change in it, or it has
        none."""
        if self.judgement is not None:
            return False
        if self.change is None or self.change.low is None or self.change.high is None:
            return True
        return self.change.low <= 0 <= self.change.high

    @property
    def harm(self) -> float:
        """The relative change for the worse; 0 where there is none that is a number."""
        return self.change.harm(self.figure.direction.better).value if self.change else 0.0


class Failures(Struct, frozen=True):
    """Trials of one measure on one platform that failed, of how many, on each side; and what a gate says of it."""

    platform: str
    measure: str
    before: tuple[int, int]
    after: tuple[int, int]
    judgement: Judgement


class Side(Struct, frozen=True):
    """One side as it is shown: run ids, commits, and when the first of its runs began."""

    runs: tuple[str, ...]
    commits: tuple[str, ...]
    started: str


class Comparison(Struct, frozen=True):
    """``differences`` are those of the first runs' fingerprints, ``notes`` what a reader must know before the figures,
    ``rows`` the figures of both sides, the most harm first, ``missing`` the figures that only the baseline has."""

    scenario: str
    clock: Literal["host", "instructions"]
    before: Side
    after: Side
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    failures: tuple[Failures, ...]
    missing: tuple[tuple[Figure, str], ...]

    @property
    def judgements(self) -> tuple[Judgement, ...]:
        """All that a gate judges."""
        judged = [row.judgement for row in self.rows if row.judgement]
        lost = [Judgement("cannot tell", reason) for _, reason in self.missing]
        return (*judged, *(one.judgement for one in self.failures), *lost)

    @property
    def result(self) -> Result:
        """What a gate says: a regression when there is one, *cannot tell* when anything cannot be told, else ok."""
        results = {one.result for one in self.judgements}
        return next((result for result in RESULTS if result in results), "cannot tell")


def parse_limits(limit: str, metrics: str = "") -> Limits:
    """Parse ``5%`` or ``5%,latency_p99=20%``, and the names of metrics. Raises UsageError for what is neither."""
    of_all, by_metric = None, {}
    for part in filter(None, (one.strip() for one in limit.split(","))):
        name, equals, text = part.rpartition("=")
        if equals:
            by_metric[_check_metric("--limit", name.strip())] = _parse_fraction(text)
        else:
            of_all = _parse_fraction(text)
    names = tuple(_check_metric("--metrics", one.strip()) for one in metrics.split(",") if one.strip())
    return Limits(of_all, by_metric, names)


def _check_metric(option: str, name: str) -> str:
    if name not in METRICS:
        raise UsageError(f"{option}: there is no metric {name} to compare by", f"there are {', '.join(METRICS)}")
    return name


def _parse_fraction(text: str) -> float:
    plain = text.strip()
    try:
        value = float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:  # false for a NaN, too
        raise UsageError(f"--limit {text}: not a limit", "for example 5%, or 5%,latency_p99=20%")
    return value


def compare_sides(
    before: Sequence[Measured], after: Sequence[Measured], limits: Limits, anyway: bool = False
) -> Comparison:
    """Compare the runs of two sides.

    Raises UsageError when they cannot be compared: other scenarios, settings or clocks, or no figure that both have.
    ``anyway`` compares those of other settings all the same, and judges those of other hosts; it is noted.
    """
    old, new = before[0].run, after[0].run
    differences = list_differences(old, new)
    obstacles = list_obstacles(differences)
    of_settings = [one for one in obstacles if one.startswith("their settings")]
    if obstacles and (not anyway or len(of_settings) < len(obstacles)):
        more = f", and {len(obstacles) - 1} more of that kind" if len(obstacles) > 1 else ""
        hint = "compare runs of one experiment" + (", or --anyway" if len(of_settings) == len(obstacles) else "")
        raise UsageError(f"{before[0].run_id} and {after[0].run_id} cannot be compared: {obstacles[0]}{more}", hint)
    changed = list_changed_platforms(old, new)
    exact = old.instruction_time and new.instruction_time
    shared = [
        figure
        for figure in _list_all(before)
        if figure.platform not in changed
        and any(figure in one.figures for one in after)
        and not is_alias(figure.platform)
    ]
    doubts = () if exact else _list_doubts([*before, *after])
    rows = _make_rows(shared, before, after, limits, exact)
    if doubts and not anyway:
        rows = tuple(replace(row, judgement=_doubt(row.judgement)) for row in rows)
    failures = _compare_failures(before, after, exact)
    missing = _list_missing(before, after, changed, limits)
    if not rows and not failures:
        raise UsageError(
            f"{before[0].run_id} and {after[0].run_id} cannot be compared: no figure of one platform is in both",
            "compare runs that measured the same on the same platforms",
        )
    return Comparison(
        old.folder.scenario,
        "instructions" if exact else "host",
        _side(before),
        _side(after),
        differences,
        (*_list_notes(before, after, of_settings, changed, exact), *doubts),
        rows,
        failures,
        missing,
    )


def _list_doubts(runs: Sequence[Measured]) -> tuple[str, ...]:
    """Return why a change need not be one of what was measured: some run is of another host than the first."""
    found = (list_doubts(list_differences(runs[0].run, one.run)) for one in runs[1:])
    return next((doubts for doubts in found if doubts), ())


def _doubt(judgement: Judgement | None) -> Judgement | None:
    if judgement is None:
        return None
    return replace(judgement, result="cannot tell", reason="measured on different hosts; --anyway judges all the same")


def _list_all(side: Sequence[Measured]) -> list[Figure]:
    """Return the figures that some run of the side has, in the order in which measures have them."""
    order = {metric: number for number, metric in enumerate(METRICS, 1)}
    figures = dict.fromkeys(figure for one in side for figure in one.figures)
    measures = list(DIRECTIONS)
    return sorted(
        figures,
        key=lambda f: (measures.index(f.measure), f.platform, f.rate_per_s, f.mix, order.get(f.metric, 0), f.metric),
    )


def _make_rows(
    figures: Sequence[Figure], before: Sequence[Measured], after: Sequence[Measured], limits: Limits, exact: bool
) -> tuple[Row, ...]:
    """Return all rows; p values of the judged ones are adjusted for their number."""
    rows = [_measure_row(figure, before, after, exact) for figure in figures]
    judged = [row for row in rows if limits.judges(row.figure)]
    if exact:
        judgements = [_judge_row_exactly(row, before, after, limits) for row in judged]
    else:
        by_figure = [limits.of(row.figure, DEFAULT_LIMIT) for row in judged]
        p_values = adjust_holm(
            [
                find_p_of_harm(
                    _values(before, row.figure),
                    _values(after, row.figure),
                    row.figure.direction.better,
                    max(limit, row.noise or 0.0),
                )
                for row, limit in zip(judged, by_figure, strict=True)
            ]
        )
        judgements = [
            judge(row.change, row.figure.direction.better, limit, row.noise, p_value)
            for row, limit, p_value in zip(judged, by_figure, p_values, strict=True)
        ]
    by_name = {row.figure: judgement for row, judgement in zip(judged, judgements, strict=True)}
    rows = [replace(row, judgement=by_name.get(row.figure)) for row in rows]
    return tuple(sorted(rows, key=lambda row: (-round(row.harm, 6), row.judgement is None)))


def _values(side: Sequence[Measured], figure: Figure) -> list[tuple[float, ...]]:
    return [one.figures[figure] for one in side if figure in one.figures]


def _measure_row(figure: Figure, before: Sequence[Measured], after: Sequence[Measured], exact: bool) -> Row:
    old, new = _values(before, figure), _values(after, figure)
    change = estimate_change(old, new)
    floors = [one.find_noise_floor(figure) for one in (*before, *after)]
    noises = () if exact else (*floors, estimate_own_noise(old), estimate_own_noise(new))
    noise = max((one for one in noises if one is not None), default=None)
    return Row(
        figure,
        tuple(map(estimate_median_of_series, old)),
        tuple(map(estimate_median_of_series, new)),
        change,
        noise,
        None,
    )


def _judge_row_exactly(row: Row, before: Sequence[Measured], after: Sequence[Measured], limits: Limits) -> Judgement:
    old, new = _values(before, row.figure), _values(after, row.figure)
    return judge_exactly(old, new, row.figure.direction.better, limits.of(row.figure, 0.0))


def _compare_failures(before: Sequence[Measured], after: Sequence[Measured], exact: bool) -> tuple[Failures, ...]:
    """Compare how many trials failed, the worst run of the baseline with the typical one of the other side; only of
    what failed on some side there is something to say."""
    old, new = _list_failures(before), _list_failures(after)
    pairs = {key: (max(old[key], key=_fraction), _pick_typical(new[key])) for key in old if key in new}
    failed = {key: pair for key, pair in pairs.items() if pair[0][0] or pair[1][0]}
    return tuple(
        Failures(*key, *pair, judge_failures(*pair, ALPHA / len(failed), exact)) for key, pair in failed.items()
    )


def _fraction(count: tuple[int, int]) -> float:
    return count[0] / count[1]


def _pick_typical(counts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sorted(counts, key=_fraction)[(len(counts) - 1) // 2]


def _list_failures(side: Sequence[Measured]) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Return, by platform and measure, how many trials failed and of how many, in each run that has such trials."""
    counts: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for one in side:
        for key, count in one.failures.items():
            counts.setdefault(key, []).append(count)
    return counts


def judge_failures(before: tuple[int, int], after: tuple[int, int], alpha: float, exact: bool = False) -> Judgement:
    """Judge failed trials (how many, of how many) by Fisher's exact test, one-sided; all of them is a regression."""
    from scipy.stats import hypergeom

    said = f"{after[0]} of {after[1]} trials failed; of the baseline's {before[0]} of {before[1]}"
    if exact:
        return Judgement("regression" if after[0] > before[0] else "ok", said)
    if after[0] == after[1] and before[0] < before[1]:
        return Judgement("regression", said)
    failed, ended = before[0] + after[0], before[1] + after[1]
    chance = float(hypergeom.sf(after[0] - 1, ended, failed, after[1]))
    return Judgement("regression" if chance < alpha else "ok", said)


def _list_missing(
    before: Sequence[Measured], after: Sequence[Measured], changed: Mapping[str, str], limits: Limits
) -> tuple[tuple[Figure, str], ...]:
    """Return the judged figures of the baseline that the other side has not, and why."""
    failed = {key for key, counts in _list_failures(after).items() if all(_fraction(count) == 1 for count in counts)}
    missing = []
    for figure in _list_all(before):
        if not limits.judges(figure) or is_alias(figure.platform):
            continue
        if figure.platform in changed:
            missing.append((figure, changed[figure.platform]))
        elif not any(figure in one.figures for one in after) and (figure.platform, figure.measure) not in failed:
            missing.append((figure, "the baseline has it, and this side has no trial with it"))
    return tuple(missing)


def _side(side: Sequence[Measured]) -> Side:
    started = min(str(one.run.manifest.get("started") or "")[:32] for one in side)
    commits = tuple(dict.fromkeys(filter(None, (read_commit(one.run) for one in side))))
    return Side(tuple(one.run_id for one in side), commits, started)


def _list_notes(
    before: Sequence[Measured],
    after: Sequence[Measured],
    of_settings: Sequence[str],
    changed: Mapping[str, str],
    exact: bool,
) -> list[str]:
    notes = []
    if of_settings:
        notes.append(f"These are not runs of one experiment, and were compared all the same: {'; '.join(of_settings)}.")
    notes += [f"{name} is not compared: {why}." for name, why in sorted(changed.items())]
    if exact:
        notes.append("Both sides are of the reference machine, so every difference is one of their inputs.")
    elif len(before) == len(after) == 1:
        notes.append(
            "One run on each side: the intervals have what varies within a run, and not what varies from run to run."
            " Give several runs of a side, or a folder of runs."
        )
    for one in (*before, *after):
        notes += [f"{one.run_id}: {fault}" for fault in list_faults(one.run.folder, one.run.trials)]
    for name, side in (("baseline", before), ("other side", after)):
        if unfinished := [one.run_id for one in side if one.run.manifest.get("status") != "finished"]:
            notes.append(f"Of the {name} {', '.join(unfinished[:3])} did not end as planned: it may lack trials.")
    return notes

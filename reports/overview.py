"""The picture that a report opens with: every platform in every measure, and its ratio to the baseline.

Platforms are compared with those that start at the same temperature, so each temperature has a baseline of its own. An
emulated platform has figures, but no ratio: it is no answer to how virtual machines compare.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from reports import conditions
from reports.consolidation import SERVERS
from reports.quantities import LOAD, RULERS, SATURATED, START, Quantity
from reports.work import list_figures, say_better
from testbed.analysis import (
    STEADY,
    TEMPERATURES,
    Platform,
    Run,
    estimate_start_phases,
    estimate_utilisation,
    find_saturated,
    get_offered_rate,
    list_alone,
    select_trials,
)
from testbed.analysis import Figure as WorkFigure
from testbed.comparisons import compare_platforms
from testbed.consolidations import Mix, select_middle
from testbed.pairs import find_noise_floor
from testbed.ramps import estimate_memory_of_copies, is_capped, select_ramps
from testbed.statistics import MARGIN, Estimate, MeanEstimate, estimate_median

# So many figures of an application's work stand beside the other measures; its own section has all.
_MOST_OF_WORK = 4
_RATIO = Quantity("ratio", "", most_decimals=2)
_COPIES = Quantity("copies", "", most_decimals=0)
_COST = "cpu_per_request"
# The percentile that slow requests are told by: the first that all platforms have had enough requests for.
_TAILS = ("latency_p99", "latency_p90", "latency_p50")


class Figure(Struct, frozen=True):
    """A platform's figure in a measure: the estimate in base units, as text, and in relation to its baseline.

    ``ratio`` is None for the baseline itself and for what is not compared; ``ratio_span`` is its interval, None when it
    has none. ``verdict`` holds for all comparisons of the picture at once, "" where there is none. ``note`` says why
    there is no ratio, or what else a reader must know.
    """

    estimate: Estimate | MeanEstimate
    text: str
    span: str
    ratio: float | None = None
    ratio_span: tuple[float, float] | None = None
    is_baseline: bool = False
    verdict: str = ""
    note: str = ""


class Measure(Struct, frozen=True):
    """A column: its head, what is measured in a few words, which way is better, and the figures by platform.

    ``compared_by`` is the metric of its comparisons (testbed.comparisons), ``rate_per_s`` their rate and ``mix`` their
    servers; ``absent`` says why a platform has no figure. ``floor`` is what a platform differed by from itself (A/A,
    testbed.pairs), as a fraction; None in a run that did not look. ``said`` is how a sentence says its ratio, which
    replaces ``{}`` there; empty where none does.
    """

    name: str
    head: str
    note: str
    quantity: Quantity
    figures: Mapping[str, Figure]
    compared_by: str = ""
    rate_per_s: float | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    floor: float | None = None
    said: str = ""
    mix: str = ""


class Group(Struct, frozen=True):
    """Platforms that start at the same temperature, with their baseline, the first of them in any measure."""

    temperature: str
    platforms: tuple[Platform, ...]
    baseline: Platform | None


class Overview(Struct, frozen=True):
    """All of the picture."""

    groups: tuple[Group, ...]
    measures: tuple[Measure, ...]

    @property
    def platforms(self) -> Iterator[Platform]:
        """All platforms in the order of the rows."""
        return (one for group in self.groups for one in group.platforms)


def make_overview(run: Run) -> Overview:
    """Return what the run has of it: measures that no platform has a figure of are left out."""
    return run.remember(("overview",), lambda: _make_overview(run))


def _make_overview(run: Run) -> Overview:
    groups = _group(run)
    rate = select_rate(run)
    made = [
        _start(run, groups, "ready", "First answer"),
        _start(run, groups, STEADY, "Latency steady"),
        _memory(run, groups),
        _copies(run, groups),
        *([_servers(run, groups, mix)] if (mix := select_middle(run)) else []),
        *(_at_rate(run, groups, name, rate) for name in (_COST, find_tail(run, rate)) if rate is not None),
    ]
    made += _work(run, groups)
    return Overview(groups, _judge(run, groups, [one for one in made if one.figures]))


def _judge(run: Run, groups: Sequence[Group], measures: Sequence[Measure]) -> tuple[Measure, ...]:
    """Return the measures with what can be said of each ratio, all comparisons of the run being looked at at once."""
    baselines = {one.name: group.baseline.name for group in groups if group.baseline for one in group.platforms}
    compared = {
        (one.headline.metric, one.headline.rate_per_s, one.headline.mix, one.platform): one.comparison
        for one in compare_platforms(run)
        if one.baseline == baselines.get(one.platform)
    }
    judged = []
    for measure in measures:
        figures = dict(measure.figures)
        for name, figure in figures.items():
            comparison = compared.get((measure.compared_by, measure.rate_per_s, measure.mix, name))
            if figure.ratio is None or figure.verdict or run.instruction_time:
                continue  # instruction time has no chance in it: any difference is one
            if comparison is None:  # nobody has looked whether it differs
                figures[name] = replace(figure, verdict="cannot tell")
            else:
                ratio = comparison.ratio
                span = (ratio.low, ratio.high) if ratio and ratio.is_interval else None
                if span and not span[0] <= figure.ratio <= span[1]:
                    span = None  # it is of another estimate than the one that is shown
                figures[name] = replace(figure, ratio_span=span, verdict=comparison.verdict)
        judged.append(replace(measure, figures=figures, floor=_find_floor(run, measure)))
    return tuple(judged)


def _find_floor(run: Run, measure: Measure) -> float | None:
    """Return the noise floor of a measure, as a fraction of the figure."""
    metric = "memory_cgroup_further" if measure.name == "memory" else measure.compared_by
    for kind in ("start", "density", "utilisation", "work", "consolidation"):
        if floor := find_noise_floor(run, kind, metric, measure.rate_per_s or measure.mix or None):
            return floor.spread
    return None


def _group(run: Run) -> tuple[Group, ...]:
    groups = []
    for temperature in TEMPERATURES:
        platforms = tuple(one for one in run.platforms if one.temperature == temperature)
        if platforms:
            baseline = next((one for one in platforms if not one.emulated), None)
            first = (baseline,) if baseline else ()
            groups.append(Group(temperature, (*first, *(one for one in platforms if one != baseline)), baseline))
    return tuple(groups)


def select_rate(run: Run) -> float | None:
    """Return the highest rate that all platforms on hardware kept up with; of emulated ones without others."""
    kept: dict[Platform, set[float]] = {}
    for one in run.platforms:
        if rates := estimate_utilisation(run, one.name):
            kept[one] = {rate for rate, of in rates.items() if _COST in of and any(name in of for name in _TAILS)}
    hardware = [rates for one, rates in kept.items() if not one.emulated] or list(kept.values())
    shared = set.intersection(*hardware) if hardware else set()
    return max(shared, default=None)


def find_tail(run: Run, rate: float | None) -> str:
    """Return the percentile of latency that all platforms that kept up with a rate have."""
    rates = [estimate_utilisation(run, one.name).get(rate, {}) for one in run.platforms] if rate is not None else []
    having = [figures for figures in rates if any(name in figures for name in _TAILS)]
    return next((name for name in _TAILS if all(name in figures for figures in having)), _TAILS[-1])


def _start(run: Run, groups: Sequence[Group], metric: str, head: str) -> Measure:
    def find(platform: Platform) -> Estimate | None:
        return estimate_start_phases(run, platform.name).get(metric)

    figures = _figures(run, groups, "start", START[metric], find)
    said = "took {} as long to its first answer" if metric == "ready" else ""
    return Measure(metric, head, "since the request; less is better", START[metric], figures, metric, said=said)


def _work(run: Run, groups: Sequence[Group]) -> list[Measure]:
    """Return the first figures of the application's work."""
    measures: list[Measure] = []
    for quantity, of in list_figures(run, {one.name: one for one in run.platforms})[:_MOST_OF_WORK]:

        def find(platform: Platform, of: Mapping[str, WorkFigure] = of) -> Estimate | None:
            return of[platform.name].estimate if platform.name in of else None

        figures = _figures(run, groups, "work", quantity, find)
        name = quantity.title.replace(" ", "_")
        said = "" if measures else f"had {{}} the {quantity.title}"
        note = f"of the work; {say_better(next(iter(of.values())))}"
        measures.append(Measure(name, quantity.title.capitalize(), note, quantity, figures, name, said=said))
    return measures


def _memory(run: Run, groups: Sequence[Group]) -> Measure:
    ruler = "memory_cgroup"

    def find(platform: Platform) -> Estimate | MeanEstimate | None:
        held = estimate_memory_of_copies(run, platform.name, ruler)
        return held.further if held else None

    quantity = RULERS[ruler]
    figures = _figures(run, groups, "density", quantity, find)
    note, said = "of each further copy; less is better", "{} the memory for each further copy"
    return Measure("memory", "Memory", note, quantity, figures, "further_bytes", said=said)


def _copies(run: Run, groups: Sequence[Group]) -> Measure:
    def find(platform: Platform) -> Estimate | None:
        ramps = select_ramps(run, platform.name)
        return estimate_median([float(ramp.applications) for ramp in ramps]) if ramps else None

    found = _figures(run, groups, "density", _COPIES, find)
    capped = {name for name in found if is_capped(run, name)}
    figures = _bound(found, groups, capped)
    return Measure("copies", "Copies", "within the service level; more is better", _COPIES, figures, "applications")


def _servers(run: Run, groups: Sequence[Group], mix: Mix) -> Measure:
    by_platform = {packed.platform: packed for packed in mix.packed}

    def find(platform: Platform) -> Estimate | None:
        packed = by_platform.get(platform.name)
        return packed.figures.get("servers") if packed else None

    found = _figures(run, groups, "consolidation", SERVERS, find)
    figures = _bound(found, groups, {name for name in found if by_platform[name].is_capped})
    note = f"at {mix.fraction * 100:.3g} % of a machine each, within the service level; more is better"
    return Measure("servers", "Servers", note, SERVERS, figures, "servers", mix=mix.name)


def _bound(found: Mapping[str, Figure], groups: Sequence[Group], capped: Collection[str]) -> dict[str, Figure]:
    """Return figures of how many fit; those of platforms that were ``capped`` are bounds, and so are ratios to them."""
    baselines = {one.name: group.baseline.name for group in groups if group.baseline for one in group.platforms}
    figures = {}
    for name, figure in found.items():
        text = f"\N{GREATER-THAN OR EQUAL TO} {figure.text}" if name in capped else figure.text
        bound = {(True, False): "at least", (False, True): "at most"}.get(
            (name in capped, baselines.get(name) in capped)
        )
        known = name not in capped or baselines.get(name) not in capped
        ratio = figure.ratio if known else None
        note = figure.note or ("" if known else "the cap")
        figures[name] = replace(figure, text=text, ratio=ratio, verdict=bound or "", note=note)
    return figures


def _at_rate(run: Run, groups: Sequence[Group], metric: str, rate: float) -> Measure:
    def find(platform: Platform) -> Estimate | None:
        return estimate_utilisation(run, platform.name).get(rate, {}).get(metric)

    quantity = LOAD[metric]
    head = "CPU time" if metric == _COST else quantity.title.capitalize()
    what = "of a request" if metric == _COST else "of requests"
    absent = {one.name: SATURATED for one in run.platforms if rate in find_saturated(run, one.name)}
    figures = _figures(run, groups, "utilisation", quantity, find)
    note = f"{what} at {rate:g}/s; less is better"
    said = "{} the processor time for a request" if metric == _COST else ""
    return Measure(metric, head, note, quantity, figures, metric, rate, absent, said=said)


def select_at_rate(run: Run, platform: str, metric: str, rate: float) -> tuple[float, ...]:
    """Return a metric's value in every counted trial of a rate (requests per second)."""
    return tuple(
        value
        for trial in select_trials(run, "utilisation", platform)
        if get_offered_rate(trial) == rate and (value := trial.value(metric)) is not None
    )


def _figures(
    run: Run,
    groups: Sequence[Group],
    measure: str,
    quantity: Quantity,
    find: Callable[[Platform], Estimate | MeanEstimate | None],
) -> dict[str, Figure]:
    """Return the figures of a measure by platform, with ratios where platforms may be compared."""
    alone = list_alone(run, measure)
    found: dict[str, Figure] = {}
    for group in groups:
        base = find(group.baseline) if group.baseline else None
        for one in group.platforms:
            if (estimate := find(one)) is None:
                continue
            figure = Figure(estimate, quantity.show(estimate.value), quantity.qualify(estimate))
            if one == group.baseline:
                figure = replace(figure, is_baseline=len(group.platforms) > 1)
            elif one.emulated or one in alone or group.baseline in alone:
                figure = replace(figure, note="emulated" if one.emulated else "not compared")
            elif base is not None and base.value > 0 and estimate.value > 0:
                figure = replace(figure, ratio=estimate.value / base.value)
            found[one.name] = figure
    return found


_SIGNS = {
    "equivalent": "\N{ALMOST EQUAL TO} ",
    "cannot tell": "? ",
    "at least": "\N{GREATER-THAN OR EQUAL TO} ",
    "at most": "\N{LESS-THAN OR EQUAL TO} ",
}


def show_ratio(figure: Figure) -> str:
    """Return a ratio as text: times the baseline, with a sign for one that is equal to it, or may be."""
    if figure.ratio is None:
        return ""
    return f"{_SIGNS.get(figure.verdict, '')}{_RATIO.show(figure.ratio)}\N{MULTIPLICATION SIGN}"


def explain_signs(overview: Overview) -> str:
    """Return what the signs before ratios mean, those that there are."""
    verdicts = {figure.verdict for measure in overview.measures for figure in measure.figures.values()}
    said = {
        "equivalent": f"\N{ALMOST EQUAL TO}: equal to within {MARGIN * 100:g} %",
        "cannot tell": "?: too few or too varying trials to tell it from 1",
    }
    shown = [text for verdict, text in said.items() if verdict in verdicts]
    return f" {'; '.join(shown)}, all comparisons taken together (Holm)." if shown else ""


def show_ratio_span(figure: Figure) -> str:
    """Return the interval of a ratio as text; empty when it has none."""
    if figure.ratio is None or figure.ratio_span is None:
        return ""
    return f"{_RATIO.span(*figure.ratio_span, figure.ratio)}\N{MULTIPLICATION SIGN}"


def write_sentence(run: Run, overview: Overview) -> str:
    """Return the answer in a sentence: each measure's ratio to the baseline among what starts cold, on hardware.

    Empty when there are not two such platforms with a figure of the same measure.
    """
    group = next((one for one in overview.groups if one.temperature == "cold"), None)
    if group is None or group.baseline is None:
        return ""
    parts = [part for measure in overview.measures if (part := _compare(group, measure))]
    if not parts:
        return ""
    scenario = run.manifest.get("scenario") or "the application"
    others = [one.label for one in group.platforms if one != group.baseline and not one.emulated]
    who = f"As {_join(others, 'or')}" if len(others) <= _MOST_NAMED else f"On the {len(others)} other platforms"
    said = (
        f"{who}, {scenario} {_join(parts, 'and')}, compared with {group.baseline.label}, {conditions.this_host(run)}."
    )
    return f"{said} (?: too few or too varying trials to tell.)" if any("(?)" in part for part in parts) else said


def _join(parts: Sequence[str], word: str) -> str:
    return f" {word} ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


# More platforms than these are counted, not named.
_MOST_NAMED = 3


def _compare(group: Group, measure: Measure) -> str:
    """Return what a sentence says of a measure: the ratio, or from which to which one they go."""
    figures = [figure for one in group.platforms if (figure := measure.figures.get(one.name)) is not None]
    ratios = [figure.ratio for figure in figures if figure.ratio is not None]
    if not ratios or not measure.said:
        return ""
    untold = all(figure.verdict == "cannot tell" for figure in figures if figure.ratio is not None)
    low, high = (f"{edge:.2g}" if edge < 100 else f"{edge:.0f}" for edge in (min(ratios), max(ratios)))
    said = measure.said.replace("{}", f"{low} times" if low == high else f"{low} to {high} times", 1)
    return f"{said} (?)" if untold else said

"""How a ratio to the container moves with an assumed price of a guest's exit (reports.charges)."""

from __future__ import annotations

from reports.charges import HIGHEST_PRICE_USEC, PUBLISHED, RATIO, Ratios, select_ratios
from reports.figures.chart import Band, Chart, Limit, Point, Series, draw_chart
from reports.figures.marks import Picture, assign_looks
from reports.figures.scales import Scale
from testbed.analysis import Run


def draw_ratios(run: Run) -> list[Picture]:
    """Draw the charts; none of a run in whose times the price of exits is already."""
    return [_draw(run, ratios) for ratios in select_ratios(run)]


def _draw(run: Run, ratios: Ratios) -> Picture:
    looks = assign_looks(run)
    series = [
        Series(
            one.platform.label,
            looks[one.platform.name],
            [Point(price, one.ratio(price)) for price in (0.0, HIGHEST_PRICE_USEC)],
        )
        for one in ratios.charged
    ]
    highest = max(one.ratio(HIGHEST_PRICE_USEC) for one in ratios.charged)
    bands = [
        Band(mark.low_usec, min(mark.high_usec, HIGHEST_PRICE_USEC), str(number), (number - 1) % 3)
        for number, mark in enumerate(PUBLISHED, 1)
    ]
    chart = Chart(
        Scale("linear", 0.0, HIGHEST_PRICE_USEC),
        Scale("linear", 0.0, max(highest, 1.0) * 1.25),
        "assumed price of an exit (µs)",
        "times the container's (instruction time)",
        series,
        [Limit(1.0, "as the container")],
        bands,
    )
    described = "; ".join(
        f"{one.platform.label} from {RATIO.show(one.ratio(0))} to {RATIO.show(one.ratio(HIGHEST_PRICE_USEC))}"
        for one in ratios.charged
    )
    alt = f"Ratio to the container of {ratios.what}, when an exit costs 0 to {HIGHEST_PRICE_USEC:g} µs: {described}."
    caption = (
        f"Ratio to the container of {ratios.what}: instruction time and exits at their price, over the container's"
        " instruction time. Grey, numbered: published figures, listed below."
    )
    return Picture(draw_chart(chart), f"{ratios.title}, with exits charged", alt, caption)

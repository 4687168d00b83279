"""A comparison, or the figures of one run, as JUnit XML: a test suite a platform, a test case a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from msgspec import Struct

from reports.runs import wording
from runtime.output import printable
from testbed.runs.compare import Comparison
from testbed.runs.sides import Measured
from testbed.statistics import estimate_median_of_series


class Case(Struct, frozen=True):
    """A test case of a platform: ``failure`` and ``skipped`` say why it is one, "" where it is none."""

    platform: str
    name: str
    output: str
    failure: str = ""
    skipped: str = ""


def export_comparison(comparison: Comparison) -> bytes:
    """Return a comparison as JUnit XML: a regression is a failure, what cannot be told is skipped."""
    cases = []
    for line, row in zip(wording.make_lines(comparison), comparison.rows, strict=True):
        if row.judgement is None:
            continue
        output = f"{line.title}: {line.before} → {line.after}, {' '.join(filter(None, (line.change, line.interval)))}"
        cases.append(_case(row.figure.platform, row.figure.test, output, row.judgement.result, line.verdict))
    for one in comparison.failures:
        cases.append(
            _case(
                one.platform, f"{one.measure}/failed", one.judgement.reason, one.judgement.result, one.judgement.reason
            )
        )
    for figure, why in comparison.missing:
        cases.append(_case(figure.platform, figure.test, why, "cannot tell", why))
    return _write(comparison.scenario, cases)


def _case(platform: str, name: str, output: str, result: str, reason: str) -> Case:
    failure = f"{output}; {reason}" if result == "regression" else ""
    return Case(platform, name, output, failure, reason if result == "cannot tell" else "")


def export_run(measured: Measured) -> bytes:
    """Return a run as JUnit XML: each figure passes, with its median; a measure all of whose trials failed fails."""
    cases = []
    for figure, values in measured.figures.items():
        estimate = estimate_median_of_series(values)
        quantity = wording.describe_figure(figure, abs(estimate.value))
        output = f"{quantity.title}: {quantity.show(estimate.value)}{quantity.basis(estimate)}"
        cases.append(Case(figure.platform, figure.test, output))
    for (platform, measure), (failed, ended) in measured.failures.items():
        reason = f"all of {ended} trials failed" if failed == ended else ""
        cases.append(Case(platform, f"{measure}/failed", f"{failed} of {ended} trials failed", reason))
    return _write(measured.run.folder.scenario, cases)


def _write(scenario: str, cases: Sequence[Case]) -> bytes:
    root = ElementTree.Element("testsuites", {"name": printable(scenario), **_count(cases)})
    for platform in dict.fromkeys(case.platform for case in cases):
        of = [case for case in cases if case.platform == platform]
        name = printable(f"{scenario}.{platform}")
        suite = ElementTree.SubElement(root, "testsuite", {"name": name, **_count(of)})
        for case in of:
            element = ElementTree.SubElement(suite, "testcase", {"classname": name, "name": printable(case.name)})
            for kind, message in (("failure", case.failure), ("skipped", case.skipped)):
                if message:
                    ElementTree.SubElement(element, kind, {"message": printable(message)})
            ElementTree.SubElement(element, "system-out").text = printable(case.output)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _count(cases: Iterable[Case]) -> dict[str, str]:
    of = list(cases)
    failed, skipped = sum(bool(case.failure) for case in of), sum(bool(case.skipped) for case in of)
    return {"tests": str(len(of)), "failures": str(failed), "errors": "0", "skipped": str(skipped)}

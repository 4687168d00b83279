"""Reads which requests a scenario is measured with: their kinds, their rates, and how they are spread over time."""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath

from msgspec import Struct

from runtime.errors import UsageError
from runtime.files import check_inside, read_bounded
from testbed.load.arrivals import KINDS, Schedule, count_requests, list_pieces
from testbed.load.requests import (
    METHODS,
    MOST_BODY_BYTES,
    MOST_HEADERS,
    MOST_KINDS,
    WITHOUT_BODY,
    Request,
    find_header_fault,
    find_main,
)
from testbed.scenario.sections import (
    DAY_S,
    MOST_RATE_PER_S,
    Section,
    read_path,
    read_port,
    read_rate,
    read_service,
    read_status,
)
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value, require

LOAD_KEYS = (
    *("service", "port", "method", "path", "requests", "rates_per_s", "schedule", "ramp_from_per_s", "trace"),
    *("duration_s", "warmup_s", "connections"),
)
MOST_RATES = 100
# The generator works out when each is due before the first is sent.
MOST_REQUESTS = 5_000_000
MOST_TRACE_ROWS = 10_000
MOST_TRACE_BYTES = 1 << 20
TRACE_HEADER = "t_s,rate_per_s"
_REQUEST_KEYS = ("method", "path", "status", "headers", "body", "weight")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")


class Load(Struct, frozen=True):
    """The requests to send: each of ``rates_per_s`` (requests/s) for ``duration_s`` after ``warmup_s``.

    ``method`` and ``path`` are those of the only kind of request or, of a mix (``requests``), of its main one.
    """

    service: str
    port: int
    method: str
    path: str
    rates_per_s: tuple[float, ...]
    duration_s: float
    warmup_s: float
    connections: int
    requests: tuple[Request, ...] = ()
    schedule: Schedule = Schedule()

    @property
    def kinds(self) -> tuple[Request, ...]:
        """The kinds of request, one or a mix."""
        return self.requests or (Request(self.method, self.path),)


def read_load(section: Section, service: str, port: int, path: str, names: tuple[str, ...]) -> Load:
    """Return the load; unless it says otherwise, it asks that service at that port and path."""
    own_service, own_port = section.get("service"), section.get("port")
    schedule, rates = _read_schedule(section), _read_rates(section)
    duration_s = section.seconds("duration_s", 20, above=0)
    if schedule.kind == "trace":
        rates = _find_trace_rates(section, schedule, duration_s)
    busiest = max(rates, default=0.0)
    requests = _read_mix(section)
    main = find_main(requests) if requests else Request(_method(section.get("method")), section.path(path))
    load = Load(
        service=service if own_service is None else read_service(own_service, names),
        port=port if own_port is None else read_port(own_port),
        method=main.method,
        path=main.path,
        rates_per_s=rates,
        duration_s=duration_s,
        warmup_s=section.seconds("warmup_s", 3),
        connections=section.integer("connections", 16, 1, 10_000, "connections"),
        requests=requests,
        schedule=schedule,
    )
    if math.isfinite(duration_s) and rates:
        _check_size(section, schedule, busiest, duration_s)
    return load


def mean_rate_per_s(schedule: Schedule, duration_s: float) -> float:
    """Return the mean rate of a trace over so many seconds, to six digits."""
    return float(f"{sum(piece.requests for piece in list_pieces(schedule, 0.0, duration_s)) / duration_s:.6g}")


def find_shortest_s(schedule: Schedule, wanted_s: float, whole_s: float) -> float:
    """Return ``wanted_s``, or all of a trace whose beginning has no request in it."""
    return wanted_s if count_requests(schedule, 0.0, wanted_s) else whole_s


def _check_size(section: Section, schedule: Schedule, busiest: float, duration_s: float) -> None:
    count = count_requests(schedule, busiest, duration_s)
    value = section.get("duration_s") or section.get("trace") or section.get("rates_per_s")
    if value is None:
        return
    if count > MOST_REQUESTS:
        value.report(f"makes {count} requests in all", f"at most {MOST_REQUESTS}: rate times seconds")
    elif schedule.kind == "trace" and count < 1:
        value.report("makes no request", "a trace with at least one request in duration_s")


def _find_trace_rates(section: Section, schedule: Schedule, duration_s: float) -> tuple[float, ...]:
    """Return a trace's mean rate, which is what its load is called by; nothing when it is wrong."""
    if value := section.get("rates_per_s"):
        value.report("is there beside a trace", "none: a trace has its own rates")
    return (mean_rate_per_s(schedule, duration_s),) if schedule.trace and math.isfinite(duration_s) else ()


def _read_rates(section: Section) -> tuple[float, ...]:
    value = section.get("rates_per_s")
    if value is None:
        return (10.0, 25.0, 50.0, 100.0)
    rates = tuple(read_rate(rate) for rate in value.items())
    if not 1 <= len(rates) <= MOST_RATES:
        value.report(f"has {len(rates) or 'no'} rates", f"a list of requests per second, at most {MOST_RATES}")
    elif len(set(rates)) < len(rates):
        value.report("has a rate twice", "a list of different rates")
    return tuple(rate for rate in rates if math.isfinite(rate))


def _read_schedule(section: Section) -> Schedule:
    value, from_per_s, trace = (section.get(key) for key in ("schedule", "ramp_from_per_s", "trace"))
    kind = "poisson" if value is None else value.text("the kind of schedule")
    if value is not None and kind not in KINDS:
        value.report(f"is {quote(kind)}", f"one of {', '.join(KINDS)}")
    if from_per_s is not None and kind != "ramp":
        from_per_s.report("is there without a ramp", "schedule: ramp beside it")
    if trace is not None and kind != "trace":
        trace.report("is there without its schedule", "schedule: trace beside it")
    if value is not None and kind == "trace" and trace is None:
        value.report("is a trace, and none is named", f"trace: a CSV file with the columns {TRACE_HEADER}")
    rate = 0.0 if from_per_s is None else from_per_s.number("requests per second", low=0, high=MOST_RATE_PER_S)
    steps = read_trace(trace) if trace is not None and kind == "trace" else ()
    return Schedule(kind, rate if math.isfinite(rate) else 0.0, steps)


def read_trace(value: Value) -> tuple[tuple[float, float], ...]:
    """Return the steps of a trace: a CSV file in the scenario's folder, ``t_s,rate_per_s``, from 0 on."""
    name = value.text("the name of a CSV file in the scenario's folder")
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or not name.isprintable():
        value.report(f"is {quote(name)}", "the name of a CSV file in the scenario's folder")
        return ()
    folder = value.file.parent
    try:
        check_inside(folder / path, folder)
        lines = read_bounded(folder / path, MOST_TRACE_BYTES).decode().splitlines()
    except UsageError as error:
        value.report(error.message, "a CSV file in the scenario's folder")
        return ()
    except UnicodeDecodeError:
        lines = []
    if not lines or lines[0].strip() != TRACE_HEADER or not 2 <= len(lines) <= MOST_TRACE_ROWS + 1:
        value.report(
            f"{quote(name)} is no trace", f"the line {TRACE_HEADER} and 1 to {MOST_TRACE_ROWS} rows of numbers"
        )
        return ()
    return _read_steps(value, name, lines[1:])


def _read_steps(value: Value, name: str, lines: list[str]) -> tuple[tuple[float, float], ...]:
    steps: list[tuple[float, float]] = []
    for number, line in enumerate(lines, 2):
        cells = [cell.strip() for cell in line.split(",")]
        is_row = len(cells) == 2 and all(map(_NUMBER.fullmatch, cells))
        t_s, rate = map(float, cells) if is_row else (math.nan, math.nan)
        follows = t_s > steps[-1][0] if steps else t_s == 0
        if not follows or not t_s <= DAY_S or not rate <= MOST_RATE_PER_S:
            value.report(
                f"{quote(name)} has {quote(line)} on line {number}",
                f"seconds from 0 on, ascending, at most {DAY_S}, and requests per second, at most {MOST_RATE_PER_S}",
            )
            return ()
        steps.append((t_s, rate))
    return tuple(steps)


def _read_mix(section: Section) -> tuple[Request, ...]:
    """Return the kinds of request of a mix, none when there is only one."""
    value = section.get("requests")
    if value is None:
        return ()
    for key in ("method", "path"):
        if beside := section.get(key):
            beside.report("is there beside requests", "the one or the other: each of requests has its own")
    items = value.items()
    if not 1 <= len(items) <= MOST_KINDS:
        value.report(f"has {len(items) or 'no'} requests", f"a list of 1 to {MOST_KINDS}")
        return ()
    requests = tuple(_read_request(item) for item in items)
    if not any(request.weight > 0 for request in requests):
        value.report("has no request with a weight", "a weight above 0 at least once")
        return ()
    return requests


def _read_request(item: Value) -> Request:
    fields = {key: value for key, value in item.fields(_REQUEST_KEYS).items() if not value.is_null}
    method = _method(fields.get("method"))
    weight = fields["weight"].number("its part of all", above=0, high=1e6) if "weight" in fields else 1.0
    body = fields["body"].text("the text that is sent") if "body" in fields else ""
    if body and method in WITHOUT_BODY:
        fields["body"].report(f"is there with the method {method}", "a method that sends one, such as POST")
    if len(body.encode(errors="replace")) > MOST_BODY_BYTES:
        fields["body"].report(f"is longer than {MOST_BODY_BYTES} bytes", "a shorter body")
    return Request(
        method=method,
        path=read_path(require(fields, "path", item, "a path such as /")),
        expect_status=read_status(fields["status"]) if "status" in fields else 200,
        headers=_read_headers(fields["headers"]) if "headers" in fields else (),
        body=body,
        weight=weight if math.isfinite(weight) else 1.0,
    )


def _read_headers(value: Value) -> tuple[tuple[str, str], ...]:
    headers: list[tuple[str, str]] = []
    entries = value.entries()
    if len(entries) > MOST_HEADERS:
        value.report(f"has {len(entries)} headers", f"at most {MOST_HEADERS}")
    for name, content in entries.items():
        text = content.text("the header's value")
        if fault := find_header_fault(name, text):
            content.report(fault, "a header's name and its value in one line of printable ASCII")
        elif name.lower() in (known.lower() for known, _ in headers):
            content.report("is there twice", "each header once")
        headers.append((name, text))
    return tuple(headers)


def _method(value: Value | None) -> str:
    if value is None:
        return "GET"
    method = value.text("an HTTP method")
    if method not in METHODS:
        value.report(f"is {quote(method)}", f"one of {', '.join(METHODS)}")
    return method

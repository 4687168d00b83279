"""The task that simulates a data centre by a run's footprints: fleet."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Context, task

from reports.commands.exits import reporting
from reports.commands.options import RESULTS, parse_fraction, parse_number, split_words
from runtime.errors import UsageError
from testbed.progress import print_progress

if TYPE_CHECKING:
    from reports.fleets.data import Source
    from testbed.analysis import Run
    from testbed.fleet.demands import Host
    from testbed.fleet.distributions import Mix
    from testbed.fleet.servers import Servers
    from testbed.fleet.study import Fleet
    from testbed.footprints import Footprint

_KINDS = ("talk", "azure", "application")


@task(
    help={
        "from": "the run whose footprints are used: its folder, or its id in results/ (default: the newest there)",
        "servers": "talk, azure, application (each the run's), or the file of a trace",
        "format": "of a trace: azure, alibaba or csv (default: told by its first line)",
        "count": "so many servers are drawn, 10 to 100000 and more",
        "utilisation": "their mean CPU use, %: a fleet for each (default: 5,8,12; of azure 14)",
        "server": "size of a server, such as 4c,2.25G",
        "sizes": "sizes with their shares in place of one: 0.6:2c,4G;0.4:8c,32G",
        "zombies": "so many % of servers do next to nothing (below 3 %)",
        "peak-to-mean": "the busiest hour of a server's day, times its mean",
        "host": "size of a host",
        "headroom": "so many % of a host stay free",
        "overload": "chance in % that servers of a host want more CPU than there is",
        "correlation": "between the loads of any two servers, 0 to 1",
        "spare": "so many empty hosts in a cluster of so many: 1/32, or 0",
        "platforms": "comma-separated: these of the run only (default: all that have footprints)",
        "ruler": "memory by memory_cgroup, memory_pss or memory_available",
        "power": "W: a server idle and at its peak, a host idle and at its peak",
        "prices": "a server a year, a host a year, a kilowatt-hour",
        "seed": "decides the draw of the fleet and of the footprints",
        "seeds": "draw the fleet so many times",
        "compaction": "also shrink cells until they no longer fit",
        "workers": "processes for draws, cells and assumptions",
        "json": "print as JSON on standard output",
        "csv": "also write a table to this file",
        "html": "also write a page to this file",
    }
)
@reporting
def fleet(
    context: Context,
    from_: str = "",
    servers: str = "talk",
    format: str = "",
    count: str = "1000",
    utilisation: str = "",
    server: str = "",
    sizes: str = "",
    zombies: str = "0",
    peak_to_mean: str = "2",
    host: str = "64c,512G",
    headroom: str = "10",
    overload: str = "1",
    correlation: str = "0",
    spare: str = "1/32",
    platforms: str = "",
    ruler: str = "memory_cgroup",
    power: str = "150,250,200,600",
    prices: str = "750,3000,0.15",
    seed: str = "1",
    seeds: str = "1",
    compaction: bool = False,
    workers: str = "1",
    json: bool = False,
    csv: str = "",
    html: str = "",
) -> int:
    """Simulate a data centre: servers packed onto hosts by a run's footprints, as containers and as machines."""
    given = {key: value for key, value in locals().items() if isinstance(value, str)}
    from reports.fleets import data, page, terminal
    from testbed.history import read_history
    from testbed.results import replace_file

    source = read_source(from_, ruler, platforms)[1]
    fleets = _study(given, source.footprints, compaction)
    if csv:
        replace_file(Path(csv), data.fleets_as_csv(fleets).encode())
        print_progress(f"table: {csv}")
    if html:
        replace_file(Path(html), page.render_page(source, fleets, read_history()).encode(errors="replace"))
        print_progress(f"page: {html}")
    if json:
        document = data.fleets_as_json(source, fleets, read_history())
        print(json_module.dumps(document, indent=2, allow_nan=False))
    else:
        terminal.print_fleets(source.run, source.notes, fleets)
    return 0


def read_source(run: str, ruler: str, platforms: str) -> tuple[Run, Source]:
    """Return the run that is named, and what is taken from it. Raises UsageError where there is no such."""
    from reports.fleets.data import Source
    from reports.fleets.wording import list_notes
    from testbed.analysis import read_run
    from testbed.copies import RULERS
    from testbed.footprints import read_footprints
    from testbed.results import RunFolder
    from testbed.run_folders import locate

    if ruler not in RULERS:
        raise UsageError(f"--ruler {ruler}: there is no such ruler", ", ".join(RULERS))
    read = read_run(RunFolder.open(locate(run, RESULTS)))
    footprints = read_footprints(read, ruler, split_words(platforms))
    scenario = str(read.manifest.get("scenario") or "")
    notes = tuple(list_notes(footprints, read.instruction_time))
    return read, Source(read.folder.run_id, scenario, footprints, notes)


def _study(given: Mapping[str, str], footprints: tuple[Footprint, ...], compaction: bool) -> list[Fleet]:
    """Return the study of each fleet that is asked for; only the middle one's assumptions are varied."""
    from testbed.fleet.demands import Fit
    from testbed.fleet.parsing import parse_numbers, parse_percent, parse_size, parse_spares
    from testbed.fleet.power import PowerModel, Prices
    from testbed.fleet.simulate import Question, Spares
    from testbed.fleet.study import Extent, study_fleet

    seed, seeds = parse_number("--seed", given["seed"]), parse_number("--seeds", given["seeds"])
    if seed < 0 or not 1 <= seeds <= 1000:
        raise UsageError(f"--seed {seed} --seeds {seeds}", "a seed of 0 or more, and 1 to 1000 draws")
    asked = list(_list_fleets(given, footprints, seed))
    fleets = []
    for number, (name, servers, mix) in enumerate(asked):
        print_progress(f"packing {servers.source}")
        question = Question(
            servers,
            footprints,
            parse_size("--host", given["host"]),
            Fit(
                parse_percent("--headroom", given["headroom"]),
                parse_percent("--overload", given["overload"]),
                parse_fraction("--correlation", given["correlation"]),
            ),
            Spares(*parse_spares("--spare", given["spare"])),
            PowerModel(*parse_numbers("--power", given["power"], 4)),
            Prices(*parse_numbers("--prices", given["prices"], 3)),
            seed,
        )
        extent = Extent(seeds, compaction, number == len(asked) // 2, parse_number("--workers", given["workers"]))
        fleets.append(study_fleet(name, question, extent, mix))
    return fleets


def _list_fleets(
    given: Mapping[str, str], footprints: tuple[Footprint, ...], seed: int
) -> list[tuple[str, Servers, Mix | None]]:
    """Return the fleets that are asked for: a name, the servers, and the mix that they were drawn from, if any."""
    from testbed.fleet.distributions import AZURE_UTILISATION, TALK, draw_servers
    from testbed.fleet.parsing import parse_numbers, parse_size
    from testbed.fleet.traces import read_trace

    size = parse_size("--server", given["server"]) if given["server"] else None
    if given["servers"] not in _KINDS:
        unused = [f"--{name}" for name in ("utilisation", "sizes") if given[name]]
        if unused:
            raise UsageError(f"{', '.join(unused)} with a trace: it has its own servers", "leave it out")
        return [("trace", read_trace(Path(given["servers"]), given["format"], size), None)]
    usual = (AZURE_UTILISATION,) if given["servers"] == "azure" else TALK
    wanted = (
        [one / 100 for one in parse_numbers("--utilisation", given["utilisation"])] if given["utilisation"] else usual
    )
    count = parse_number("--count", given["count"])
    mixes = [_make_mix(given, one, size, footprints) for one in wanted]
    return [(f"{mix.utilisation:.3g}", draw_servers(mix, count, seed), mix) for mix in mixes]


def _make_mix(
    given: Mapping[str, str], utilisation: float, size: Host | None, footprints: tuple[Footprint, ...]
) -> Mix:
    from msgspec.structs import replace

    from testbed.fleet.distributions import application_mix, azure_mix, talk_mix
    from testbed.fleet.hosting import find_base
    from testbed.fleet.parsing import parse_percent, parse_sizes

    if given["servers"] == "azure":
        mix = azure_mix(utilisation)
    elif given["servers"] == "application":
        memory = find_base(footprints).memory_further.value
        mix = application_mix(utilisation, memory, **({"cores": size.cores} if size else {}))
    else:
        mix = talk_mix(utilisation, **({"cores": size.cores, "memory_bytes": size.memory_bytes} if size else {}))
    changes: dict[str, Any] = {"sizes": parse_sizes("--sizes", given["sizes"])} if given["sizes"] else {}
    return replace(
        mix,
        zombies=parse_percent("--zombies", given["zombies"]),
        peak_to_mean=parse_fraction("--peak-to-mean", given["peak_to_mean"]),
        **changes,
    )

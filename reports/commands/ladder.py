"""The task that runs both histories, attacks each rung and prices it: ladder."""

from __future__ import annotations

from pathlib import Path

from invoke import Context, task

from reports.commands.exits import reporting
from reports.commands.options import RESULTS, ROOT, parse_number, split_words
from runtime.errors import UsageError
from testbed.ladder.model import FILE, PAGE
from testbed.progress import print_progress, show_progress


@task(
    optional=["html"],
    help={
        "rungs": "comma-separated: these rungs (a wrong name lists them; default: all that run here)",
        "platforms": "comma-separated, beside the rungs: crun, podman, vm, peers... attacked and priced as they are",
        "quick": "fewer trials: orders of magnitude only",
        "seed": "decides the order of trials",
        "machine": "where to run it: native (this host) or reference (deterministic, in instruction time; quick)",
        "from": "run nothing: show this run of the ladder again (its folder, or its id in results/)",
        "html": f"also write the page to this file (without one: it is {PAGE} in the run's folder)",
        "json": "print the record as JSON on standard output",
        "out": "where run folders are made (default: results/)",
        "wait": "wait while another run is measured on this host, instead of being refused",
        "share": "measure beside other runs on this host, which disturb each other: to see that something works",
    },
)
@reporting
def ladder(
    context: Context,
    rungs: str = "",
    platforms: str = "",
    quick: bool = False,
    seed: str = "1",
    machine: str = "native",
    from_: str = "",
    html: str | None = None,
    json: bool = False,
    out: str = "",
    wait: bool = False,
    share: bool = False,
) -> int:
    """Run the ladder: each rung of history is attacked from inside and priced. Exit code 3 when one leaks."""
    from reports.ladder.page import render_page
    from reports.ladder.terminal import print_ladder
    from reports.ladder.view import make_view
    from testbed.ladder.store import find_ladder, read_ladder
    from testbed.ladder.study import Wishes, choose_exit_code
    from testbed.machine.choice import choose_ladder
    from testbed.probes.read import read_probes
    from testbed.results import replace_file
    from testbed.rungs.read import read_history

    history = read_history()
    base = Path(out) if out else RESULTS
    if from_:
        if rungs or platforms or quick:
            raise UsageError("--from with --rungs, --platforms or --quick: a run that is over stays as it is")
        path = find_ladder(from_, base)
        record = read_ladder(path)
        code = choose_exit_code(record)
    else:
        number = parse_number("--seed", seed)
        wishes = Wishes(
            base, ROOT / "scenarios", split_words(rungs), split_words(platforms), quick, number, wait, share
        )
        with show_progress() as progress:
            finished = choose_ladder(machine)(wishes, history, progress)
        path, record, code = finished.path, finished.ladder, finished.exit_code
    view = make_view(record, history, read_probes())
    page = render_page(view).encode(errors="replace")
    for file in dict.fromkeys([path / PAGE, *([Path(html)] if isinstance(html, str) and html else [])]):
        replace_file(file, page)
        print_progress(f"page: {file}")
    if json:
        print((path / FILE).read_text(), end="")
    else:
        print_ladder(view)
    return code

"""The tasks that list what there is: scenarios, platforms."""

from __future__ import annotations

import json as json_module

from invoke import Context, task
from msgspec import to_builtins

from reports.commands.exits import reporting
from reports.commands.options import ROOT
from testbed.progress import print_progress


@task(help={"json": "print as JSON on standard output"})
@reporting
def scenarios(context: Context, json: bool = False) -> int:
    """List the scenarios: what each is, its services, and what is measured of it."""
    from reports.commands.listing import describe_scenarios
    from testbed.listing import list_scenarios

    listed = list_scenarios(ROOT / "scenarios")
    print(json_module.dumps(to_builtins(listed), indent=2) if json else describe_scenarios(listed))
    return 0


@task(help={"json": "print as JSON on standard output"})
@reporting
def platforms(context: Context, json: bool = False) -> int:
    """List the platforms: what each is, and whether it can run here or why not."""
    from reports.commands.listing import describe_platforms
    from testbed.listing import list_platforms

    print_progress("looking at this host")
    listed = list_platforms()
    print(json_module.dumps(to_builtins(listed), indent=2) if json else describe_platforms(listed))
    return 0

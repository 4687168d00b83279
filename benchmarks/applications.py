"""What the benchmarks of virtual machines share: platforms that are prepared, in a lab, with a scenario to run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.images.model import Image
from runtime.lease import lease
from testbed.images import build_images
from testbed.lab import Lab
from testbed.measures.context import RunContext
from testbed.platforms import registry
from testbed.platforms.vm import VmPlatform
from testbed.progress import print_progress
from testbed.results import RunFolder
from testbed.scenario.model import load


@contextmanager
def prepared(names: Sequence[str], scenarios: Path, more: Sequence[Image] = ()) -> Iterator[RunContext]:
    """clickme on these platforms, in a lab; the guests can run the images in ``more`` too."""
    name = f"benchmark-{os.getpid()}"
    scenario = load("clickme", scenarios)
    with ExitStack() as undo:
        scratch = undo.enter_context(lease(name))
        images = build_images(scenario, print_progress)
        lab = Lab()
        chosen = {}
        for platform in names:
            chosen[platform] = registry.create(platform, name, scratch, lab)
            undo.callback(chosen[platform].close)
            if isinstance(found := chosen[platform], VmPlatform):
                found.prepare_images([*images.values(), *more])
            else:
                found.prepare(scenario, images)
        undo.enter_context(lab)
        folder = RunFolder.create(scratch, "run", {"run": "run", "scenario": scenario.name})
        yield RunContext(scenario, scenario.settings, images, chosen, lab, folder, 0, lambda line: None)

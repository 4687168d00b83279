"""What the machines' lists of checks ask of a hypervisor that they are booted with: its guests, and their workload."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from runtime.images.model import Image, ImageConfig, Layer
from runtime.lease import lease
from testbed.lab import Lab
from testbed.platforms.protocol import Platform

# The layer of busybox and of the probes' program.
PROGRAMS = "/layers/busybox"
IMAGE = Image("test/programs", "sha256:busybox", ImageConfig(), (Layer("sha256:busybox", Path(PROGRAMS)),))
RUN = "checks"
MIB = 1 << 20
TIMEOUT_S = 60.0
# Answers, and ends when it is told to.
SERVE = """
echo answered > /index.html; busybox mkdir /cgi-bin
echo '#!/bin/sh' > /cgi-bin/end; echo 'echo; echo ending; echo > /end' >> /cgi-bin/end; busybox chmod 755 /cgi-bin/end
busybox httpd -p 80 -h /
while [ ! -e /end ]; do busybox sleep 0.1; done
exit 7"""


class Preparing(Platform, Protocol):
    """A platform that is prepared by its images alone."""

    def prepare_images(self, images: list[Image]) -> None: ...


P = TypeVar("P", bound=Preparing)


@contextmanager
def prepared(kind: Callable[[str, Path, Lab], P]) -> Iterator[tuple[P, Lab, Path]]:
    """The platform of a ``kind``, prepared for guests of busybox, in its lab, with the run's directory."""
    with ExitStack() as undo:
        scratch, lab = undo.enter_context(lease(RUN)), Lab()
        platform = kind(RUN, scratch, lab)
        undo.callback(platform.close)
        platform.prepare_images([IMAGE])
        undo.enter_context(lab)
        yield platform, lab, scratch

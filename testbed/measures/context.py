"""The context of a run that every measure works with: scenario, platforms and run folder."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from msgspec import Struct, field

from runtime.images.model import Image
from runtime.spec import Link
from testbed.host.noise import Watch
from testbed.platforms.protocol import Platform
from testbed.results import RunFolder
from testbed.scenario.model import Scenario, Settings
from testbed.services.specs import Mounts, mount_nothing

# How often a step of a ramp is loaded in all when the generator was late, before the trial is void. A void window says
# nothing of the workload, so one that is not void may take its place.
LOAD_ATTEMPTS = 3


class Addresses(Protocol):
    """Where instances get their interfaces from: the lab."""

    def link(self, application: int, service: int) -> Link:
        """Return the interface of a service of a copy of the application, both counted from 0."""

    @property
    def host_path(self) -> str:
        """The host's network namespace, for services that are to be in it; empty where the caller's stands for it."""

    def open_socket(self, on_host: bool = False) -> socket.socket:
        """Return a socket for TCP in the caller's network or, ``on_host``, in that of services in the host's."""


class Logs(Protocol):
    """Where what instances write goes: a run folder, for one."""

    def log_path(self, instance: str) -> Path:
        """Return the file for what an instance writes."""


class Surroundings(Protocol):
    """What a copy of the application needs around it, in a run or outside of one. As in ``RunContext``."""

    @property
    def scenario(self) -> Scenario: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def images(self) -> Mapping[str, Image]: ...
    @property
    def addresses(self) -> Addresses: ...
    @property
    def folder(self) -> Logs: ...
    @property
    def watch(self) -> Watch: ...
    @property
    def mounts(self) -> Callable[[str], AbstractContextManager[Mounts]]: ...
    @property
    def meet(self) -> Callable[[], None]: ...


class RunContext(Struct, frozen=True):
    """One run: ``images`` by service, ``platforms`` by name, ``progress`` tells a person what happens, ``watch`` sees
    what disturbs its trials. ``meet`` waits until what runs beside a trial has got to the same point. ``mounts`` gives
    what a copy's services see of the host, by its label, as long as it is there."""

    scenario: Scenario
    settings: Settings
    images: Mapping[str, Image]
    platforms: Mapping[str, Platform]
    addresses: Addresses
    folder: RunFolder
    seed: int
    progress: Callable[[str], None]
    watch: Watch = field(default_factory=Watch)
    meet: Callable[[], None] = lambda: None
    mounts: Callable[[str], AbstractContextManager[Mounts]] = mount_nothing

    def rate_seed(self, block: int, rate_per_s: float) -> int:
        """Return the seed of the arrivals of one of the settings' rates, whatever their order in the block is."""
        return self.arrival_seed(block, self.settings.load.rates_per_s.index(rate_per_s))

    def arrival_seed(self, block: int, index: int) -> int:
        """Return the seed of a load's arrivals: the platform has no part in it, so all get the same load in a block."""
        return (self.seed * 1_000_003 + block) * 1_009 + index

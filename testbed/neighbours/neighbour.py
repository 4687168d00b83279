"""One neighbour: started calm, turned bad, asked what it has done, and ended. It is an instance of its own on the
application's platform, or a container in the application's machine."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from runtime.errors import WorkloadError
from runtime.images.merging import directories
from runtime.images.model import Image
from runtime.images.process import image_process
from runtime.spec import Link, Resources, Spec
from testbed.interruption import defer_signals
from testbed.neighbours.cases import OWN_TASKS, Ceiling, choose_own_bytes
from testbed.platforms.protocol import Hosting, Instance, Platform
from testbed.services.exchange import NoAnswer, fetch

SERVICE = "neighbour"
# What it is called among the containers of somebody's machine: no service has a name with this sign.
TENANT_NAME = "@neighbour"
PORT = 7077
# It ends so long after its start, however long its own is taken to be ready.
_LIFE_S = 300.0
_MOST_LIFE_S = 3600.0
_ANSWER_S = 5.0
# It shares its processor time with all its workers when it is asked what it has done.
_STATE_S = 30.0
_PAUSE_S = 0.05
_STATE = re.compile(rb"work=([0-9]{1,18}) refused=([0-9]{1,18}) killed=([0-9]{1,18})\n")


class State(Struct, frozen=True):
    """What a neighbour has done: units of its kind, what the kernel refused it, and workers of it that were killed."""

    work: int
    refused: int
    killed: int


def make_command(kind: str, seconds: float, ceiling: Ceiling, link: Link) -> tuple[str, ...]:
    """Return the program's arguments. Its packages go to the lab's gateway, the bridge, and no further."""
    life_s = min(round(seconds), _MOST_LIFE_S)
    gateway = link.address.network.network_address + 1
    numbers = (PORT, life_s, choose_own_bytes(kind, ceiling), OWN_TASKS)
    return (kind, *(f"{number:.0f}" for number in numbers), str(gateway))


def make_spec(kind: str, image: Image, resources: Resources, ceiling: Ceiling, link: Link, window_s: float) -> Spec:
    """Return the container, or the machine, of a neighbour that will be bad for ``window_s``."""
    command = make_command(kind, _LIFE_S + window_s, ceiling, link)
    process = image_process(image, command=command, environment={})
    return Spec(process, directories(image.layers), SERVICE, resources=resources, link=link)


def make_instance(label: str, spec: Spec, log: Path) -> Instance:
    """Return what to start for a neighbour that is an instance of its own."""
    return Instance(label, 1, {SERVICE: spec}, log)


def parse_state(body: bytes) -> State | None:
    """Return what a neighbour answered; None for anything else, which may come from a guest that is at its end."""
    found = _STATE.fullmatch(body)
    return State(*map(int, found.groups())) if found else None


class Control(ABC):
    """How a neighbour is told over HTTP what to do, and asked what it has done: calm until ``go``."""

    def __init__(self, name: str, spec: Spec, log: Path) -> None:
        assert spec.link is not None
        self._address = str(spec.link.address.ip)
        self._name = name
        self._log = log

    @abstractmethod
    def find_end(self) -> str:
        """Return why it is not there any more: it may have been killed, or have brought its guest down. Empty when it
        is."""

    @property
    def alive(self) -> bool:
        """Whether it is still there."""
        try:
            return not self.find_end()
        except WorkloadError:
            return False

    def wait(self, timeout_s: float) -> None:
        """Wait until it answers. Raises WorkloadError when it does not in time."""
        deadline_s = time.monotonic() + timeout_s
        while (problem := self._ask("/")[1]) and time.monotonic() < deadline_s:
            if end := self.find_end():
                problem = f"it has ended: {end}"
                break
            time.sleep(_PAUSE_S)
        if problem:
            raise WorkloadError(f"neighbour {self._name} does not answer: {problem}", self._quote())

    def go(self) -> None:
        """Turn it bad. Raises WorkloadError when it does not take the word."""
        _, problem = self._ask("/go")
        if problem:
            raise WorkloadError(f"neighbour {self._name} was told to go: {problem}", self._quote())

    def read_state(self) -> State | None:
        """Return what it has done; None when it does not say, because it has ended or is too busy."""
        body, problem = self._ask("/state", _STATE_S)
        return None if problem else parse_state(body)

    def end(self, timeout_s: float) -> bool:
        """Have it end, and return whether it has within that time: it may be too busy to listen."""
        deadline_s = time.monotonic() + timeout_s
        while self.alive and time.monotonic() < deadline_s:
            self._ask("/end")
            time.sleep(_PAUSE_S)
        return not self.alive

    def _ask(self, path: str, timeout_s: float = _ANSWER_S) -> tuple[bytes, str]:
        """Return the answer's body, and what is wrong with it, if anything is."""
        try:
            exchange = fetch(self._address, PORT, path, timeout_s)
        except NoAnswer as error:
            return b"", str(error)
        return exchange.body, "" if exchange.status == 200 else f"status {exchange.status}"

    def _quote(self) -> str:
        return f"its console: {self._log}"


class Neighbour(Control):
    """A neighbour that is an instance of its own, and a context manager: within it the neighbour is there.

    Raises WorkloadError when it does not answer within ``timeout_s`` of its start.
    """

    def __init__(self, platform: Platform, instance: Instance, timeout_s: float) -> None:
        super().__init__(instance.name, instance.spec, instance.log)
        self._platform = platform
        self._timeout_s = timeout_s
        self._undo = ExitStack()
        self.instance = instance

    def __enter__(self) -> Neighbour:
        with ExitStack() as undo:
            undo.callback(self._platform.stop, self.instance)
            with defer_signals():
                self._platform.start(self.instance)
            self._platform.started(self.instance, self._timeout_s)
            self.wait(self._timeout_s)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def find_end(self) -> str:
        if self._platform.alive(self.instance):
            return ""
        return self._platform.ending(self.instance) or "nobody knows how"


class Tenant(Control):
    """A neighbour that is a container in the machine of a running application, its ``instance``."""

    def __init__(self, platform: Platform, instance: Instance) -> None:
        assert isinstance(platform, Hosting) and instance.tenants is not None
        super().__init__(f"{TENANT_NAME} in {instance.name}", instance.tenants.specs[TENANT_NAME], instance.log)
        self._platform, self._hosting = platform, platform
        self._instance = instance

    def find_end(self) -> str:
        if (status := self._hosting.tenant_status(self._instance, TENANT_NAME)) is not None:
            return f"exit status {status}"
        if self._platform.alive(self._instance):
            return ""
        return f"its machine has: {self._platform.ending(self._instance) or 'nobody knows how'}"

"""The state of a build after each instruction, as data, and the key by which a step is cached."""

from __future__ import annotations

import hashlib
import json
import re
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from runtime.builder import words
from runtime.config.default import DEFAULT_PATH
from runtime.images.model import History, Image, ImageConfig, Layer

# Increased when the same step would make another layer than before.
FORMAT = 3
# A quarter of the stack's usual limit of 8 MiB: execve(2) does not take more arguments and variables.
MOST_PAIRS_BYTES = 2 * 2**20
MOST_PATH = 4096  # PATH_MAX
# Each step's key has all of them.
MOST_LAYERS = 2000
DEFAULT_SHELL = ("/bin/sh", "-c")


class Pairs(dict[str, str]):
    """Names and values of one kind, whose total size is bounded: the kernel executes nothing with more."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(pairs)
        self.size = sum(_size(name, value) for name, value in self.items())

    def put(self, name: str, value: str) -> None:
        """Set a value. Raises ValueError for an invalid name, and if the total size becomes too large."""
        if not name or "=" in name:
            raise ValueError(f"{name!r} is no name: it is empty, or has an equals sign")
        size = _size(name, value)
        if size > words.LONGEST:
            raise ValueError(f"{name[:40]} is longer than {words.LONGEST} bytes: the kernel executes nothing with such")
        self.size += size - (_size(name, self[name]) if name in self else 0)
        if self.size > MOST_PAIRS_BYTES:
            raise ValueError(f"names and values are longer than {MOST_PAIRS_BYTES} bytes together")
        self[name] = value


def _size(name: str, value: str) -> int:
    return len(f"{name}={value}\0".encode("utf-8", "surrogateescape"))


# The first and the last port, and the protocol.
PortRange: TypeAlias = tuple[int, int, str]
_PORT = re.compile(r"(?:[^:/\s]*:)*([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([a-zA-Z]+))?")
_PROTOCOLS = ("tcp", "udp", "sctp")


def parse_port(text: str) -> PortRange:
    """Return the ports of ``80``, ``80/udp`` or ``8000-8010``; before a colon may be what the host is to have, too.

    Raises ValueError for another text.
    """
    match = _PORT.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    protocol = ((match and match[3]) or "tcp").lower()
    if not 0 < first <= last < 65536 or protocol not in _PROTOCOLS:
        raise ValueError(f"{text[:40]!r} is not a port from 1 to 65535, nor such as 53/udp or 8000-8010")
    return first, last, protocol


def _image_ports(texts: Iterable[str]) -> Iterator[PortRange]:
    """Yield the ports of an image; what is none, as an image from elsewhere may have it, is left out."""
    for text in texts:
        with suppress(ValueError):
            yield parse_port(text)


def single_ports(ranges: Iterable[PortRange]) -> tuple[str, ...]:
    """Return the ports of all ranges, each once, as an image's configuration has them: ``80/tcp``, sorted."""
    ports: set[str] = set()
    covered: dict[str, int] = {}
    for first, last, protocol in sorted(ranges):  # so that what those before have covered is skipped
        begin = max(first, covered.get(protocol, 0) + 1)
        ports.update(f"{number}/{protocol}" for number in range(begin, last + 1))
        covered[protocol] = max(last, covered.get(protocol, 0))
    return tuple(sorted(ports))


class Stage(Struct, frozen=True):
    """The image so far. ``arguments`` are the values of ARG; ``own_command`` is true if CMD came from this stage.

    ``env``, ``labels``, ``ports``, ``volumes``, ``on_build``, ``arguments`` and ``history`` grow in place, so that the
    cost of an instruction does not grow with those before it. Other stages begin with copies of them. All else is in
    ``config``.
    """

    config: ImageConfig
    layers: tuple[Layer, ...]
    history: list[History]
    env: Pairs
    labels: Pairs
    ports: set[PortRange]
    arguments: Pairs
    own_command: bool = False
    volumes: set[str] = field(default_factory=set)
    on_build: list[str] = field(default_factory=list)

    @classmethod
    def on(cls, image: Image) -> Stage:
        """Return the stage at the start of a build on ``image``."""
        config = replace(image.config, on_build=())
        env, labels = Pairs(entry.partition("=")[::2] for entry in config.env), Pairs(config.labels)
        ports = set(_image_ports(config.exposed_ports))
        history = list(image.history)
        return cls(config, image.layers, history, env, labels, ports, Pairs(), volumes=set(config.volumes))

    def child(self) -> Stage:
        """Return the stage at the start of one that is FROM this: all of it goes on, but for ONBUILD. The command goes
        until ENTRYPOINT, as that of any image."""
        env, labels, arguments = Pairs(self.env.items()), Pairs(self.labels.items()), Pairs(self.arguments.items())
        history, ports, volumes = list(self.history), set(self.ports), set(self.volumes)
        return Stage(self.config, self.layers, history, env, labels, ports, arguments, volumes=volumes)

    def command(self, words: tuple[str, ...], exec_form: bool) -> tuple[str, ...]:
        """Return the arguments to execute: those of the exec form, or the shell's with the text for it."""
        return words if exec_form else (*(self.config.shell or DEFAULT_SHELL), *words)

    @property
    def variables(self) -> Mapping[str, str]:
        """Return the values of ``$NAME`` here: those of ARG, overridden by those of ENV."""
        return ChainMap(self.env, self.arguments)

    @property
    def run_environment(self) -> dict[str, str]:
        """Return the variables of a RUN, from ARG and ENV, that determine what it does."""
        return {"PATH": DEFAULT_PATH, **self.variables}

    @property
    def finished_config(self) -> ImageConfig:
        """Return the image's configuration, including all that has been collected."""
        env = tuple(f"{name}={value}" for name, value in self.env.items())
        return replace(
            self.config,
            env=env,
            labels=tuple(sorted(self.labels.items())),
            exposed_ports=single_ports(self.ports),
            volumes=tuple(sorted(self.volumes)),
            on_build=tuple(self.on_build),
        )

    def with_layer(self, layer: Layer, created_by: str) -> Stage:
        """Return this stage with a layer on top. Raises ValueError above MOST_LAYERS."""
        if len(self.layers) >= MOST_LAYERS:
            raise ValueError(f"more than {MOST_LAYERS} layers: join instructions")
        self.history.append(History(created_by, False))
        return replace(self, layers=(*self.layers, layer))

    def with_config(self, config: ImageConfig, created_by: str) -> Stage:
        """Return this stage with another configuration and no new layer."""
        self.history.append(History(created_by, True))
        return replace(self, config=config)

    def absolute(self, path: str) -> str:
        """Return ``path`` relative to the working directory as an absolute path, normalised without following links.

        Raises ValueError if it is longer than the kernel takes.
        """
        if len(path) >= MOST_PATH:
            raise ValueError(f"{path[:40]}... is a path of more than {MOST_PATH - 1} characters")
        parts: list[str] = []
        for part in PurePosixPath("/", self.config.working_dir, path).parts[1:]:
            if part == "..":
                del parts[-1:]
            else:
                parts.append(part)
        return "/" + "/".join(parts)


def cache_key(layers: Sequence[Layer], kind: str, *inputs: object) -> str:
    """Return the key of a step on ``layers``: the sha256 of them, the instruction and all its inputs (as JSON)."""
    document = [FORMAT, [layer.diff_id for layer in layers], kind, inputs]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

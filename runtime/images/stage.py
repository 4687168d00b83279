"""Where a build stands after each instruction, as data; and the key by which a step is found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import PurePosixPath

from msgspec import Struct
from msgspec.structs import replace

from runtime.images.model import History, Image, ImageConfig, Layer

# Counts up when the same step would make another layer than before.
FORMAT = 2


class Stage(Struct, frozen=True):
    """The image so far. ``arguments`` are the values of ARG, ``own_command`` says CMD came from this file."""

    config: ImageConfig
    layers: tuple[Layer, ...]
    history: tuple[History, ...]
    arguments: tuple[tuple[str, str], ...] = ()
    own_command: bool = False

    @classmethod
    def on(cls, image: Image) -> Stage:
        """The start of a build on ``image``."""
        return cls(image.config, image.layers, image.history)

    @property
    def variables(self) -> dict[str, str]:
        """What ``$NAME`` means here: ARG's values, and over them ENV's."""
        return dict(self.arguments) | dict(entry.partition("=")[::2] for entry in self.config.env)

    def with_layer(self, layer: Layer, created_by: str) -> Stage:
        """This stage with a layer on top."""
        history = (*self.history, History(created_by, False))
        return replace(self, layers=(*self.layers, layer), history=history)

    def with_config(self, config: ImageConfig, created_by: str) -> Stage:
        """This stage with another configuration and no new layer."""
        return replace(self, config=config, history=(*self.history, History(created_by, True)))

    def absolute(self, path: str) -> str:
        """``path`` as seen from the working directory, normalised without following links."""
        parts: list[str] = []
        for part in (PurePosixPath(self.config.working_dir) / path).parts[1:]:
            parts = parts[:-1] if part == ".." else [*parts, part]
        return "/" + "/".join(parts)


def cache_key(layers: Sequence[Layer], kind: str, *inputs: object) -> str:
    """The key of a step on top of ``layers``: sha256 over them, the instruction and all its inputs (as JSON)."""
    document = [FORMAT, [layer.diff_id for layer in layers], kind, inputs]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

"""Run a container on a writable root, whose changes stay in it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from runtime import container
from runtime.errors import UsageError
from runtime.images.model import Layer
from runtime.images.process import image_process
from runtime.lease import lease
from runtime.roots import mount_points
from runtime.roots.model import Root
from runtime.roots.pausing import cgroup_of, lease_of, made_freezable
from runtime.roots.store import RootStore
from runtime.spec import CALLERS_NETWORK, Process, Spec
from runtime.unionfs.usage import is_in_use


def run(store: RootStore, name: str, command: Sequence[str], host_network: bool = False, stdout: int = 1) -> int:
    """Run a command, or what the root's image runs, on a root, with this process's standard input; return its exit
    status (128 + n for signal n).

    Raises UsageError while something else writes to the root, and what ``container.start`` raises.
    """
    with ExitStack() as undo:
        with store.held() as roots:  # until it writes to its layer, nobody else may take that for unused
            root = roots.get(name)
            if is_in_use(store.upper(root)):
                raise UsageError(f"root {name}: something writes to it", "end its containers, or run on a clone of it")
            layers = store.layers(root)
            spec = Spec(
                _process(store, root, layers, command),
                layers,
                name[:64],
                shared=CALLERS_NETWORK if host_network else (),
            )
            undo.enter_context(lease(lease_of(root)))
            undo.enter_context(made_freezable(root))
            undo.callback(mount_points.remove_from, store.upper(root), layers)
            running = container.start(
                spec, name=cgroup_of(root), stdin=0, stdout=stdout, writable=store.writable(root), freezable=True
            )
            undo.callback(running.delete)
        status = running.wait()
    assert status is not None  # waited without a limit
    return status


def _process(store: RootStore, root: Root, layers: tuple[str, ...], command: Sequence[str]) -> Process:
    """Return what is run, as a user whom the root itself knows."""
    whole = tuple(Layer("", Path(path)) for path in (*layers, store.upper(root)))
    image = replace(store.image(root), layers=whole)
    if command:
        return image_process(image, command=(), entrypoint=tuple(command), environment={})
    return image_process(image, environment={})

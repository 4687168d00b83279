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
from runtime.images.running import remove_mount_points
from runtime.lease import lease
from runtime.roots.model import Root
from runtime.roots.pausing import cgroup_of, lease_of, made_freezable
from runtime.roots.store import RootStore
from runtime.spec import Spec
from runtime.unionfs.usage import is_in_use

# What the runtime binds over the image's files (runtime.plan.root.identity_files).
_BOUND_FILES = ("etc/hostname", "etc/hosts")


def run(store: RootStore, root: Root, command: Sequence[str], host_network: bool = False, stdout: int = 1) -> int:
    """Run a command, or what the root's image runs, on a root, with this process's standard input; return its exit
    status (128 + n for signal n).

    Raises UsageError while something else writes to the root, and what ``container.start`` raises.
    """
    if is_in_use(store.upper(root)):
        raise UsageError(f"root {root.name}: something writes to it", "end its containers, or run on a clone of it")
    below = tuple(Layer("", Path(path)) for path in store.layers(root))
    image = replace(store.image(root), layers=(*below, Layer("", Path(store.upper(root)))))
    process = (
        image_process(image, command=(), entrypoint=tuple(command), environment={})
        if command
        else (image_process(image, environment={}))
    )
    spec = Spec(process, tuple(str(layer.path) for layer in below), root.name[:64], host_network=host_network)
    with ExitStack() as undo:
        undo.enter_context(lease(lease_of(root)))
        undo.enter_context(made_freezable(root))
        undo.callback(remove_mount_points, Path(store.upper(root)), below, _BOUND_FILES)
        running = container.start(
            spec, name=cgroup_of(root), stdin=0, stdout=stdout, writable=store.writable(root), freezable=True
        )
        undo.callback(running.delete)
        status = running.wait()
    assert status is not None  # waited without a limit
    return status

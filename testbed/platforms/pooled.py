"""Containers that wait in a pool: all steps of their plan are done but the last, which executes the command.

Cgroup, namespaces, mounts and network are there beforehand, and a container that has served is never used again. What
one takes while it waits is charged to its own cgroup.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from runtime import container
from runtime.container import PooledContainer
from runtime.errors import TestbedError
from runtime.plan.network import Attachment
from testbed.lab import Lab
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.protocol import Filled, Instance, Started


class PooledPlatform(ContainerPlatform):
    """Containers whose start is their last step. ``fill`` makes them, and finds those that ended while they waited."""

    name = "container-pooled"
    label = "container (pooled)"

    def __init__(self, run_id: str, lab: Lab) -> None:
        super().__init__(run_id, lab)
        self._waiting: dict[str, PooledContainer] = {}

    def facts(self) -> Mapping[str, object]:
        start = "the last step of a plan, the exec, of containers that were made before and serve once"
        return {**super().facts(), "start": start, "start_memory": "charged to its own cgroup while one waits"}

    def fill(self, instance: Instance) -> Filled:
        replaced = 0
        waiting = self._waiting.get(instance.name)
        if waiting is not None and waiting.exit_status() is not None:
            self.stop(instance)
            waiting, replaced = None, 1
        if waiting is None:
            waiting = self._waiting[instance.name] = self._with_output(instance, self._pool)
        return Filled(waiting.pooled_ns - waiting.requested_ns, waiting.cgroup.memory_bytes(), replaced)

    def _pool(self, instance: Instance, stdout: int, attachment: Attachment) -> PooledContainer:
        return container.pool(instance.spec, name=self._cgroup_name(instance), stdout=stdout, attachment=attachment)

    def start(self, instance: Instance) -> None:
        """Let the instance that waits execute its command. Raises WorkloadError when it ended while it waited."""
        waiting = self._waiting.pop(instance.name, None)
        if waiting is None:
            raise TestbedError(
                f"start pooled container {instance.name}: none waits in the pool for it", "fill it first"
            )
        with ExitStack() as undo:
            undo.callback(self._output.end, instance.name)
            self._running[instance.name] = waiting.start()
            undo.pop_all()

    def started(self, instance: Instance, timeout_s: float) -> Started:
        """Return the phases; the instance was created before it was requested."""
        running = self._running[instance.name]
        requested_ns = running.requested_ns
        return Started({"request": requested_ns, "created": requested_ns, "first_process": running.process.executed_ns})

    def stop(self, instance: Instance) -> None:
        waiting = self._waiting.pop(instance.name, None)
        if waiting is not None:
            with ExitStack() as undo:
                undo.callback(self._output.end, instance.name)
                waiting.delete()
        super().stop(instance)

    def close(self) -> None:
        with ExitStack() as undo:
            undo.callback(super().close)
            while self._waiting:
                undo.callback(self._waiting.popitem()[1].delete)

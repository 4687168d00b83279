"""Containers that do not start their command: each is a copy of one that was started, warmed up and saved by CRIU.

As with restored machines (testbed.platforms.restored): when the platform is prepared, every service is started once, in
a lab of its own, until its port is open and it is idle; nobody has asked it anything yet, so it holds no connection.
Then it is saved. A start restores it into a cgroup, namespaces and a root of its own. The saved ones belong to the run.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from runtime import checkpoint
from runtime.checkpoint import Criu, Restoring
from runtime.errors import UsageError, WorkloadError
from runtime.images.model import Image
from runtime.lease import cgroup_name
from runtime.plan.checkpoint import Saved
from runtime.plan.network import Attachment
from runtime.spec import Spec
from testbed.lab import Lab
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.protocol import Instance, Started
from testbed.platforms.restored import Warmed, await_idle
from testbed.scenario.model import Scenario
from testbed.services.probe import NotReady, Question, ask
from testbed.services.specs import make_specs

_WARM_TIMEOUT_S = 60.0


def _essence(spec: Spec) -> tuple[Spec, bool]:
    """Return what a copy cannot change: all but its addresses, and whether it has a network card."""
    return replace(spec, hosts=(), link=None), spec.link is not None


class RestoredContainerPlatform(ContainerPlatform):
    """Copies of saved containers. The saved ones are stored below the run's scratch directory and go with it."""

    name = "container-restored"

    def __init__(self, run_id: str, lab: Lab, scratch: Path) -> None:
        super().__init__(run_id, lab)
        self._scratch = scratch
        self._criu = Criu("", "")
        self._saved: dict[tuple[Spec, bool], Saved] = {}
        self._restoring: dict[str, Restoring] = {}
        self._phases: dict[str, Mapping[str, int]] = {}
        self._prepared_s = 0.0
        self._lost: tuple[str, ...] = ()

    @property
    def label(self) -> str:  # type: ignore[override]
        without = f", without {' and '.join(self._lost)}" if self._lost else ""
        return f"container (restored by CRIU{without})"

    def facts(self) -> Mapping[str, object]:
        files = [file for saved in self._saved.values() for file in Path(saved.images).iterdir()]
        return {
            **super().facts(),
            "start": "copies of a saved container: CRIU makes its processes again, in their own cgroup and namespaces",
            "start_memory": "every page of a copy is its own and charged to it, and so is what CRIU takes meanwhile",
            "criu": self._criu.version,
            "confinement_lost": list(self._lost),
            "saved_containers": len(self._saved),
            "saved_bytes": sum(file.stat().st_size for file in files),
            "saved_within_s": round(self._prepared_s, 3),
        }

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Find out whether CRIU works here, then start and save one container of each service."""
        super().prepare(scenario, images)
        with Lab() as lab:
            links = [lab.link(0, index) for index in range(len(scenario.services))]
            services = zip(scenario.services, make_specs(scenario, images, links), strict=True)
            self.save({service.name: Warmed(spec, service.ports) for service, spec in services}, lab)

    def save(self, warmed: Mapping[str, Warmed], lab: Lab) -> None:
        """Start, warm and save what starts will be copies of, by service, in a lab that has been entered.

        Raises PrerequisiteError when CRIU does not work here, WorkloadError when a service does not get warm or cannot
        be saved.
        """
        began_s = time.monotonic()
        folder = self._scratch / self.name
        folder.mkdir()
        self._criu = checkpoint.find_criu()
        (folder / "probe").mkdir()
        self._lost = checkpoint.probe(self._criu, cgroup_name(self._run_id, "criu-probe"), folder / "probe")
        with ExitStack() as undo:
            started = []
            for service, one in warmed.items():
                (folder / service).mkdir()
                name = f"saved-{service}"
                instance = Instance(name, 0, {service: one.spec}, folder / f"{name}.log")
                stdout = self._output.open(instance)
                undo.callback(self._output.end, name)
                try:
                    original = checkpoint.start_original(
                        one.spec,
                        name=self._cgroup_name(instance),
                        stdout=stdout,
                        folder=folder / service,
                        attachment=lab.attach() if one.spec.link else None,
                    )
                finally:
                    os.close(stdout)
                undo.callback(original.container.delete)
                started.append((instance, original, one.ports))
            for instance, original, ports in started:
                self._warm(instance, original, ports)
            for instance, original, _ in started:
                self._saved[_essence(instance.spec)] = checkpoint.save(original, self._criu)
        self._prepared_s = time.monotonic() - began_s

    def _warm(self, instance: Instance, original: checkpoint.Original, ports: tuple[int, ...]) -> None:
        """Wait until a container that is to be saved listens on its ports and is idle."""
        link = instance.spec.link
        asked = [Question(instance.name, str(link.address.ip), port) for port in ports] if link else []

        def watch() -> None:
            if (status := original.container.wait(0)) is not None:
                self._output.flush(instance.name)
                raise WorkloadError(f"save {instance.name}: it ended, exit status {status}", f"see {instance.log}")

        try:
            ask(
                asked,
                requested_ns=time.monotonic_ns(),
                timeout_s=_WARM_TIMEOUT_S,
                may_ask=lambda name: True,
                watch=watch,
            )
        except NotReady as error:
            raise WorkloadError(f"save {instance.name}: {error}", f"see {instance.log}") from error
        await_idle(original.container.cgroup, _WARM_TIMEOUT_S)
        watch()

    def start(self, instance: Instance) -> None:
        """Begin to restore a copy; ``started`` waits for it."""
        if _essence(instance.spec) not in self._saved:
            raise UsageError(f"start container {instance.name}: none that it could be a copy of was saved")
        self._restoring[instance.name] = self._with_output(instance, self._restore)

    def _restore(self, instance: Instance, stdout: int, attachment: Attachment) -> Restoring:
        work = self._scratch / self.name / instance.name
        work.mkdir()
        return checkpoint.restore(
            instance.spec,
            self._saved[_essence(instance.spec)],
            self._criu,
            name=self._cgroup_name(instance),
            stdout=stdout,
            work=work,
            attachment=attachment if instance.spec.link else None,
        )

    def started(self, instance: Instance, timeout_s: float) -> Started:
        """Return the phases, as soon as CRIU has restored the copy."""
        restoring = self._restoring.get(instance.name)
        if restoring is not None:
            running = restoring.finish(timeout_s)
            self._phases[instance.name] = {
                "request": running.requested_ns,
                "created": restoring.created_ns,
                "first_process": running.process.executed_ns,
            }
            self._running[instance.name] = running
            self._restoring.pop(instance.name, None)
        return Started(self._phases[instance.name])

    def alive(self, instance: Instance) -> bool:
        return instance.name in self._restoring or super().alive(instance)

    def stop(self, instance: Instance) -> None:
        restoring = self._restoring.pop(instance.name, None)
        if restoring is not None:
            with ExitStack() as undo:
                undo.callback(self._output.end, instance.name)
                restoring.delete()
        super().stop(instance)
        self._phases.pop(instance.name, None)
        shutil.rmtree(self._scratch / self.name / instance.name, ignore_errors=True)

    def close(self) -> None:
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, self._scratch / self.name, ignore_errors=True)
            undo.callback(super().close)
            while self._restoring:
                undo.callback(self._restoring.popitem()[1].delete)

"""Plans of further programs in guests: which namespaces they enter."""

from __future__ import annotations

import pytest

from runtime.plan.constants import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID
from runtime.plan.steps import JoinProcess
from runtime.spec import Process, Spec
from vm_images.plans.command import container_command_plan, pod_command_plan

COMMAND = Process(("true",))
OF_OTHERS = (("network", "web"), ("pid", "web"), ("ipc", "web"))


@pytest.mark.parametrize("shared", [(), OF_OTHERS])
def test_a_program_enters_all_namespaces_of_a_container_those_that_it_shares_too(
    shared: tuple[tuple[str, str], ...],
) -> None:
    spec = Spec(COMMAND, ("/layer",), "side", shared=shared)
    every = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWNET
    (joined,) = [
        step for step in container_command_plan(spec, COMMAND, "side", 1).parent if isinstance(step, JoinProcess)
    ]
    assert joined.flags & every == every
    (of_pod,) = [step for step in pod_command_plan(spec, COMMAND, "side", 1).parent if isinstance(step, JoinProcess)]
    assert of_pod.flags & every == every & ~CLONE_NEWNET, "the network is the machine's"

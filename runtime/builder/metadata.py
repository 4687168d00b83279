"""Execute the instructions that change an image's configuration and none of its files."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

from msgspec.structs import replace

from runtime.builder.forms import healthcheck_of
from runtime.builder.instruction import Instruction
from runtime.builder.stage import Stage, parse_port
from runtime.builder.steps import Steps, argument_values
from runtime.images.model import ImageConfig
from runtime.images.user import resolve_user

_SIGNALS = {one.name for one in signal.Signals} | {one.name.removeprefix("SIG") for one in signal.Signals}
_REAL_TIME = re.compile(r"(?:SIG)?RTM(?:IN(?:\+[0-9]{1,2})?|AX(?:-[0-9]{1,2})?)")


def _expanded(steps: Steps, stage: Stage, instruction: Instruction) -> dict[str, str]:
    """Return an instruction's pairs, whose names and values are expanded with the variables set before it."""

    def value(text: str) -> str:
        return steps.expand(text, stage.variables)

    return {value(name): value(text or "") for name, text in instruction.pairs}


def _with(stage: Stage, instruction: Instruction, config: ImageConfig | None = None) -> Stage:
    return stage.with_config(config or stage.config, str(instruction))


def _env(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    for name, value in _expanded(steps, stage, instruction).items():
        stage.env.put(name, value)
    return _with(stage, instruction)


def _arg(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    build = steps.build
    for pair in instruction.pairs:  # one may use those before it
        one = replace(instruction, pairs=(pair,))
        values = argument_values(one, build.arguments, lambda text: steps.expand(text, stage.variables), build.defaults)
        for name, value in values.items():
            stage.arguments.put(name, value)
    return _with(stage, instruction)


def _label(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    for name, value in _expanded(steps, stage, instruction).items():
        stage.labels.put(name, value)
    return _with(stage, instruction)


def _maintainer(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    """Only history tells: Docker gave MAINTAINER up, in favour of a label."""
    return _with(stage, instruction)


def _user(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    user = steps.expand(instruction.words[0], stage.variables)
    resolve_user(user, stage.layers)  # so that an unknown user is an error now and not at the first start
    return _with(stage, instruction, replace(stage.config, user=user))


def _expose(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    for word in instruction.words:
        for port in steps.expand(word, stage.variables).split():
            stage.ports.add(parse_port(port))
    return _with(stage, instruction)


def _volume(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    paths = [steps.expand(word, stage.variables) for word in instruction.words]
    if not all(paths):
        raise ValueError("a path is empty")
    stage.volumes.update(paths)
    return _with(stage, instruction)


def _stopsignal(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    name = steps.expand(instruction.words[0], stage.variables)
    is_number = re.fullmatch("[0-9]{1,2}", name) and 0 < int(name) <= signal.SIGRTMAX
    if not is_number and name.upper() not in _SIGNALS and not _REAL_TIME.fullmatch(name.upper()):
        raise ValueError(f"{name[:40]!r} is no signal")
    return _with(stage, instruction, replace(stage.config, stop_signal=name))


def _healthcheck(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    return _with(stage, instruction, replace(stage.config, healthcheck=healthcheck_of(instruction)))


def _shell(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    return _with(stage, instruction, replace(stage.config, shell=instruction.words))


def _onbuild(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    stage.on_build.append(instruction.words[0])
    return _with(stage, instruction)


def _cmd(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    config = replace(stage.config, cmd=stage.command(instruction.words, instruction.exec_form))
    return replace(_with(stage, instruction, config), own_command=True)


def _entrypoint(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    # A command inherited from the parent image was meant for the parent's entry point.
    cmd = stage.config.cmd if stage.own_command else ()
    entrypoint = stage.command(instruction.words, instruction.exec_form)
    return _with(stage, instruction, replace(stage.config, entrypoint=entrypoint, cmd=cmd))


METADATA: dict[str, Callable[[Steps, Stage, Instruction], Stage]] = {
    "ARG": _arg,
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
}

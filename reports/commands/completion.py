"""Completion for shells: of tasks, of their options, and of the values that an option takes.

The script asks the program itself, once, when it is made: names of scenarios, platforms, measures and metrics stand in
it, and run ids are looked up in results/ when the key is pressed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.commands.options import RESULTS, ROOT
from runtime.errors import UsageError

# What stands for the ids of runs, which come and go.
_RUNS = ("@runs",)
_SHELLS = ("bash", "zsh", "fish")


def list_values() -> dict[str, tuple[str, ...]]:
    """Return the values of options by their names, and of tasks' words by those of the tasks."""
    from testbed.copies import RULERS
    from testbed.load.shapes import SHAPES
    from testbed.measures.trials import NAMES as MEASURES
    from testbed.platforms.registry import GROUPS
    from testbed.platforms.registry import NAMES as PLATFORMS
    from testbed.rungs.read import read_history
    from testbed.runs.figures import METRICS
    from testbed.scenario.consolidation import PACKINGS
    from testbed.scenario.model import list_scenarios

    scenarios = list_scenarios(ROOT / "scenarios")
    return {
        "--scenario": scenarios,
        "--platforms": (*PLATFORMS, *GROUPS),
        "--platform": PLATFORMS,
        "--rungs": tuple(rung.name for rung in read_history().rungs if rung.runs),
        "--measures": MEASURES,
        "--metrics": METRICS,
        "--machine": ("native", "reference"),
        "--shape": SHAPES,
        "--packing": PACKINGS,
        "--accel": ("auto", "kvm", "tcg", "tcg-single"),
        "--base": ("bookworm", "trixie", "noble"),
        "--format": ("junit", "openmetrics", "bmf", "otava", "csv", "parquet"),
        "--run": _RUNS,
        "--baseline": _RUNS,
        "--resume": _RUNS,
        "--from": _RUNS,
        "--servers": ("talk", "azure", "application"),
        "--ruler": RULERS,
        "bench": scenarios,
        "explain": scenarios,
        "up": scenarios,
        "compare": _RUNS,
        "export": _RUNS,
        "report": _RUNS,
        "bundle": _RUNS,
        "completion": _SHELLS,
    }


def list_options(tasks: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the long options of each task."""
    return {
        name: tuple(f"--{flag}" for argument in one.get_arguments() for flag in argument.names if len(flag) > 1)
        for name, one in tasks.items()
    }


def write_script(shell: str, tasks: Mapping[str, Any]) -> str:
    """Return the script for a shell. Raises UsageError for one that there is none for."""
    writers = {"bash": _write_bash, "zsh": _write_zsh, "fish": _write_fish}
    if shell not in writers:
        raise UsageError(f"completion {shell}: no such shell", f"one of {', '.join(_SHELLS)}")
    return writers[shell](list_options(tasks), list_values())


def _cases(values: Mapping[str, Sequence[str]]) -> str:
    """Return the branches of a ``case`` that tell the values of an option or a task."""
    lines = []
    for name, of in values.items():
        words = f"$({_LIST_RUNS})" if of == _RUNS else " ".join(of)
        lines.append(f'        {name}) words="{words}" ;;')
    return "\n".join(lines)


_LIST_RUNS = f"cd '{RESULTS}' 2>/dev/null && ls -1"


def _write_bash(options: Mapping[str, Sequence[str]], values: Mapping[str, Sequence[str]]) -> str:
    of_tasks = "\n".join(f'        {task}) options="{" ".join(of)}" ;;' for task, of in options.items())
    return f"""# Completion of ./invoke and testbed: eval "$(./invoke completion bash)"
_testbed_values() {{
    words=
    case $1 in
{_cases(values)}
    esac
}}
_testbed() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} task=${{COMP_WORDS[1]}}
    local words options= prefix=
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{" ".join(options)}" -- "$current"))
        return
    fi
    case $task in
{of_tasks}
    esac
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$current"))
        return
    fi
    case $previous in
        --*) _testbed_values "$previous" ;;
        *) _testbed_values "$task" ;;
    esac
    case $current in
        *,*) prefix=${{current%,*}}, ;;
    esac
    COMPREPLY=($(compgen -P "$prefix" -W "$words" -- "${{current##*,}}"))
    [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -o nospace -F _testbed ./invoke invoke testbed 2>/dev/null
"""


def _write_zsh(options: Mapping[str, Sequence[str]], values: Mapping[str, Sequence[str]]) -> str:
    return "autoload -U +X bashcompinit && bashcompinit\n" + _write_bash(options, values)


def _write_fish(options: Mapping[str, Sequence[str]], values: Mapping[str, Sequence[str]]) -> str:
    def words(of: Sequence[str]) -> str:
        return f"({_LIST_RUNS.replace('&&', '; and')})" if of == _RUNS else " ".join(of)

    lines = ["# Completion of ./invoke and testbed: ./invoke completion fish | source"]
    for program in ("invoke", "testbed"):
        lines.append(f"complete -c {program} -f -n __fish_use_subcommand -a '{' '.join(options)}'")
        for task, of in options.items():
            seen = f"-n '__fish_seen_subcommand_from {task}'"
            for option in of:
                taken = f' -x -a "{words(values[option])}"' if option in values else ""
                lines.append(f"complete -c {program} {seen} -l {option.removeprefix('--')}{taken}")
            if task in values:
                lines.append(f'complete -c {program} {seen} -a "{words(values[task])}"')
    return "\n".join([*lines, ""])

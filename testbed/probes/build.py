"""Compiles the probes' program, a static binary, when a source is newer than it is.

python -m testbed.probes.build             compile
python -m testbed.probes.build --analyze   look for faults, as runtime.launcher.build does
"""

from __future__ import annotations

from pathlib import Path

from runtime.launcher.build import StaticProgram, do_as_asked

FOLDER = Path(__file__).resolve().with_name("program")
PROGRAM = StaticProgram(FOLDER, FOLDER / "testbed-probe", Path(__file__))

if __name__ == "__main__":
    do_as_asked(PROGRAM.build, PROGRAM.analyze)

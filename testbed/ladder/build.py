"""Compiles the gauge, a static binary, when a source is newer than it is.

python -m testbed.ladder.build             compile
python -m testbed.ladder.build --analyze   look for faults, as runtime.launcher.build does
"""

from __future__ import annotations

from pathlib import Path

from runtime.launcher.build import StaticProgram, do_as_asked

FOLDER = Path(__file__).resolve().with_name("program")
GAUGE = StaticProgram(FOLDER, FOLDER / "testbed-gauge", Path(__file__))

if __name__ == "__main__":
    do_as_asked(GAUGE.build, GAUGE.analyze)

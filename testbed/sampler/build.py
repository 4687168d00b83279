"""Compiles the program that samples, a static binary, when its source is newer than it is.

python -m testbed.sampler.build             compile
python -m testbed.sampler.build --analyze   look for faults, as runtime.launcher.build does
"""

from __future__ import annotations

from pathlib import Path

from runtime.launcher.build import StaticProgram, do_as_asked

HERE = Path(__file__).resolve().parent
SAMPLER = StaticProgram(HERE, HERE / "testbed-sampler", Path(__file__))

if __name__ == "__main__":
    do_as_asked(SAMPLER.build, SAMPLER.analyze)

"""What the launcher executes where the command line takes an interpreter: ``python -I -S command.py PACKAGES ...``.

Nothing of the caller's environment or directory is imported from, and of the installed packages only those in the
directory PACKAGES. A command is short: nothing is collected, and what it holds at its end is the kernel's to take back.
"""

import gc
import os
import sys

gc.disable()
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(sys.argv.pop(1))


def main() -> int:
    from runtime.cli import main

    try:
        return main()
    except SystemExit as end:  # argparse: its messages are printed
        return end.code if isinstance(end.code, int) else int(end.code is not None)


if __name__ == "__main__":
    status = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # nobody reads any more
        status = status or 1
    os._exit(status)

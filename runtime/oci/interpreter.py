"""Start a planner or a job; the client runs this file as ``python -I -S interpreter.py PACKAGES planner|job ...``.

Nothing is imported from the caller's environment or working directory, and of the installed packages only those in
the directory PACKAGES can be imported.
"""

import gc
import os
import sys

gc.disable()
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
sys.path.append(sys.argv[1])


def main() -> int:
    from runtime.oci import invocation

    invocation.PACKAGES[0] = sys.argv[1]
    if sys.argv[2] == "planner":
        from runtime.oci.planner import main as plan

        return plan(sys.argv[3:])
    from runtime.oci.jobs import main as do

    return do(sys.argv[3:])


if __name__ == "__main__":
    status = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # nobody reads any more
        status = status or 1
    os._exit(status)

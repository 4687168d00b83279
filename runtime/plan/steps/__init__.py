"""Define the vocabulary of plans: one frozen class for each thing the launcher can do (``base`` says how to add one).

A step holds all the arguments of its system call, already decided. ``tolerate`` lists the errnos after which the plan
goes on.

Paths of steps with ``inside`` are resolved as if descriptor ROOT_FD were the root directory (openat2,
RESOLVE_IN_ROOT), so symbolic links of an image cannot lead out of it. What is made or written there is reached without
following a link, or without crossing a mount, so a link cannot lead to /proc/sys or into a volume (EXDEV).
"""

# ruff: noqa: F403
from runtime.plan.steps.base import *
from runtime.plan.steps.base import Step
from runtime.plan.steps.files import *
from runtime.plan.steps.host import *
from runtime.plan.steps.mounts import *
from runtime.plan.steps.privileges import *
from runtime.plan.steps.process import *
from runtime.plan.steps.talk import *

# The launcher knows each operation by its position here, from 1.
OPERATIONS: tuple[type[Step], ...] = tuple(Step.__subclasses__())

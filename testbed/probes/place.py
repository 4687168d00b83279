"""What canaries are made for: the attempt as a whole, and what each instance of it is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from testbed.probes.lines import Trace
from testbed.probes.sight import Seen

# Where a directory of the host's is mounted inside, if the platform has words for that.
VOLUME = "/testbed-shared"


class Untestable(Exception):
    """Why a probe cannot be made here, or nothing could be known of it."""


class Place(Struct, frozen=True):
    """What is attacked: ``lease`` is the run's directory, ``token`` 8 hexadecimal digits in the names of all that
    belongs to the attack; ``host`` is where the host's files are inside ("" for under their own names), ``group`` the
    name of a cgroup beside the instances'. The limits are those of every instance; ``patience`` is
    how many times longer than on an ordinary host things take."""

    lease: Path
    token: str
    gateway: str
    own: str
    hostname: str
    shares: bool
    host: str = ""
    group: str = ""
    memory_bytes: int = 0
    tasks: int = 0
    cpus: float = 0.0
    patience: float = 1.0

    @property
    def folder(self) -> Path:
        """The directory of the files of canaries."""
        return self.lease / f"canaries-{self.token}"

    @property
    def volume(self) -> Path:
        """The directory that the host shares."""
        return self.folder / "shared"

    @property
    def mark(self) -> str:
        """What the names of canaries begin with; a secret follows."""
        return f"testbed-{self.token}-"


class Evidence(Struct, frozen=True):
    """What there is to judge an attempt by: what it was called with, what it said (decides nothing alone), what its
    processes were seen to be (None: none was), the clocks of the host when it was seen to have said so (seconds, by
    number) and for how long nobody had looked before, and the processors that its cgroup used meanwhile."""

    fills: Mapping[str, str]
    trace: Trace
    seen: Seen | None = None
    clocks: Mapping[int, float] = field(default_factory=dict)
    used_processors: float = 0.0
    unseen_s: float = 0.0

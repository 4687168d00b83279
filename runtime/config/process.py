"""The ``process`` object: the program of a container and its user (runtime-spec 1.3, config.md, "Process")."""

from msgspec import field

from runtime.config.decode import Id, Int32, IOLevel, Object, OomScoreAdjustment, Priority, Uint32, Uint64, WindowSize


class User(Object, frozen=True):
    """The numeric identity of a process: ``uid``, ``gid``, the supplementary groups and the file mode mask."""

    uid: Id = 0
    gid: Id = 0
    umask: Uint32 | None = None
    additional_gids: tuple[Id, ...] = ()
    username: str = ""


class Rlimit(Object, frozen=True):
    """A resource limit by its setrlimit(2) name, such as ``RLIMIT_NOFILE``."""

    type: str
    soft: Uint64
    hard: Uint64


class Capabilities(Object, frozen=True):
    """The five sets of capabilities(7), by name."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class ConsoleSize(Object, frozen=True):
    """A terminal's size in characters."""

    height: WindowSize
    width: WindowSize


class Scheduler(Object, frozen=True):
    """Arguments of sched_setattr(2): ``policy`` and ``flags`` are names; ``runtime``, ``deadline`` and ``period`` are
    nanoseconds."""

    policy: str
    nice: Int32 = 0
    priority: Priority = 0
    flags: tuple[str, ...] = ()
    runtime: Uint64 = 0
    deadline: Uint64 = 0
    period: Uint64 = 0


class IOPriority(Object, frozen=True):
    """Arguments of ioprio_set(2): the IOPRIO_CLASS_ name of a class, and a priority from 0 to 7."""

    class_: str = field(name="class")
    priority: IOLevel = 0


class ExecCPUAffinity(Object, frozen=True):
    """The processors of an ``exec``, as lists such as ``0-3,7``: ``initial`` while it joins the container, ``final``
    when it executes the program."""

    initial: str = ""
    final: str = ""


class Process(Object, frozen=True):
    """A program to execute: ``args`` is its argv, ``env`` its ``NAME=value`` strings, ``cwd`` an absolute path."""

    cwd: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: User = User()
    terminal: bool = False
    console_size: ConsoleSize | None = None
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: OomScoreAdjustment | None = None
    scheduler: Scheduler | None = None
    io_priority: IOPriority | None = None
    exec_cpu_affinity: ExecCPUAffinity | None = field(default=None, name="execCPUAffinity")

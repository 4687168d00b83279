"""Plans as text: what a reader sees with ``--explain``, and how an error names a step."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from errno import errorcode

from msgspec.structs import asdict

from runtime.plan import steps as s
from runtime.plan.constants import (
    CAPABILITIES,
    CLONE_FLAGS,
    MEMORY_POLICIES,
    MEMORY_POLICY_FLAGS,
    MOUNT_ATTRIBUTES,
    MOUNT_FLAGS,
    RLIMITS,
)
from runtime.plan.reasons import CLONE_PURPOSE, reason


def flag_names(flags: int, names: Mapping[int, str]) -> str:
    """The set bits by name, unknown ones in hexadecimal, joined with ``|``; ``0`` for none."""
    known = [name for bit, name in names.items() if flags & bit]
    rest = flags & ~sum(bit for bit in names if flags & bit)
    return "|".join([*known, *([hex(rest)] if rest else [])]) or "0"


def capability_names(mask: int) -> str:
    """The capabilities of a mask by name, joined with ``|``; ``none`` for the empty set."""
    return "|".join(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1) or "none"


def _mount(step: s.Mount) -> str:
    kind = f"{step.fstype} " if step.fstype else ""
    source = f"{step.source} " if step.source and step.source != step.fstype else ""
    data = f" ({step.data})" if step.data else ""
    return f"mount {kind}{source}on {step.target} {flag_names(step.flags, MOUNT_FLAGS)}{data}"


def _attributes(added: int, removed: int, propagation: int, recursive: bool) -> str:
    words = [f"+{flag_names(added, MOUNT_ATTRIBUTES)}"] if added else []
    words += [f"-{flag_names(removed, MOUNT_ATTRIBUTES)}"] if removed else []
    words += [flag_names(propagation, MOUNT_FLAGS)] if propagation else []
    return " ".join([*words, *(["AT_RECURSIVE"] if recursive and words else [])])


def _bind(step: s.Bind) -> str:
    tree = f"open_tree {step.source}{' AT_RECURSIVE' if step.recursive else ''}, move_mount"
    words = [f"{f'move_mount descriptor {step.held}' if step.held else tree} to {step.target}"]
    words += [text for text in (_attributes(step.set, step.clear, step.propagation, False),) if text]
    words += [text for text in (_attributes(step.set_all, step.clear_all, 0, True),) if text]
    words += [f"ids as in {step.userns}"] if step.userns else []
    return ", ".join(words)


def _text(data: str, limit: int = 60) -> str:
    return repr(data if len(data) <= limit else f"{data[: limit - 1]}…")


# Steps whose words are their fields' values.
_WORDS: Mapping[type[s.Step], str] = {
    s.Mkdir: "mkdir {path} {mode:04o}",
    s.PivotRoot: "pivot_root {new_root} {put_old}",
    s.Symlink: "symlink {path} -> {target}",
    s.NoNewPrivileges: "prctl PR_SET_NO_NEW_PRIVS",
    s.KeepCapabilities: "prctl PR_SET_KEEPCAPS {keep:d}",
    s.Undumpable: "prctl PR_SET_DUMPABLE 0",
    s.DeathSignal: "prctl PR_SET_PDEATHSIG {number}",
    s.Umask: "umask {mask:04o}",
    s.Personality: "personality {persona:#x}",
    s.SetScheduler: "sched_setattr policy={policy} nice={nice} priority={priority} flags={flags:#x}",
    s.Open: "open {path} as descriptor {fd}",
    s.CloseOnExec: "close_range from {first}: close on exec",
    s.OwnStreams: "fchown the standard streams that are pipes to {uid}",
    s.NetlinkSocket: "open a route netlink socket as descriptor {fd}",
    s.Netlink: "netlink on descriptor {fd}: {what}",
    s.WaitPath: "wait for {path}, at most {timeout_ms} ms",
    s.Answer: "read descriptor {fd}, each time write {path} there",
    s.Terminal: "open dev/pts/ptmx, ioctl TIOCGPTPEER for user {uid}, send the master to the starter",
    s.Sync: "tell the starter: {what}; wait for its word",
    s.AwaitStart: f"accept on descriptor {s.LISTEN_FD}: wait until it is started",
    s.Serve: "perform the plans that come through descriptor {fd}",
    s.HandOver: "send descriptor {fd} to the new process",
    s.Announce: "tell the new process: {what}",
    s.AwaitAnnounced: "wait until the launcher tells: {what}",
    s.Lock: "flock {path} LOCK_EX as descriptor {fd}",
    s.Replace: "write {path} anew, by rename from {temporary}",
    s.Remove: "unlinkat {path}",
    s.Listen: "bind and listen at {path} as descriptor {fd}",
    s.Spawn: "clone3, execveat the launcher from descriptor {launcher}",
    s.Reap: "wait4 {pid}",
    s.Close: "close descriptor {fd}",
    s.SignalProcess: "pidfd_send_signal {number} through descriptor {fd}",
    s.HoldSignals: "rt_sigprocmask SIG_BLOCK all that is to be passed on",
    s.Accompany: "wait4 {pid}, and pass signals on to it",
    s.Admission: "connect to {path} and wait for the word to go on",
}
# Steps that are one system call with one argument, or none.
_CALLS: Mapping[type[s.Step], str] = {
    s.Unmount: "umount",
    s.Chroot: "chroot",
    s.Chdir: "chdir",
    s.SetHostname: "sethostname",
    s.Setsid: "setsid",
    s.LoadModule: "finit_module",
    s.SetDomainname: "setdomainname",
    s.SessionKeyring: "keyctl KEYCTL_JOIN_SESSION_KEYRING",
    s.MaskPath: "mask",
    s.ReadonlyPath: "make read-only",
}


def describe(step: s.Step) -> str:
    """One step in words: the system call, what it acts on, and its arguments."""
    if template := _WORDS.get(type(step)):
        return template.format_map(asdict(step))
    if call := _CALLS.get(type(step)):
        return " ".join([call, *(text.decode() for text in step.strings())]).rstrip()
    return _of_files(step) or _of_privileges(step) or _of_processes(step)


def _of_files(step: s.Step) -> str:
    match step:
        case s.Mount():
            return _mount(step)
        case s.Bind():
            return _bind(step)
        case s.HoldTree():
            words = [f"open_tree {step.source}{' AT_RECURSIVE' if step.recursive else ''}"]
            words += [f"{_attributes(0, 0, step.propagation, True)},"] if step.propagation else []
            return " ".join([*words, f"as descriptor {step.fd}"])
        case s.NewTree():
            return f"fsmount {step.fstype} {flag_names(step.attributes, MOUNT_ATTRIBUTES)} as descriptor {step.fd}"
        case s.MountAttributes():
            return f"mount_setattr {step.path} {_attributes(step.set, step.clear, step.propagation, step.recursive)}"
        case s.Mknod():
            kind = {stat.S_IFBLK: "b", stat.S_IFIFO: "p"}.get(stat.S_IFMT(step.mode), "c")
            return f"mknod {step.path} {kind} {step.major}:{step.minor} {stat.S_IMODE(step.mode):04o}"
        case s.Write():
            return f"write {', '.join(_text(record) for record in step.data)} to {step.path}"
        case s.WriteDescriptor():
            return f"write {_text(step.data.decode(errors='replace'))} to descriptor {step.fd}"
        case s.Message():
            return f"write {_text(step.text)} to the console"
        case _:
            return ""


def _of_privileges(step: s.Step) -> str:
    match step:
        case s.SetUser():
            return f"setgroups {list(step.groups)}, setresgid {step.gid}, setresuid {step.uid}"
        case s.BoundingSet():
            return f"prctl PR_CAPBSET_DROP all but {capability_names(step.mask)}"
        case s.Ambient():
            return f"prctl PR_CAP_AMBIENT {capability_names(step.mask)}"
        case s.Capabilities():
            return f"capset permitted={capability_names(step.permitted)} effective={capability_names(step.effective)}"
        case s.NewUserNamespace():
            maps = f"uids {step.uid_map.strip()!r}, gids {step.gid_map.strip()!r}"
            return f"clone3 CLONE_NEWUSER with {maps}, held as descriptor {step.fd}"
        case s.SeccompFilter():
            return f"seccomp SECCOMP_SET_MODE_FILTER flags={step.flags:#x} {step.what}".rstrip()
        case s.DeviceFilter():
            return f"bpf BPF_PROG_ATTACH {step.what} ({len(step.program) // 8} instructions) to {step.directory}"
        case s.SetRlimit():
            return f"setrlimit {RLIMITS[step.resource]} soft={step.soft} hard={step.hard}"
        case _:
            return ""


def _of_processes(step: s.Step) -> str:
    match step:
        case s.Unshare():
            return f"unshare {flag_names(step.flags, CLONE_FLAGS)}"
        case s.JoinNamespace():
            return f"setns {step.path} {flag_names(step.flag, CLONE_FLAGS)}"
        case s.TakeOver():
            enter = f"setns {flag_names(step.namespace, CLONE_FLAGS)}" if step.namespace else "keep it"
            return f"receive descriptor {step.fd} from the launcher, {enter}"
        case s.Affinity():
            return f"sched_setaffinity {','.join(map(str, step.processors)) or 'all that the cgroup has'}"
        case s.MemoryPolicy():
            modes = [name for name, number in MEMORY_POLICIES.items() if number == step.mode & 0xFFF]
            flags = [name for name, bit in MEMORY_POLICY_FLAGS.items() if bit & step.mode]
            return f"set_mempolicy {'|'.join((*modes, *flags))} nodes={','.join(map(str, step.nodes))}"
        case s.IOPriority():
            return f"ioprio_set class={step.value >> 13} priority={step.value & 0x1FFF}"
        case s.SetClock():
            return f"clock_settime CLOCK_REALTIME to {step.realtime_ns / 1e9:.9f} s since 1970"
        case s.AddEntropy():
            return f"ioctl {step.device} RNDADDENTROPY with {len(step.entropy)} fresh bytes, then RNDRESEEDCRNG"
        case s.Fork():
            own = f" in {flag_names(step.flags, CLONE_FLAGS)}" if step.flags else ""
            return f"clone3{own}: the next {step.count} steps are a process of its own"
        case s.AwaitEnd():
            return f"wait4 for the first of {', '.join(filter(None, step.names))} to end, exit_group with its status"
        case s.LookUp():
            return f"faccessat {step.program} X_OK" + (f" along {step.search}" if step.search else "")
        case s.Home():
            return f"read the home directory of user {step.uid} from etc/passwd"
        case s.Exec():
            return f"execve {step.program or ''}{' as ' if step.program else ''}{' '.join(step.args)}"
        case _:
            raise KeyError(f"no words for {type(step).__name__}")


def explain(plan: s.Plan) -> str:
    """The whole plan, a line a step, under the purposes that they serve, and the clone where the child begins; what the
    launcher does beside the child comes before the child's steps."""
    lines: list[str] = []
    purpose = ""
    for index, step in enumerate(plan.steps()):
        if index == len(plan.parent) and plan.clone_flags:
            into = f" into {plan.into_cgroup}" if plan.into_cgroup else ""
            lines += [f"# {CLONE_PURPOSE}", f"     clone3 {flag_names(plan.clone_flags, CLONE_FLAGS)}{into}"]
            purpose = CLONE_PURPOSE
        if plan.beside and index == len(plan.parent):
            lines.append("# -- Beside it, in the launcher, which may have a processor of its own:")
        if plan.beside and index == len(plan.parent) + len(plan.beside):
            lines.append("# -- In the new process, at the same time:")
            purpose = ""
        found = purpose if step == s.Chdir("/") else reason(step)  # it goes on with whatever went before
        if found != purpose:
            purpose = found
            lines.append(f"# {purpose}")
        tolerated = ", ".join(errorcode[number] for number in step.tolerate)
        lines.append(f"{index:3}  {describe(step)}" + (f"  [{tolerated} is fine]" if tolerated else ""))
    return "\n".join(lines)

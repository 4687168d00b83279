"""Plans as text: what a reader sees with ``--explain``, and how an error names a step."""

from __future__ import annotations

import resource
import stat
from collections.abc import Mapping
from errno import errorcode

from runtime.plan import steps as s
from runtime.plan.constants import CAPABILITIES, CLONE_FLAGS, MOUNT_ATTRIBUTES, MOUNT_FLAGS
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


def _rlimit_name(number: int) -> str:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_") and getattr(resource, name) == number]
    return names[0] if names else str(number)


def describe(step: s.Step) -> str:
    """One step in words: the system call, what it acts on, and its arguments."""
    match step:
        case s.Mount():
            return _mount(step)
        case s.Mkdir():
            return f"mkdir {step.path} {step.mode:04o}"
        case s.PivotRoot():
            return f"pivot_root {step.new_root} {step.put_old}"
        case s.Symlink():
            return f"symlink {step.path} -> {step.target}"
        case s.Mknod():
            kind = {stat.S_IFBLK: "b", stat.S_IFIFO: "p"}.get(stat.S_IFMT(step.mode), "c")
            return f"mknod {step.path} {kind} {step.major}:{step.minor} {stat.S_IMODE(step.mode):04o}"
        case s.Write():
            return f"write {', '.join(_text(record) for record in step.data)} to {step.path}"
        case s.SetRlimit():
            return f"setrlimit {_rlimit_name(step.resource)} soft={step.soft} hard={step.hard}"
        case s.Unshare():
            return f"unshare {flag_names(step.flags, CLONE_FLAGS)}"
        case s.NewUserNamespace():
            maps = f"uids {step.uid_map.strip()!r}, gids {step.gid_map.strip()!r}"
            return f"clone3 CLONE_NEWUSER with {maps}, held as descriptor {step.fd}"
        case s.BoundingSet():
            return f"prctl PR_CAPBSET_DROP all but {capability_names(step.mask)}"
        case s.Capabilities():
            return f"capset permitted={capability_names(step.permitted)} effective={capability_names(step.effective)}"
        case s.NoNewPrivileges():
            return "prctl PR_SET_NO_NEW_PRIVS"
        case s.SetUser():
            return f"setgroups {list(step.groups)}, setresgid {step.gid}, setresuid {step.uid}"
        case s.Umask():
            return f"umask {step.mask:04o}"
        case s.Open():
            return f"open {step.path} as descriptor {step.fd}"
        case s.CloseOnExec():
            return f"close_range from {step.first}: close on exec"
        case s.NetlinkSocket():
            return f"open a route netlink socket as descriptor {step.fd}"
        case s.Netlink():
            return f"netlink on descriptor {step.fd}: {step.what}"
        case s.WaitPath():
            return f"wait for {step.path}, at most {step.timeout_ms} ms"
        case s.Message():
            return f"write {_text(step.text)} to the console"
        case s.Bind():
            return _bind(step)
        case s.HoldTree():
            return f"open_tree {step.source}{' AT_RECURSIVE' if step.recursive else ''} as descriptor {step.fd}"
        case s.MountAttributes():
            return f"mount_setattr {step.path} {_attributes(step.set, step.clear, step.propagation, step.recursive)}"
        case s.WriteDescriptor():
            return f"write {_text(step.data)} to descriptor {step.fd}"
        case s.JoinNamespace():
            return f"setns {step.path} {flag_names(step.flag, CLONE_FLAGS)}"
        case s.Ambient():
            return f"prctl PR_CAP_AMBIENT {capability_names(step.mask)}"
        case s.KeepCapabilities():
            return f"prctl PR_SET_KEEPCAPS {int(step.keep)}"
        case s.SetScheduler():
            return f"sched_setattr policy={step.policy} nice={step.nice} priority={step.priority} flags={step.flags:#x}"
        case s.Affinity():
            return f"sched_setaffinity {','.join(map(str, step.processors))}"
        case s.IOPriority():
            return f"ioprio_set class={step.value >> 13} priority={step.value & 0x1FFF}"
        case s.Personality():
            return f"personality {step.persona:#x}"
        case s.SeccompFilter():
            return f"seccomp SECCOMP_SET_MODE_FILTER flags={step.flags:#x} {step.what}".rstrip()
        case s.Terminal():
            return f"open dev/pts/ptmx, ioctl TIOCGPTPEER for user {step.uid}, send the master to the starter"
        case s.Sync():
            return f"tell the starter: {step.what}; wait for its word"
        case s.AwaitStart():
            return f"accept on descriptor {s.LISTEN_FD}: wait until it is started"
        case s.LookUp():
            return f"faccessat {step.program} X_OK" + (f" along {step.search}" if step.search else "")
        case s.DeviceFilter():
            return f"bpf BPF_PROG_ATTACH {step.what} ({len(step.program) // 8} instructions) to {step.directory}"
        case s.Undumpable():
            return "prctl PR_SET_DUMPABLE 0"
        case s.OwnStreams():
            return f"fchown the standard streams that are pipes to {step.uid}"
        case s.Fork():
            own = f" in {flag_names(step.flags, CLONE_FLAGS)}" if step.flags else ""
            return f"clone3{own}: the next {step.count} steps are a process of its own"
        case s.NewTree():
            return f"fsmount {step.fstype} {flag_names(step.attributes, MOUNT_ATTRIBUTES)} as descriptor {step.fd}"
        case s.HandOver():
            return f"send descriptor {step.fd} to the new process"
        case s.TakeOver():
            enter = f"setns {flag_names(step.namespace, CLONE_FLAGS)}" if step.namespace else "keep it"
            return f"receive descriptor {step.fd} from the launcher, {enter}"
        case s.Exec():
            return f"execve {' '.join(step.args)}"
        case _:
            return _by_name(step)


def _by_name(step: s.Step) -> str:
    words = {
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
    subject = step.strings()[0].decode() if step.strings() else ""
    return f"{words[type(step)]} {subject}".rstrip()


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

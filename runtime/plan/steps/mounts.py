"""Define the steps that deal with mounts and the root directory."""

from runtime.plan import constants
from runtime.plan.steps import purposes
from runtime.plan.steps.arguments import Long, Positive, Word
from runtime.plan.steps.base import Step
from runtime.plan.steps.words import attributes, flag_names


class Mount(Step, frozen=True):
    """Call mount(2). ``flags`` are MS_* bits; ``data`` is the file system's own option string.

    With ``inside`` the target is a directory below the root, which is made when absent, and the working directory is
    the root afterwards. ``copy_up`` copies into the new mount what it hides.
    """

    subject = "target"

    source: str
    target: str
    fstype: str = ""
    flags: Long = 0
    data: str = ""
    inside: bool = False
    copy_up: bool = False

    def describe(self) -> str:
        kind = f"{self.fstype} " if self.fstype else ""
        source = f"{self.source} " if self.source and self.source != self.fstype else ""
        data = f" ({self.data})" if self.data else ""
        return f"mount {kind}{source}on {self.target} {flag_names(self.flags, constants.MOUNT_FLAGS)}{data}"

    def reason(self) -> str:
        if self.fstype == "devtmpfs":
            return purposes.GUEST
        if self.fstype or self.target != "/":
            return purposes.of_path(self.target)
        if self.flags & (constants.MS_PRIVATE | constants.MS_SLAVE) and self.flags & constants.MS_REC:
            return purposes.PRIVATE
        return purposes.PIVOT if self.source else purposes.PROPAGATION


class Unmount(Step, frozen=True):
    words = "umount {target}"
    purpose = purposes.PIVOT

    target: str
    flags: Word = 0


class PivotRoot(Step, frozen=True):
    words = "pivot_root {new_root} {put_old}"
    purpose = purposes.PIVOT

    new_root: str
    put_old: str


class Chroot(Step, frozen=True):
    words = "chroot {path}"
    purpose = purposes.CHROOT

    path: str


class Bind(Step, frozen=True):
    """Attach a copy of the host's mount at ``source`` to ``target`` below the root, which is made when absent.

    ``set`` and ``clear`` are MOUNT_ATTR_* bits for the topmost mount, ``set_all`` and ``clear_all`` for every mount of
    the tree; ``userns`` is the path of the user namespace whose ID mapping the mount gets, or empty. ``held`` is the
    descriptor of a copy that OpenTree made, or 0.
    """

    subject = "target"

    source: str
    target: str
    recursive: bool = False
    set: Long = 0
    clear: Long = 0
    set_all: Long = 0
    clear_all: Long = 0
    propagation: Word = 0
    propagate_all: bool = False
    userns: str = ""
    map_all: bool = False
    held: Positive = 0

    def describe(self) -> str:
        tree = f"open_tree {self.source}{' AT_RECURSIVE' if self.recursive else ''}, move_mount"
        words = [f"{f'move_mount descriptor {self.held}' if self.held else tree} to {self.target}"]
        words += [text for text in (attributes(self.set, self.clear, self.propagation, False),) if text]
        words += [text for text in (attributes(self.set_all, self.clear_all, 0, True),) if text]
        words += [f"ids as in {self.userns}"] if self.userns else []
        return ", ".join(words)

    def reason(self) -> str:
        return purposes.of_path(self.target)


class OpenTree(Step, frozen=True):
    """Copy the mount at ``source`` to descriptor ``fd``, attached nowhere, while the caller still has the rights to.

    The copy and the mounts in it belong to the peer groups of their originals, unless ``propagation`` (MS_PRIVATE or
    MS_SLAVE) takes them all out.
    """

    purpose = purposes.ROOT

    source: str
    fd: Positive
    recursive: bool = False
    userns: str = ""
    map_all: bool = False
    propagation: Word = 0

    def describe(self) -> str:
        words = [f"open_tree {self.source}{' AT_RECURSIVE' if self.recursive else ''}"]
        words += [f"{attributes(0, 0, self.propagation, True)},"] if self.propagation else []
        return " ".join([*words, f"as descriptor {self.fd}"])


class MountAttributes(Step, frozen=True):
    """Call mount_setattr(2) to set and clear MOUNT_ATTR_* bits and to set the propagation (MS_SHARED or such, or 0)."""

    purpose = purposes.ROOT

    path: str
    set: Long = 0
    clear: Long = 0
    propagation: Word = 0
    recursive: bool = False
    inside: bool = False

    def describe(self) -> str:
        return f"mount_setattr {self.path} {attributes(self.set, self.clear, self.propagation, self.recursive)}"


class MaskPath(Step, frozen=True):
    """Hide ``path`` below the root, which may be absent. A file is hidden behind the container's null device, which is
    checked to be one; a directory is hidden behind an empty read-only directory. ``held`` is the descriptor of a tree
    that OpenTree made of an empty directory, or 0 for a tmpfs. All directories that a plan hides share one."""

    words = "mask {path}"
    purpose = purposes.PROTECT

    path: str
    held: Positive = 0


class ReadonlyPath(Step, frozen=True):
    """Bind ``path`` below the root, which may be absent, on itself and make that mount read-only."""

    words = "make read-only {path}"
    purpose = purposes.PROTECT

    path: str

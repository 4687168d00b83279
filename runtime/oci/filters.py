"""Keep compiled seccomp filters in the state's root: libseccomp takes longer than all the rest of a start."""

from __future__ import annotations

from errno import EDQUOT, EEXIST, ENOENT, ENOSPC, EROFS

from runtime.plan import steps as s
from runtime.seccomp.kept import KEPT_FILTERS, Unkept, recall

__all__ = ["KEPT_FILTERS", "keeping_steps", "recall"]
# Another command may keep the same filter, or there may be no space. The next start is then slower, nothing worse.
_FINE = (EDQUOT, EEXIST, ENOENT, ENOSPC, EROFS)


def keeping_steps(unkept: Unkept | None) -> tuple[s.Step, ...]:
    """Return the steps that keep a filter, if there is one to keep, and remove those that are too old."""
    if unkept is None:
        return ()
    temporary = unkept.path.with_name(f".{unkept.path.name}")
    return (
        s.Mkdir(str(unkept.path.parent), 0o700, tolerate=_FINE),
        s.Replace(str(unkept.path), str(temporary), unkept.content, tolerate=_FINE),
        *(s.Remove(str(path), tolerate=_FINE) for path in unkept.old),
    )

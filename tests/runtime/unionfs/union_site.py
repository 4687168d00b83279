"""A directory with branches for unions to be made of."""

from __future__ import annotations

from pathlib import Path

from runtime.unionfs import unions
from runtime.unionfs.records import Records
from tests.owned import mounts_of


class Site:
    """A directory with branches ``a``, ``b``, ``c``, a mount point ``m``, and records of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records = Records(root / "state")
        for name in ("a", "b", "c", "m"):
            (root / name).mkdir()
        (root / "b" / "file").write_text("of b")
        (root / "c" / "file").write_text("of c")
        (root / "c" / "deep").mkdir()
        (root / "c" / "deep" / "only").write_text("only c")
        self.target = root / "m"

    def words(self, text: str) -> str:
        """``a=rw:b=ro`` with the branches' paths."""
        return "br:" + ":".join(f"{self.root}/{one}" for one in text.split(":"))

    def mount(self, text: str, driver: str = "auto", options: str = "") -> unions.Result:
        return unions.mount(self.words(text) + options, str(self.target), driver, self.records)

    def umount(self) -> None:
        unions.unmount(str(self.target), records=self.records)

    def left(self) -> list[str]:
        """What is there of a union beside the branches: mounts, directories of drivers, records."""
        own = [str(path) for path in self.root.iterdir() if path.name not in ("a", "b", "c", "m", "state")]
        return mounts_of(self.root) + own + [str(path) for path in (self.root / "state").glob("*.json")]

"""Mount options: the table's words become bits, later ones win, the rest goes to the file system."""

from __future__ import annotations

import pytest

from runtime.config.mount_options import NAMES, parse
from runtime.errors import UsageError
from runtime.plan import constants as k


def test_flags_and_the_file_systems_own() -> None:
    found = parse(("nosuid", "ro", "mode=755", "rw", "size=64k"))
    assert (found.flags, found.data) == (k.MS_NOSUID, "mode=755,size=64k")


def test_a_bind_sets_and_clears_attributes() -> None:
    found = parse(("rbind", "ro", "nodev", "dev", "rslave"))
    assert found.bind and found.recursive and found.set == k.MOUNT_ATTR_RDONLY and found.clear == k.MOUNT_ATTR_NODEV
    assert (found.propagation, found.propagate_all) == (k.MS_SLAVE, True)


def test_recursive_attributes() -> None:
    found = parse(("bind", "rro", "rnoatime"))
    assert found.set_all == k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOATIME and found.clear_all == k.MOUNT_ATTR_ATIME


def test_every_listed_name_is_understood() -> None:
    assert not [name for name in NAMES if parse((name,)).data]


def test_copying_up_into_a_bind_is_refused() -> None:
    with pytest.raises(UsageError, match="tmpcopyup"):
        parse(("bind", "tmpcopyup"))

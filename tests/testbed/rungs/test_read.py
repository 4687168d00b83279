"""The rungs as data: each says of every feature what it had and where that is known from; a wrong file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.platforms.peers.names import PEERS
from testbed.platforms.rungs.names import ALIASES, RUNGS
from testbed.rungs.model import FEATURES, History, Rung
from testbed.rungs.read import SOURCES, find_rung, read_history

HISTORY = read_history()
CELLS = "".join(f"  {feature}: {{had: h, source: s}}\n" for feature in FEATURES)
GOOD = f"name: one\ntitle: One\nyear: 1999\nside: containers\nwords: w\nisolation: {{root: chroot}}\ncells:\n{CELLS}"
SOURCE = "s: {title: T, authors: A, venue: V, year: 1999, url: 'https://example.org', checked: read, where: here}\n"
FORBIDS = "words: w\nforbids: [{of: [files], source: s, says: t}]"


@pytest.mark.parametrize("rung", HISTORY.rungs, ids=lambda rung: rung.name)
def test_every_rung_says_all_of_itself(rung: Rung) -> None:
    assert set(rung.cells) == set(FEATURES) and len(rung.words) > 80
    for statement in (*rung.forbids, *rung.permits, *rung.leaves):
        assert statement.source in HISTORY.sources and len(statement.says) > 10
    named = [word for one in (*rung.forbids, *rung.permits, *rung.leaves) for word in one.of if "-" in word]
    assert len(named) == len(set(named)), "of a probe one thing is said"
    year = rung.name.rpartition("-")[2]
    assert not year.isdigit() or int(year) == rung.year
    for cell in rung.cells.values():
        assert HISTORY.sources[cell.source].year >= 1960 and cell.had


def test_the_ladder_has_both_sides_and_goes_down_once() -> None:
    names = [rung.name for rung in HISTORY.rungs]
    assert [rung.year for rung in HISTORY.rungs] == sorted(rung.year for rung in HISTORY.rungs)
    assert {rung.side for rung in HISTORY.rungs} == {"containers", "machines"}
    lmctfy, vserver = find_rung("lmctfy-2013").isolation, find_rung("vserver-2001").isolation
    assert lmctfy is not None and vserver is not None
    assert names.index("lmctfy-2013") > names.index("vserver-2001")
    assert not lmctfy.namespaces and lmctfy.root == "host" and lmctfy.network == "host"
    assert set(lmctfy.namespaces) < set(vserver.namespaces)


def test_what_jails_paper_lists_is_what_it_forbids() -> None:
    jail = find_rung("jail-2000")
    said = {word for one in jail.forbids if one.source == "jails2000" for word in one.of}
    assert {"kernel_settings", "network", "mounts", "devices", "interfaces-module", "network-raw"} <= said
    permitted = {word for one in jail.permits if one.source == "jails2000" for word in one.of}
    assert permitted == {
        "signals",
        "files-change-own",
        "files-delete-own",
        "network-low-port",
        "network-low-datagrams",
        "users",
    }
    isolation = jail.isolation
    assert isolation is not None and isolation.network == "address" and isolation.devices == "nodes"
    assert not {"CAP_NET_RAW", "CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_NET_ADMIN"} & set(isolation.capabilities)
    assert {"CAP_KILL", "CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_SETUID"} <= set(isolation.capabilities)


def test_the_names_of_platforms_are_those_of_the_data() -> None:
    made = {rung.name for rung in HISTORY.rungs if rung.isolation is not None}
    assert set(RUNGS) == made and len(RUNGS) == len(made)
    by_others = {rung.name: rung.platform for rung in HISTORY.rungs if rung.platform and rung.platform != rung.name}
    assert dict(ALIASES).items() <= by_others.items()
    assert find_rung("process").platform in PEERS


def test_sources_are_used_and_have_addresses() -> None:
    used = {cell.source for rung in HISTORY.rungs for cell in rung.cells.values()}
    used |= {one.source for rung in HISTORY.rungs for one in (*rung.forbids, *rung.permits, *rung.leaves)}
    used |= {one.source for rung in HISTORY.rungs for one in rung.explains.values()} - {""}
    assert used == set(HISTORY.sources)
    for source in HISTORY.sources.values():
        assert source.url.startswith("http") and source.title and source.authors and source.venue
        assert source.where and (source.checked in ("read", "quoted") or "not" in source.where)


def test_an_unknown_rung_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown rung 'jail-1999'") as caught:
        find_rung("jail-1999")
    assert "jail-2000" in caught.value.hint


def read(folder: Path, text: str, sources: str = SOURCE) -> History:
    (folder / SOURCES).write_text(sources)
    (folder / "one.yaml").write_text(text)
    return read_history(folder)


def test_a_right_file_is_taken(tmp_path: Path) -> None:
    assert [(one.name, one.year) for one in read(tmp_path, GOOD).rungs] == [("one", 1999)]


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("name: one", "name: two", "one.yaml:1: name: is 'two'; expected the file's own name, 'one'"),
        ("year: 1999", "year: 99", "one.yaml:3: year: is '99'"),
        ("side: containers", "side: cellars", "side: is 'cellars'; expected one of containers, machines"),
        ("side: containers", "side: machines", "isolation: is one of a machine"),
        ("{root: chroot}", "{root: attic}", "isolation.root: is 'attic'"),
        ("{root: chroot}", "{devices: host}", "isolation.root: is missing"),
        ("{root: chroot}", "{root: chroot, namespaces: [pid, pod]}", "isolation.namespaces[1]: is 'pod'"),
        ("{root: chroot}", "{root: chroot, namespaces: [pid, pid]}", "is 'pid' a second time"),
        ("{root: chroot}", "{root: chroot, network: stack}", "a network namespace without a stack of its own"),
        ("{root: chroot}", "{root: chroot, capabilities: [CAP_ALL]}", "isolation.capabilities[0]: is 'CAP_ALL'"),
        ("{root: chroot}", "{root: chroot, capabilities: many}", "expected one of all, default, none"),
        ("{root: chroot}", "{root: chroot, mask: true}", "isolation.mask: is not supported"),
        ("words: w", "words: w\nplatform: vm", "platform: is there beside an isolation"),
        ("words: w", FORBIDS.replace("files", "fillets"), "of[0]: is 'fillets'; expected a probe, or one of files"),
        ("words: w", FORBIDS.replace("files", "files, files"), "is 'files' a second time; expected each once"),
        ("words: w", FORBIDS.replace("source: s", "source: z"), "forbids[0].source: is 'z'"),
        ("words: w", FORBIDS.replace(", says: t", ""), "forbids[0].says: is missing"),
        ("words: w", "words: w\nforbids: [files]", "forbids[0]: is 'files'; expected a mapping"),
        ("words: w", "words: w\nexplains: {a-b: {source: s}}", "explains.a-b.why: is missing"),
        ("kernel: {had: h, source: s}", "kernel: {had: h, source: z}", "cells.kernel.source: is 'z'"),
        ("  kernel: {had: h, source: s}\n", "", "cells.kernel: is missing"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, wrong: str, right: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, GOOD.replace(wrong, right))
    assert said in caught.value.message


def test_the_mistakes_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UsageError) as caught:
        read(tmp_path, GOOD.replace("1999", "x"), SOURCE.replace("https:", "file:").replace("read", "seen"))
    for part in (
        "sources.yaml:1: s.url: is 'file://example.org'",
        "s.checked: is 'seen'; expected one of read, quoted, cited, not found",
        "one.yaml:3: year",
        "not well-formed YAML",
    ):
        assert part in caught.value.message

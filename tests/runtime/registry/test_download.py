from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.images.descriptors import Descriptor
from runtime.registry.answers import Limits
from runtime.registry.download import Download
from runtime.registry.errors import NotThereError, RegistryError
from tests.runtime.registry.conftest import LIMITS, Open
from tests.runtime.registry.servers import Exchange, Faulty, faulty

Make = Callable[[int], tuple[Descriptor, Path]]
SIZE = 3_000_000


@pytest.fixture
def blob(registry: str, open_repository: Open, make_blob: Make) -> Descriptor:
    """A blob that the registry has."""
    descriptor, path = make_blob(SIZE)
    with path.open("rb") as content:
        open_repository(registry, "a/b").uploads.send(descriptor, content)
    return descriptor


@pytest.fixture
def before(registry: str) -> Iterator[Faulty]:
    """A faulty server before the registry."""
    with faulty(registry) as server:
        yield server


def content_of(stream: Download) -> str:
    sha256 = hashlib.sha256()
    with stream:
        for chunk in iter(stream.read, b""):
            sha256.update(chunk)
    return "sha256:" + sha256.hexdigest()


def ranges(server: Faulty) -> list[str]:
    return [headers.get("Range", "") for method, path, headers in server.requests if "/blobs/" in path]


def cutting(after: int, times: int) -> Callable[[Exchange], bool]:
    """A rule that ends so many answers within their body."""
    left = [times]

    def rule(exchange: Exchange) -> bool:
        if "/blobs/" not in exchange.path or not left[0]:
            return False
        left[0] -= 1
        status, headers, body = exchange.upstream()
        exchange.begin(status, headers)
        exchange.wfile.write(body[:after])
        exchange.cut()
        return True

    return rule


def test_a_blob_is_read(before: Faulty, open_repository: Open, blob: Descriptor) -> None:
    assert content_of(open_repository(before.host, "a/b").blob(blob)) == blob.digest
    assert ranges(before) == [""]


def test_a_cut_connection_is_gone_on_with(before: Faulty, open_repository: Open, blob: Descriptor) -> None:
    before.rule = cutting(700_000, 3)
    assert content_of(open_repository(before.host, "a/b").blob(blob)) == blob.digest
    first, *more = ranges(before)
    assert first == "" and len(more) == 3
    offsets = [int(one.removeprefix("bytes=").removesuffix("-")) for one in more]
    assert 0 < offsets[0] < offsets[1] < offsets[2] < SIZE


def test_cuts_without_progress_end(before: Faulty, open_repository: Open, blob: Descriptor) -> None:
    before.rule = cutting(10, 10**9)
    with pytest.raises(RegistryError, match=r"5 times, after \d+ of 3000000 bytes"):
        content_of(open_repository(before.host, "a/b").blob(blob))
    assert len(ranges(before)) <= 6


def test_a_server_without_ranges_sends_all_again(before: Faulty, open_repository: Open, blob: Descriptor) -> None:
    cut = cutting(700_000, 1)

    def rule(exchange: Exchange) -> bool:
        del exchange.headers["Range"]
        return cut(exchange)

    before.rule = rule
    assert content_of(open_repository(before.host, "a/b").blob(blob)) == blob.digest
    assert len(ranges(before)) == 2


def test_a_failing_server_is_asked_again(before: Faulty, open_repository: Open, blob: Descriptor) -> None:
    left = [503, 500, 0, 502]

    def rule(exchange: Exchange) -> bool:
        status = left.pop(0) if left else None
        if status:
            exchange.answer(status)
        elif status == 0:
            exchange.cut()
        return status is not None

    before.rule = rule
    assert content_of(open_repository(before.host, "a/b").blob(blob)) == blob.digest


@pytest.mark.parametrize("change", ["other", "short", "long", "endless"])
def test_wrong_content_is_refused(before: Faulty, open_repository: Open, blob: Descriptor, change: str) -> None:
    def rule(exchange: Exchange) -> bool:
        status, headers, body = exchange.upstream()
        if change == "other":
            body = body[:-1] + bytes([body[-1] ^ 1])
        elif change == "short":
            body = body[:-1]
        elif change == "long":
            body += b"x"
        if change == "endless":
            exchange.begin(200, {"Connection": "close"})
            while True:
                exchange.wfile.write(b"x" * 100_000)
        exchange.answer(status, {**headers, "Content-Length": str(len(body))}, body)
        return True

    before.rule = rule
    with pytest.raises(RegistryError, match=r"what was sent is|sends the bytes"):
        content_of(open_repository(before.host, "a/b").blob(blob))
    assert len(ranges(before)) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-2999999/3000001"},
        {"Content-Range": "bytes 2999999-2999999/3000000", "Content-Length": "1"},
        {"Content-Range": "bytes 99999999999999999999999-1/3"},
        {"Content-Range": "none"},
        {},
    ],
)
def test_a_wrong_part_is_refused(
    before: Faulty, open_repository: Open, blob: Descriptor, headers: dict[str, str]
) -> None:
    cut = cutting(700_000, 1)

    def rule(exchange: Exchange) -> bool:
        if exchange.headers.get("Range"):
            exchange.begin(206, {"Content-Length": "3000000", **headers})
            exchange.cut()
            return True
        return cut(exchange)

    before.rule = rule
    with pytest.raises(RegistryError, match="sends"):
        content_of(open_repository(before.host, "a/b").blob(blob))


def test_slow_bytes_are_a_cut(before: Faulty, open_repository: Open, blob: Descriptor) -> None:
    slow = [1]

    def rule(exchange: Exchange) -> bool:
        if not slow:
            return False
        slow.clear()
        status, headers, body = exchange.upstream()
        exchange.begin(status, headers)
        for at in range(0, 100_000, 1000):
            exchange.wfile.write(body[at : at + 1000])
            time.sleep(0.05)
        return True

    before.rule = rule
    limits = Limits(head_s=20, stall_s=0.3, least_bytes=30_000, pause_s=0.001)
    assert content_of(open_repository(before.host, "a/b", limits).blob(blob)) == blob.digest
    assert len(ranges(before)) == 2


def test_redirects_are_followed_each_time_anew(before: Faulty, open_repository: Open, blob: Descriptor) -> None:
    """An address that a registry sends us to is good for a while only."""
    with faulty(before.behind) as storage:
        storage.rule = cutting(700_000, 1)

        def rule(exchange: Exchange) -> bool:
            exchange.answer(307, {"Location": f"http://{storage.host}{exchange.path}?signature"})
            return True

        before.rule = rule
        assert content_of(open_repository(before.host, "a/b").blob(blob)) == blob.digest
        assert len(ranges(before)) == len(ranges(storage)) == 2


def test_what_is_not_there_is_said(before: Faulty, open_repository: Open) -> None:
    with pytest.raises(NotThereError, match="blob unknown"):
        content_of(open_repository(before.host, "a/b").blob(Descriptor("x", "sha256:" + "0" * 64, 5)))


def test_an_empty_blob_needs_no_request(open_repository: Open) -> None:
    repository = open_repository("127.0.0.1:1", "a", LIMITS)
    empty = "sha256:" + hashlib.sha256().hexdigest()
    assert content_of(repository.blob(Descriptor("x", empty, 0))) == empty
    with pytest.raises(RegistryError):
        content_of(repository.blob(Descriptor("x", "sha256:" + "0" * 64, 0)))

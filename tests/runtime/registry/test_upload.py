from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.images.descriptors import Descriptor
from runtime.registry.errors import NotThereError, RegistryError
from runtime.registry.repository import Repository
from tests.runtime.registry.conftest import Open
from tests.runtime.registry.servers import Exchange, Faulty, faulty

Make = Callable[..., tuple[Descriptor, Path]]
SIZE = 2_500_000
CHUNK = 1_000_000


@pytest.fixture
def before(registry: str) -> Iterator[Faulty]:
    with faulty(registry) as server:
        yield server


def send(repository: Repository, blob: tuple[Descriptor, Path], chunk: int = CHUNK, *mounts: str) -> str:
    with blob[1].open("rb") as content:
        return replace(repository.uploads, chunk_bytes=chunk).send(blob[0], content, mounts)


def read_back(repository: Repository, descriptor: Descriptor) -> bool:
    with repository.blob(descriptor) as stream:
        return sum(map(len, iter(stream.read, b""))) == descriptor.size


def test_a_small_blob_goes_at_once_and_only_once(before: Faulty, open_repository: Open, make_blob: Make) -> None:
    repository, blob = open_repository(before.host, "one/a"), make_blob(SIZE, 1)
    assert send(repository, blob, SIZE) == "sent"
    assert send(repository, blob, SIZE) == "there"
    assert [method for method, _, _ in before.requests] == ["HEAD", "POST", "PUT", "HEAD"]
    assert read_back(repository, blob[0])


def test_a_large_blob_goes_in_chunks(before: Faulty, open_repository: Open, make_blob: Make) -> None:
    repository, blob = open_repository(before.host, "two/a"), make_blob(SIZE, 2)
    assert send(repository, blob) == "sent"
    assert [method for method, _, _ in before.requests] == ["HEAD", "POST", "PATCH", "PATCH", "PATCH", "PUT"]
    sent = [headers["Content-Range"] for method, _, headers in before.requests if method == "PATCH"]
    assert sent == ["0-999999", "1000000-1999999", "2000000-2499999"]
    assert read_back(repository, blob[0])


def test_an_empty_blob_is_pushed(registry: str, open_repository: Open, make_blob: Make) -> None:
    assert send(open_repository(registry, "empty/a"), make_blob(0)) == "sent"


def test_the_least_chunk_of_a_registry_is_heeded(before: Faulty, open_repository: Open, make_blob: Make) -> None:
    def rule(exchange: Exchange) -> bool:
        status, headers, body = exchange.upstream()
        exchange.answer(status, {**headers, "OCI-Chunk-Min-Length": "2000000"}, body)
        return True

    before.rule = rule
    repository, blob = open_repository(before.host, "least/a"), make_blob(SIZE, 3)
    assert send(repository, blob) == "sent"
    assert len(before.asked("PATCH")) == 2 and read_back(repository, blob[0])


def test_a_blob_is_mounted_from_another_repository(before: Faulty, open_repository: Open, make_blob: Make) -> None:
    blob = make_blob(SIZE, 4)
    send(open_repository(before.host, "three/a"), blob)
    before.requests.clear()
    repository = open_repository(before.host, "three/b")
    assert send(repository, blob, CHUNK, "three/none", "three/a") == "mounted"
    assert "PATCH" not in [method for method, _, _ in before.requests] and read_back(repository, blob[0])


def losing(arrived: int, is_resumable: bool) -> Callable[[Exchange], bool]:
    """A rule that ends the connection within the second chunk, of which the registry gets so many bytes.

    Debian's registry then takes none of the addresses that it gave before; ``is_resumable`` mends that.
    """
    newest = [""]

    def rule(exchange: Exchange) -> bool:
        if exchange.command == "GET" and "/uploads/" in exchange.path and is_resumable:
            exchange.path = newest[0]
        if exchange.command != "PATCH" or newest[0] or not exchange.headers["Content-Range"].startswith("1000000-"):
            return False
        newest[0] = exchange.path
        if arrived:
            exchange.headers.replace_header("Content-Range", f"1000000-{999_999 + arrived}")
            exchange.headers.replace_header("Content-Length", str(arrived))
            exchange.length = arrived
            newest[0] = exchange.upstream()[1]["Location"].partition(exchange.server.host)[2]
        exchange.cut()
        return True

    return rule


@pytest.mark.parametrize("arrived", [0, 1, 300_000])
def test_a_cut_chunk_is_gone_on_with(before: Faulty, open_repository: Open, make_blob: Make, arrived: int) -> None:
    """The registry has some of the chunk when the connection ends: it says how much, and gets the rest."""
    before.rule = losing(arrived, is_resumable=True)
    repository, blob = open_repository(before.host, f"four/a{arrived}"), make_blob(SIZE, 5 + arrived)
    assert send(repository, blob) == "sent"
    sent = [headers["Content-Range"] for method, _, headers in before.requests if method == "PATCH"]
    assert sent[2].startswith(f"{1_000_000 + arrived}-") and read_back(repository, blob[0])


def test_an_upload_that_the_registry_lost_begins_again(before: Faulty, open_repository: Open, make_blob: Make) -> None:
    before.rule = losing(300_000, is_resumable=False)
    repository, blob = open_repository(before.host, "four/b"), make_blob(SIZE, 4711)
    assert send(repository, blob) == "sent"
    assert len(before.asked("POST")) == 2 and read_back(repository, blob[0])


def failing(method: str, *statuses: int) -> Callable[[Exchange], bool]:
    """A rule that answers the first requests of a method so (0: not at all), and passes on the others."""
    left = list(statuses)

    def rule(exchange: Exchange) -> bool:
        if exchange.command != method or not left:
            return False
        status = left.pop(0)
        if status:
            exchange.rfile.read(exchange.length)
            exchange.answer(status, {}, b'{"errors":[{"code":"X","message":"no"}]}')
        else:
            exchange.cut()
        return True

    return rule


@pytest.mark.parametrize(
    ("method", "statuses"),
    [("PATCH", (503, 0, 500)), ("PUT", (0, 502)), ("POST", (0, 503, 429)), ("HEAD", (500, 0)), ("PATCH", (404,))],
)
def test_what_fails_is_tried_again(
    before: Faulty, open_repository: Open, make_blob: Make, method: str, statuses: tuple[int, ...]
) -> None:
    before.rule = failing(method, *statuses)
    repository, blob = open_repository(before.host, "five/a"), make_blob(SIZE, hash((method, statuses)))
    assert send(repository, blob) == "sent" and read_back(repository, blob[0])


def test_a_registry_that_fails_for_good_is_left(before: Faulty, open_repository: Open, make_blob: Make) -> None:
    before.rule = failing("PATCH", *[503] * 100)
    with pytest.raises(RegistryError, match="it answered 503: no"):
        send(open_repository(before.host, "six/a"), make_blob(SIZE, 6))
    assert len(before.asked("PATCH")) <= 6


@pytest.mark.parametrize("status", [403, 400, 413, 404])
def test_a_refusal_is_said_once(before: Faulty, open_repository: Open, make_blob: Make, status: int) -> None:
    before.rule = failing("POST", status)
    with pytest.raises((NotThereError, RegistryError), match="no"):
        send(open_repository(before.host, "seven/a"), make_blob(SIZE, 7))
    assert len(before.asked("POST")) == 1


@pytest.mark.parametrize("location", ["", "file:///etc/passwd", "http://a b/", "\x7f"])
def test_a_wrong_address_to_upload_to_is_refused(
    before: Faulty, open_repository: Open, make_blob: Make, location: str
) -> None:
    def rule(exchange: Exchange) -> bool:
        if exchange.command == "POST":
            exchange.answer(202, {"Location": location} if location else {})
        return exchange.command == "POST"

    before.rule = rule
    with pytest.raises(RegistryError, match=r"not an address of HTTP|not where to upload"):
        send(open_repository(before.host, "eight/a"), make_blob(SIZE, 8))

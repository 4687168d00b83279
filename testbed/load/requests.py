"""What a load asks for: one kind of request, or a mix of several, and the bytes that are sent."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from ipaddress import ip_address

from msgspec import Struct

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")
WITHOUT_BODY = ("GET", "HEAD")
# A kind's number is one byte, and what a person writes down is fewer.
MOST_KINDS = 64
MOST_HEADERS = 32
MOST_BODY_BYTES = 1 << 20
PATH = re.compile(r"/[!-~]{0,4095}")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"(?:[!-~](?:[ -~]{0,4094}[!-~])?)?")
# They say where a message ends and what becomes of its connection, which is the generator's to say.
_OWN = ("connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")


# In place of a status: any below that of a server's failure (RFC 9110, 15.6). The generator has the same rule.
ANY_STATUS = 0
FIRST_FAILURE = 500


def is_expected(status: int, expected: int) -> bool:
    """Return whether an answer's status is the one that counts as success."""
    return 100 <= status < FIRST_FAILURE if expected == ANY_STATUS else status == expected


class Request(Struct, frozen=True):
    """One kind of request, and the status that counts as success, or ANY_STATUS.

    Of a mix, ``weight`` over the sum of weights is its share. A body is sent as UTF-8.
    """

    method: str = "GET"
    path: str = "/"
    expect_status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    weight: float = 1.0

    @property
    def is_bodiless(self) -> bool:
        """Whether the answer has no body, whatever its headers say (RFC 9110, 9.3.2)."""
        return self.method == "HEAD"

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def compose(self, address: str, port: int) -> bytes:
        """Return the message to a server. Its own headers take the place of the ones that are always sent."""
        host = f"[{address}]" if is_version_six(address) else address
        headers = {"host": f"Host: {host}:{port}", "user-agent": "User-Agent: testbed", "accept": "Accept: */*"}
        headers |= {name.lower(): f"{name}: {value}" for name, value in self.headers}
        body = self.body.encode()
        if self.method not in WITHOUT_BODY:
            headers["content-length"] = f"Content-Length: {len(body)}"
        lines = [f"{self.method} {self.path} HTTP/1.1", *headers.values()]
        return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def is_version_six(address: str) -> bool:
    """Return whether an IP address is one of IPv6. Raises ValueError when it is none."""
    return ip_address(address).version == 6


def find_header_fault(name: str, value: str) -> str:
    """Return why a request may not have this header; empty when it may."""
    if not _NAME.fullmatch(name):
        return "is not a header's name: at most 100 letters, digits and !#$%&'*+-.^_`|~"
    if name.lower() in _OWN:
        return "is set by the load generator"
    if not _VALUE.fullmatch(value):
        return "has a value that is more than one line of at most 4096 printable ASCII characters"
    return ""


def find_fault(request: Request) -> str:
    """Return why a request cannot be sent; empty when it can."""
    if request.method not in METHODS:
        return f"the method is none of {', '.join(METHODS)}"
    if not PATH.fullmatch(request.path):
        return "the path does not begin with /, has blanks, or is longer than 4096 characters"
    if request.body and request.method in WITHOUT_BODY:
        return f"a {request.method} has no body"
    if len(request.body.encode()) > MOST_BODY_BYTES or len(request.headers) > MOST_HEADERS:
        return f"the body is longer than {MOST_BODY_BYTES >> 20} MiB, or there are more than {MOST_HEADERS} headers"
    if len({name.lower() for name, _ in request.headers}) < len(request.headers):
        return "a header is there twice"
    for name, value in request.headers:
        if fault := find_header_fault(name, value):
            return f"the header {name!r} {fault}"
    return ""


def draw_kinds(requests: Sequence[Request], count: int, seed: int) -> bytes:
    """Draw which of ``requests`` each of ``count`` is, a byte each.

    Every trial has the same number of each kind: its share, rounded so that the sum is right (largest remainders);
    chance decides their order only.
    """
    total = sum(request.weight for request in requests)
    shares = [request.weight / total * count for request in requests]
    numbers = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda kind: numbers[kind] - shares[kind])
    for kind in by_remainder[: count - sum(numbers)]:
        numbers[kind] += 1
    kinds = bytearray().join(bytes([kind]) * number for kind, number in enumerate(numbers))
    if len(requests) > 1:
        random.Random(f"mix {seed}").shuffle(kinds)
    return bytes(kinds)


def find_main(requests: Sequence[Request]) -> Request:
    """Return the request that stands for a mix where one is asked at a time: the first of the greatest weight."""
    return max(requests, key=lambda request: request.weight)

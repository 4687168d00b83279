"""This module compiles the programs that keep the processes of a cgroup to one IPv4 address of the host's stack, as
jail(2) and chbind did.

The kernel runs them when a socket is made, bound or connected (bpf-cgroup, struct bpf_sock and struct bpf_sock_addr of
linux/bpf.h). Jail's rules (Kamp and Watson 2000, section 6.4): binding to any address means binding to that one, and so
does the loopback address; all others are refused, and there are no raw sockets and no other families of the Internet's.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

from msgspec import Struct

# Operation codes of eBPF instructions (Documentation/bpf/standardization/instruction-set.rst)
_LOAD_WORD, _STORE_WORD, _STORE_VALUE, _MOVE, _COPY, _ADD = 0x61, 0x63, 0x62, 0xB7, 0xBF, 0x07
_MOVE_WORD, _JUMP, _JUMP_EQUAL, _CALL, _RETURN = 0xB4, 0x05, 0x16, 0x85, 0x95
_RESULT, _CONTEXT, _ADDRESS, _LENGTH, _SEEN, _WORD, _FRAME = 0, 1, 2, 3, 7, 8, 10  # registers
_SAVED = 6
_INSTRUCTION = struct.Struct("<BBhi")
# struct bpf_sock_addr: user_ip4; struct bpf_sock: family, type
_USER_IP4, _FAMILY, _TYPE = 4, 4, 8
_BIND = 64  # enum of linux/bpf.h: BPF_FUNC_bind
_LOOPBACK = IPv4Address("127.0.0.1")


class AddressProgram(Struct, frozen=True):
    """A program, 8 bytes an instruction, with its type and where it is attached (numbers of linux/bpf.h)."""

    code: bytes
    kind: int
    attach: int
    what: str


def address_programs(address: IPv4Address) -> tuple[AddressProgram, ...]:
    """Return the programs that keep a cgroup's processes to one address."""
    return (
        AddressProgram(_socket_program(), 9, 2, "no raw sockets and no IPv6"),
        AddressProgram(_bind_program(address), 18, 8, f"bind to {address} or nothing"),
        AddressProgram(_connect_program(address), 18, 10, f"connect from {address}"),
    )


def _instruction(code: int, target: int = 0, value: int = 0, *, source: int = 0, offset: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, source << 4 | target, offset, value - (1 << 32) if value >> 31 else value)


def _answer(allow: bool) -> bytes:
    return _instruction(_MOVE, _RESULT, int(allow)) + _instruction(_RETURN)


def _number(address: IPv4Address) -> int:
    """An address in network byte order, as the processor reads it; BPF has the processor's own byte order."""
    return int.from_bytes(address.packed, "little")


def _socket_program() -> bytes:
    return b"".join(
        (
            _instruction(_LOAD_WORD, _SEEN, source=_CONTEXT, offset=_FAMILY),
            _instruction(_JUMP_EQUAL, _SEEN, int(socket.AF_INET6), offset=4),
            _instruction(_LOAD_WORD, _SEEN, source=_CONTEXT, offset=_TYPE),
            _instruction(_JUMP_EQUAL, _SEEN, int(socket.SOCK_RAW), offset=2),
            _answer(True),
            _answer(False),
        )
    )


def _bind_program(address: IPv4Address) -> bytes:
    return b"".join(
        (
            _instruction(_LOAD_WORD, _SEEN, source=_CONTEXT, offset=_USER_IP4),
            _instruction(_JUMP_EQUAL, _SEEN, _number(address), offset=6),
            _instruction(_JUMP_EQUAL, _SEEN, 0, offset=3),
            _instruction(_JUMP_EQUAL, _SEEN, _number(_LOOPBACK), offset=2),
            _answer(False),
            _instruction(_MOVE_WORD, _WORD, _number(address)),
            _instruction(_STORE_WORD, _CONTEXT, source=_WORD, offset=_USER_IP4),
            _answer(True),
        )
    )


def _connect_program(address: IPv4Address) -> bytes:
    """A socket that is not bound is bound to the address; one that is stays as it is."""
    at = -16
    return b"".join(
        (
            _instruction(_COPY, _SAVED, source=_CONTEXT),
            _instruction(_LOAD_WORD, _SEEN, source=_SAVED, offset=_USER_IP4),
            _instruction(_JUMP_EQUAL, _SEEN, _number(_LOOPBACK), offset=1),
            _instruction(_JUMP, offset=2),
            _instruction(_MOVE_WORD, _WORD, _number(address)),
            _instruction(_STORE_WORD, _SAVED, source=_WORD, offset=_USER_IP4),
            _instruction(_STORE_VALUE, _FRAME, int(socket.AF_INET), offset=at),
            _instruction(_STORE_VALUE, _FRAME, _number(address), offset=at + 4),
            _instruction(_STORE_VALUE, _FRAME, 0, offset=at + 8),
            _instruction(_STORE_VALUE, _FRAME, 0, offset=at + 12),
            _instruction(_COPY, _CONTEXT, source=_SAVED),
            _instruction(_COPY, _ADDRESS, source=_FRAME),
            _instruction(_ADD, _ADDRESS, at & 0xFFFFFFFF),
            _instruction(_MOVE, _LENGTH, 16),
            _instruction(_CALL, value=_BIND),
            _answer(True),
        )
    )

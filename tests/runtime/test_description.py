"""A described container is the same container on the other side."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from runtime.description import from_json, to_json
from runtime.spec import Link, Process, Resources, Rlimit, Spec, User


def test_what_is_described_comes_out_as_it_went_in() -> None:
    process = Process(
        args=("sh", "-c", "echo 'é' \\\n"),
        env=("A=1",),
        cwd="/srv",
        user=User(1000, 1001, 0o027, (4, 5)),
        capabilities=("CAP_CHOWN",),
        rlimits=(Rlimit("RLIMIT_NOFILE", 10, 20),),
        no_new_privileges=False,
    )
    link = Link(IPv4Interface("10.0.0.2/24"), "02:00:0a:00:00:02", IPv4Address("10.0.0.1"))
    full = Spec(process, ("/a", "/b"), "web", Resources(64 << 20, 0.5, 32), link, (("redis", "10.0.0.3"),))
    shared = (("network", ""), ("ipc", "web"))
    least = Spec(Process(("true",)), ("/a",), "least", shared=shared, shm=False, masked_paths=(), readonly_paths=())
    no_gateway = Spec(Process(("true",)), ("/a",), "inner", link=Link(link.address, link.mac))
    specs = {"web": full, "least": least, "inner": no_gateway}
    found, rest = from_json(to_json(specs, bridge_index=7))
    assert list(found.items()) == list(specs.items())
    assert rest == {"bridge_index": 7}

"""Instructions that only change the configuration, in builds for real, and that it survives the store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runtime.builder.durations import parse_duration
from runtime.errors import UsageError
from runtime.images.model import Healthcheck, Image
from runtime.images.store import Store

Build = Callable[..., Image]


@pytest.mark.root
def test_what_the_image_says_of_itself_survives_the_store(build_text: Build, store: Store) -> None:
    built = build_text(
        'FROM tiny\nARG S=TERM\nSTOPSIGNAL SIG$S\nVOLUME /data $S\nVOLUME ["/a b", "/data"]\nMAINTAINER somebody\n'
        "HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=5s --start-interval=500ms --retries=3 \\\n"
        "  CMD curl -f x\n"
        "EXPOSE 80/TCP 8000-8002 127.0.0.1:81:82/udp\n"
    ).config
    config = store.get("test/app").config
    assert config == built
    assert (config.stop_signal, config.volumes) == ("SIGTERM", ("/a b", "/data", "TERM"))
    assert config.exposed_ports == ("80/tcp", "8000/tcp", "8001/tcp", "8002/tcp", "82/udp")
    assert config.healthcheck == Healthcheck(
        ("CMD-SHELL", "curl -f x"), 90 * 10**9, 1_500_000_000, 5 * 10**9, 500_000_000, 3
    )


@pytest.mark.root
def test_the_last_healthcheck_counts_and_none_says_so(build_text: Build) -> None:
    text = 'FROM tiny\nHEALTHCHECK CMD ["a", "b"]\n'
    assert build_text(text).config.healthcheck == Healthcheck(("CMD", "a", "b"))
    assert build_text(f"{text}HEALTHCHECK NONE\n").config.healthcheck == Healthcheck(("NONE",))


@pytest.mark.root
def test_ports_in_a_variable(build_text: Build) -> None:
    assert build_text('FROM tiny\nENV P="80 443/udp"\nEXPOSE $P\n').config.exposed_ports == ("443/udp", "80/tcp")


@pytest.mark.root
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("STOPSIGNAL SIGNOT", "'SIGNOT' is no signal"),
        ("STOPSIGNAL 99", "'99' is no signal"),
        ("EXPOSE 8010-8000", "'8010-8000' is not a port"),
        ("EXPOSE 80/icmp", "'80/icmp' is not a port"),
        ("EXPOSE 0", "'0' is not a port"),
        ("VOLUME $NOTHING", "a path is empty"),
        ('ENV A="${B:?must be given}"', "B: must be given"),
    ],
)
def test_errors_point_at_their_line(build_text: Build, line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_text(f"FROM tiny\n\n{line}\n")
    assert "Dockerfile:3: " in caught.value.message and message in caught.value.message


@pytest.mark.root
@pytest.mark.parametrize("signal", ["9", "kill", "SIGRTMIN+3", "RTMAX-1", "SIGINT"])
def test_signals(build_text: Build, signal: str) -> None:
    assert build_text(f"FROM tiny\nSTOPSIGNAL {signal}\n").config.stop_signal == signal


@pytest.mark.parametrize(
    ("text", "ns"),
    [("0", 0), ("1h2m3s", 3_723 * 10**9), ("1.5h", 5400 * 10**9), (".5s", 5 * 10**8), ("3us4ns", 3004), ("0s", 0)],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "5", "-1s", "1d", "s", "1 s", "1s1", "1e3s", "9" * 18 + "h", "9" * 400 + "s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)

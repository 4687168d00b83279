"""Sizes, shares and lists as a person writes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runtime.errors import UsageError
from testbed.fleet.demands import Host
from testbed.fleet.parsing import parse_numbers, parse_percent, parse_size, parse_sizes, parse_spares


def test_what_is_written_is_read() -> None:
    assert parse_size("--host", "64c,512G") == Host(64, 512 * 2**30)
    assert parse_size("--host", "0.5c, 256MiB") == Host(0.5, 256 * 2**20)
    assert [one.share for one in parse_sizes("--sizes", "0.6:2c,4G;0.4:8c,32G")] == [0.6, 0.4]
    assert parse_numbers("--power", "1,2.5,3", 3) == (1, 2.5, 3)
    assert parse_percent("--headroom", "10 %") == pytest.approx(0.1)
    assert parse_spares("--spare", "1/32") == (1, 32) and parse_spares("--spare", "0") == (0, 1)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_size, "64"),
        (parse_size, "64c,512"),
        (parse_size, "0c,512G"),
        (parse_size, "1.2.3c,5G"),
        (parse_sizes, "2c,4G"),
        (parse_numbers, "1,x"),
        (parse_numbers, "nan"),
        (parse_percent, "ten"),
        (parse_spares, "1"),
        (parse_spares, "1/0"),
        (parse_spares, "-1/32"),
    ],
)
def test_what_is_not_is_refused_by_the_option_s_name(parse: Callable[[str, str], object], text: str) -> None:
    with pytest.raises(UsageError, match="--option"):
        parse("--option", text)

"""What servers and hosts draw and cost, by a stated linear model and stated prices.

A machine draws its idle power and, in proportion to its utilisation, what is between that and its peak: X. Fan, W.-D.
Weber and L. A. Barroso (Power Provisioning for a Warehouse-sized Computer, ISCA 2007) found that to be close to what
thousands of servers draw.
"""

from __future__ import annotations

from msgspec import Struct

from runtime.errors import UsageError

HOURS_A_YEAR = 8766.0


class PowerModel(Struct, frozen=True):
    """Watts of an old server and of a host, idle and at full load."""

    server_idle_w: float = 150.0
    server_peak_w: float = 250.0
    host_idle_w: float = 200.0
    host_peak_w: float = 600.0


class Prices(Struct, frozen=True):
    """What a server and a host cost a year, without electricity, and what a kilowatt-hour costs, in one currency.

    A server: 3,000 over four years, the mean price that Koomey and Taylor (2015) reckon with.
    """

    server_year: float = 750.0
    host_year: float = 3000.0
    kwh: float = 0.15


class Bill(Struct, frozen=True):
    """Machines, the power that they draw, and what they cost a year."""

    machines: int
    watts: float
    cost_year: float


def check_power(power: PowerModel, prices: Prices) -> None:
    """Raise UsageError for a machine whose peak is below its idle power, or a negative figure."""
    if not (0 <= power.server_idle_w <= power.server_peak_w and 0 <= power.host_idle_w <= power.host_peak_w):
        raise UsageError(
            f"power of {power.server_idle_w:g} to {power.server_peak_w:g} W for a server, {power.host_idle_w:g} to"
            f" {power.host_peak_w:g} W for a host",
            "idle first, then peak, neither below 0",
        )
    if min(prices.server_year, prices.host_year, prices.kwh) < 0:
        raise UsageError("a negative price", "prices are 0 or more")


def bill_servers(count: int, utilisation: float, power: PowerModel, prices: Prices) -> Bill:
    """Return what so many old servers draw and cost at a mean utilisation."""
    watts = count * (power.server_idle_w + (power.server_peak_w - power.server_idle_w) * utilisation)
    return _bill(count, watts, prices.server_year, prices.kwh)


def bill_hosts(count: int, utilisation: float, power: PowerModel, prices: Prices) -> Bill:
    """Return what so many hosts draw and cost at a mean utilisation; spare ones are idle and on."""
    watts = count * (power.host_idle_w + (power.host_peak_w - power.host_idle_w) * utilisation)
    return _bill(count, watts, prices.host_year, prices.kwh)


def _bill(count: int, watts: float, price: float, kwh: float) -> Bill:
    return Bill(count, watts, count * price + watts / 1000 * HOURS_A_YEAR * kwh)


def describe_power(power: PowerModel, prices: Prices) -> tuple[str, ...]:
    """Return the model and the prices, a sentence each."""
    return (
        f"power grows linearly with utilisation: a server from {power.server_idle_w:g} to {power.server_peak_w:g} W,"
        f" a host from {power.host_idle_w:g} to {power.host_peak_w:g} W; without cooling",
        f"a server costs {prices.server_year:g} a year, a host {prices.host_year:g}, a kilowatt-hour {prices.kwh:g}",
    )

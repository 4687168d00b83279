"""What would disturb a run is said before it starts: warnings from readings, and on this host."""

from __future__ import annotations

from testbed.host.quiet import find_disturbances, watch_noise
from testbed.sample import HostReading


def quiet_host() -> dict[str, object]:
    return {
        "cpu": {"processors": 2, "governor": "performance"},
        "memory": {"swap_used_bytes": 0, "ksm": "0"},
        "load_average": [0.1, 0.1, 0.1],
    }


def test_a_quiet_host_has_nothing_to_warn_of() -> None:
    idle = HostReading(0, 0, 0, 0, 0), HostReading(1, 5, 0, 100, 0)
    assert find_disturbances(*idle, quiet_host()) == ()


def test_each_disturbance_is_a_sentence_with_its_figure() -> None:
    host = quiet_host() | {
        "cpu": {"processors": 2, "governor": "powersave"},
        "memory": {"swap_used_bytes": 3 << 20, "ksm": "1"},
        "load_average": [1.5, 0.0, 0.0],
    }
    warnings = find_disturbances(HostReading(0, 0, 0, 0, 0), HostReading(1, 80, 5, 100, 0), host)
    for part in ("80% busy", "load average is 1.50", "5.0%", "powersave", "3 MiB", "KSM"):
        assert sum(part in warning for warning in warnings) == 1, part


def test_noise_watches_the_host_for_its_window() -> None:
    assert all(isinstance(warning, str) for warning in watch_noise(window_s=0.05))

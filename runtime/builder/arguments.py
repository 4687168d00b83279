"""The builder's own ARGs: the platform of this build, which every Dockerfile may use in FROM, and in a stage after ARG.

(Docker's "Dockerfile reference", section "Automatic platform ARGs in the global scope".)
"""

from __future__ import annotations

from runtime.images.oci import architecture


def host_platform() -> str:
    """Return this host's platform as OCI images name it: ``linux/amd64``."""
    return f"linux/{architecture()}"


def builtin_arguments(target: str) -> dict[str, str]:
    """Return names and values; what is built, with the target stage ``target``, is for this host."""
    named = {
        f"{whose}{name}": value
        for whose in ("BUILD", "TARGET")
        for name, value in (
            ("PLATFORM", host_platform()), ("OS", "linux"), ("ARCH", architecture()), ("VARIANT", ""),
        )
    }  # fmt: skip
    return {**named, "TARGETSTAGE": target or "default"}

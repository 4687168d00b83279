"""This module defines what a registry can do wrong."""

from __future__ import annotations

from runtime.errors import PrerequisiteError, UsageError


class RegistryError(PrerequisiteError):
    """A registry cannot be reached, fails, or sends what it should not. The same may work later or elsewhere."""


class NotThereError(UsageError):
    """The registry has no such image, blob or repository, or none that these credentials may see.

    ``status`` is HTTP's: 401 and 403 are refusals, which registries also give for what does not exist.
    """

    def __init__(self, message: str, hint: str = "", status: int = 404) -> None:
        super().__init__(message, hint)
        self.status = status


class NoRegistryError(UsageError):
    """A name names no registry, and neither do the settings."""


class CutError(RegistryError):
    """A connection ended, or became too slow, in the midst of a body: the rest can be asked for again."""

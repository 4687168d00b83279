"""Fixtures for the builder's tests: those of images, in whose store it builds."""

from tests.runtime.images.conftest import build_text, context, memory, progress, store, tiny

__all__ = ["build_text", "context", "memory", "progress", "store", "tiny"]

"""The volumes of projects, which outlive them.

<store>/volumes/<project>/<volume>/      what a volume holds
"""

from __future__ import annotations

import os
from pathlib import Path

from runtime.atomic import remove
from runtime.home import store_root


def volumes_folder(project: str) -> Path:
    """Return the folder of a project's volumes."""
    return store_root() / "volumes" / project


def remove_volumes(project: str) -> tuple[str, ...]:
    """Remove a project's volumes; their names."""
    folder = volumes_folder(project)
    names = tuple(sorted(os.listdir(folder))) if folder.is_dir() else ()
    remove(folder)
    return names

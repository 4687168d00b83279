"""Reads compose files for tests: texts by name, in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from testbed.compose.application import NOTHING_ASKED, Asked, load_files, read_application
from testbed.compose.model import Application, Service
from testbed.yamltree.problems import Problems


def read_files(
    folder: Path, files: Mapping[str, str], *names: str, asked: Asked = NOTHING_ASKED, **variables: str
) -> Application:
    """Write ``files`` and read those that are named, in this order, or all."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    problems = Problems()
    wanted = [folder / name for name in names or files]
    application = read_application(load_files(wanted, asked, variables, problems))
    problems.check()
    return application


def read_one(folder: Path, lines: str, top: str = "", **variables: str) -> Service:
    """Read a service ``web`` of an image that has these lines besides, each with its key at the beginning."""
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    text = f"services:\n  web:\n    image: nginx\n{indented}{top}"
    (service,) = read_files(folder, {"compose.yaml": text}, asked=NOTHING_ASKED, **variables).services
    return service

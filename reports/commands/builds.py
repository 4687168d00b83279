"""The tasks that build images from Dockerfiles: images.build, and images.shell to look around in the middle of one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from invoke import Context, task

from reports.commands.exits import reporting
from reports.commands.options import open_store
from runtime.errors import UsageError
from testbed.progress import print_progress

MOST_SECRET_BYTES = 500 * 1024  # as much as a secret of Docker's may have
_ARGUMENT = "NAME=value for ARG; may be given several times"


def _pairs(option: str, values: Iterable[str]) -> dict[str, str]:
    """Return NAME=value pairs of an option. Raises UsageError for another text."""
    pairs: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"--{option} {text[:100]!r} is not NAME=value")
        pairs[name] = value
    return pairs


@task(
    positional=["folder"],
    iterable=["arg", "secret", "ssh"],
    help={
        "folder": "the build context",
        "file": "the Dockerfile (default: Dockerfile in the folder)",
        "tag": "name of the image (default: the folder's name)",
        "target": "the stage to build (default: the last)",
        "arg": _ARGUMENT,
        "secret": "ID=file for RUN --mount=type=secret; may be given several times",
        "ssh": "ID=socket of an ssh-agent for RUN --mount=type=ssh; may be given several times",
        "base": "release of testbed/base: bookworm, trixie or noble (default: the host's own)",
    },
)
@reporting
def build(
    context: Context,
    folder: str,
    arg: Iterable[str],
    secret: Iterable[str],
    ssh: Iterable[str],
    file: str = "",
    tag: str = "",
    target: str = "",
    base: str = "",
) -> int:
    """Build an image from a Dockerfile, and print its id."""
    from runtime.builder.build import build as build_image
    from runtime.files import read_bounded
    from testbed.substitutes.resolving import resolver

    where, store = Path(folder), open_store()
    image = build_image(
        store,
        context=where,
        dockerfile=Path(file) if file else where / "Dockerfile",
        reference=tag or where.resolve().name.lower(),
        progress=print_progress,
        arguments=_pairs("arg", arg),
        base=base,
        target=target,
        resolve=resolver(store, print_progress, base),
        secrets={name: read_bounded(Path(path), MOST_SECRET_BYTES) for name, path in _pairs("secret", secret).items()},
        agents={name: Path(path).resolve() for name, path in _pairs("ssh", ssh).items()},
    )
    print(image.id)
    return 0


@task(
    positional=["where"],
    iterable=["arg"],
    help={
        "where": "a Dockerfile and the line of an instruction in it: web/Dockerfile:12",
        "folder": "the build context (default: the Dockerfile's folder)",
        "arg": _ARGUMENT,
        "base": "release of testbed/base: bookworm, trixie or noble (default: the host's own)",
    },
)
@reporting
def shell(context: Context, where: str, arg: Iterable[str], folder: str = "", base: str = "") -> int:
    """Open a shell in which all is as it was before an instruction of a Dockerfile, say one that fails."""
    from runtime.builder.build import stage_before
    from runtime.builder.shell import open_shell
    from testbed.substitutes.resolving import resolver

    path, _, line = where.rpartition(":")
    if not path or not line.isascii() or not line.isdigit():
        raise UsageError(f"{where[:200]!r} is not a Dockerfile and a line", "./invoke images.shell web/Dockerfile:12")
    dockerfile, store = Path(path), open_store()
    stage = stage_before(
        store,
        dockerfile,
        int(line[:9]),
        context=Path(folder) if folder else dockerfile.parent,
        progress=print_progress,
        arguments=_pairs("arg", arg),
        base=base,
        resolve=resolver(store, print_progress, base),
    )
    print_progress(f"before line {line} of {path}; what you change here is forgotten")
    return open_shell(store, stage, where, print_progress)

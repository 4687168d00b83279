"""Turn an image's configuration into the Process that a container or a virtual machine executes."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from runtime.config.default import DEFAULT_PATH
from runtime.errors import UsageError
from runtime.images.model import Image
from runtime.images.user import add_groups, home_directory, resolve_user
from runtime.spec import Process


def image_process(
    image: Image,
    *,
    command: tuple[str, ...] | None = None,
    entrypoint: tuple[str, ...] | None = None,
    environment: Mapping[str, str],
    user: str = "",
    groups: Sequence[str] = (),
    working_dir: str = "",
) -> Process:
    """Return the process that ``image`` runs, with the settings that Compose may override.

    A given ``entrypoint`` also drops the image's own command; ``environment`` overrides that of the image. PATH and
    HOME are set if neither has them. ``user`` and ``working_dir`` replace the image's unless empty; ``groups``, by name
    or number, are added to the user's. Raises UsageError if there is nothing to execute, or if the image lacks a user
    or group.
    """
    config = image.config
    if command is None:
        command = config.cmd if entrypoint is None else ()
    args = (*(config.entrypoint if entrypoint is None else entrypoint), *command)
    if not args:
        raise UsageError(f"image {image.reference} has no CMD or ENTRYPOINT", "give a command")
    account = add_groups(resolve_user(user or config.user, image.layers), groups, image.layers)
    variables = dict(entry.partition("=")[::2] for entry in config.env) | dict(environment)
    variables.setdefault("PATH", DEFAULT_PATH)
    variables.setdefault("HOME", home_directory(account.uid, image.layers))
    return Process(
        args=args,
        env=tuple(f"{name}={value}" for name, value in variables.items()),
        cwd=posixpath.join(config.working_dir or "/", working_dir) if working_dir else config.working_dir or "/",
        user=account,
    )

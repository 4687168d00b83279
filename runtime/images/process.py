"""Turn an image's configuration into the Process that a container or a virtual machine executes."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.config.default import DEFAULT_PATH
from runtime.errors import UsageError
from runtime.images.model import Image
from runtime.images.user import home_directory, resolve_user
from runtime.spec import Process


def image_process(
    image: Image,
    *,
    command: tuple[str, ...] | None = None,
    entrypoint: tuple[str, ...] | None = None,
    environment: Mapping[str, str],
) -> Process:
    """Return the process that ``image`` runs, with the settings that Compose may override.

    A given ``entrypoint`` also drops the image's own command; ``environment`` overrides that of the image. PATH and
    HOME are set if neither has them. Raises UsageError if there is nothing to execute, or if the image lacks its own
    user.
    """
    config = image.config
    if command is None:
        command = config.cmd if entrypoint is None else ()
    args = (*(config.entrypoint if entrypoint is None else entrypoint), *command)
    if not args:
        raise UsageError(f"image {image.reference} has no CMD or ENTRYPOINT", "give a command")
    user = resolve_user(config.user, image.layers)
    variables = dict(entry.partition("=")[::2] for entry in config.env) | dict(environment)
    variables.setdefault("PATH", DEFAULT_PATH)
    variables.setdefault("HOME", home_directory(user.uid, image.layers))
    return Process(
        args=args,
        env=tuple(f"{name}={value}" for name, value in variables.items()),
        cwd=config.working_dir or "/",
        user=user,
    )

"""Builds public Dockerfiles with buildah, too, on the same images, and compares what comes of it.

What two builds of the same never have alike does not count: times, logs, caches, compiled Python (it holds times), what
is temporary, identities that are drawn, what names the host, and the day of a password's last change (/etc/shadow).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from benchmarks.buildah import Buildah
from benchmarks.image_contents import compare_images
from runtime.builder.build import leading_values
from runtime.builder.dockerfile import Dockerfile
from runtime.builder.stages import Resolver, plan_stages
from runtime.builder.trust import FOLDER, lend_certificates
from runtime.errors import WorkloadError
from runtime.images.base import apt_options
from runtime.images.model import Image
from runtime.images.store import Store

_CHANCE = re.compile(
    r"/(?:dev|proc|sys|run|tmp|var/(?:log|cache|tmp|run)|var/lib/(?:apt/lists|dpkg/[\w-]+-old))(?:/.*)?"
    r"|/root/\.(?:npm|cache|config|local|yarn.*|bash_history|wget-hsts)(?:/.*)?|.*/__pycache__(?:/.*)?"
    rf"|{re.escape(FOLDER)}(?:/.*)?"
    r"|/etc/(?:hosts|hostname|resolv\.conf|pip\.conf|machine-id|shadow|ld\.so\.cache|(?:passwd|group|shadow|gshadow)-)"
    r"|/etc/apt(?:/apt\.conf\.d(?:/99testbed-host)?)?|/etc/ssl/(?:private|certs)/ssl-cert-.*"
    r"|/etc/mailname|/etc/exim4/update-exim4\.conf\.conf|/var/lib/exim4/.*"  # the host's name
    r"|/var/lib/(?:dbus/machine-id|systemd/catalog/database)"
)
_PIP = f"[global]\ncert = {FOLDER}/0.pem\n"


class Beside(Struct, frozen=True):
    """How many files and members of the configuration were compared, what differs, by its name, as ours and theirs; or
    why buildah has not built the file."""

    count: int
    differs: tuple[str, ...] = ()
    reason: str = ""


class Peer:
    """buildah, with storage and files of its own below ``folder``, and images of ``store``."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.store, self.buildah = store, Buildah(folder)
        self._lent: set[str] = set()
        apt, pip = folder / "apt.conf", folder / "pip.conf"
        apt.write_text("".join(f"{line}\n" for line in apt_options()))
        pip.write_text(_PIP)
        shown = {apt: "/etc/apt/apt.conf.d/99testbed-host"}
        if mounts := lend_certificates(os.environ).mounts:
            shown |= {pip: "/etc/pip.conf", Path(mounts[0].source): mounts[0].destination}
        self._volumes = [f"--volume={path}:{place}:ro" for path, place in shown.items()]

    def compare(self, file: Dockerfile, context: Path, image: Image, resolve: Resolver) -> Beside:
        """Build a file, of which ours made ``image``, and compare."""
        try:
            for reference, base in _bases(file, resolve).items():
                self._lend(base.reference, reference)
            self.buildah.build(context, "theirs", "--format=docker", f"--file={file.path}", *self._volumes)
        except WorkloadError as error:
            return Beside(0, (), " ".join(error.message.split())[-200:])
        self.buildah.lend(self.store, image.reference, "ours")
        try:
            count, found = compare_images(self.store, image, self.buildah, "ours", "theirs", _is_chance)
        finally:
            self.buildah.remove(("ours", "theirs"))
        return Beside(count, tuple(f"{name}: {what}" for name, what in found.items()))

    def close(self) -> None:
        """Remove its images."""
        self.buildah.remove()

    def _lend(self, reference: str, name: str) -> None:
        # What has no registry in front is looked for here first.
        registry = name.partition("/")[0]
        tag = name if "/" in name and ("." in registry or ":" in registry) else f"localhost/{name}"
        if tag not in self._lent:
            self.buildah.lend(self.store, reference, tag)
            self._lent.add(tag)


def _bases(file: Dockerfile, resolve: Resolver) -> Mapping[str, Image]:
    """Return the images that a file stands on, by the names that it has for them."""
    found: dict[str, Image] = {}

    def look_up(reference: str, platform: str) -> Image | None:
        image = resolve(reference, platform)
        if image is not None:
            found[reference] = image
        return image

    plan_stages(file, "", leading_values(file, {}), look_up)
    return found


def _is_chance(path: str) -> bool:
    return _CHANCE.fullmatch(path) is not None

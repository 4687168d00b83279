"""What a registry sends as a manifest: checked, told from an index, and for an index what it has for a platform."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from runtime.errors import UsageError
from runtime.images.descriptors import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    INDEXES,
    MANIFEST,
    MANIFESTS,
    Descriptor,
    Index,
    Manifest,
    is_index,
    parse_index,
    parse_manifest,
)
from runtime.output import shortened
from runtime.registry.errors import RegistryError

# What a client asks for, in the order of its preference.
ACCEPT = ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX))
# An image's configuration: its history has some hundred lines.
CONFIG_BYTES = 8 << 20
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


class _Members(Struct, rename="camel"):
    media_type: str = ""
    manifests: msgspec.Raw = msgspec.Raw()
    layers: msgspec.Raw = msgspec.Raw()
    subject: Descriptor | None = None
    artifact_type: str = ""
    config: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Received(Struct, frozen=True):
    """A manifest or index as it was sent: its very bytes, and what they say."""

    content: bytes
    descriptor: Descriptor
    document: Manifest | Index


def read(content: bytes, descriptor: Descriptor, name: str) -> Manifest | Index:
    """Return the manifest or index that a registry calls ``name`` and sent as ``descriptor`` says.

    Raises RegistryError for what is neither, and for one that is both, or says that it is something else than it was
    sent as: two clients could take it for different images.
    """
    sent_as = descriptor.media_type
    try:
        members = msgspec.json.decode(content, type=_Members)
        if sent_as.startswith(_SCHEMA_1):
            raise RegistryError(
                f"{name}: it has schema 1, which is no longer in use", "push it again with a newer tool"
            )
        if _is_given(members.manifests) and _is_given(members.layers):
            raise RegistryError(f"{name}: it is both an image and a list of images")
        if members.media_type and sent_as in (*MANIFESTS, *INDEXES) and members.media_type != sent_as:
            raise RegistryError(f"{name}: it is {shortened(members.media_type)!r}, and was sent as {sent_as}")
        known = sent_as if sent_as in (*MANIFESTS, *INDEXES) else ""
        if is_index(content, known, name):
            return parse_index(content, name)
        return parse_manifest(content, name)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise RegistryError(f"{name}: not a manifest: {shortened(str(error))}") from error
    except UsageError as error:
        raise RegistryError(shortened(error.message), error.hint) from error


def _is_given(member: msgspec.Raw) -> bool:
    return bytes(member) not in (b"", b"null")


def referrer(content: bytes, descriptor: Descriptor) -> tuple[Descriptor, Descriptor] | None:
    """Return the subject of a manifest, and the descriptor with which it stands in the list of that subject's referrers
    (distribution-spec 1.1, "Listing Referrers"); None for one without a subject. Raises ValueError."""
    members = msgspec.json.decode(content, type=_Members)
    if members.subject is None:
        return None
    kind = members.artifact_type or (members.config.media_type if members.config else "")
    listed = msgspec.structs.replace(descriptor, artifact_type=kind, annotations=members.annotations)
    return members.subject, listed

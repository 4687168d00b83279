"""The tasks on the image store and its registries: list, inspect, history, diff, verify, gc, save, load, tag, rm, pull,
push, referrers, serve, and kernel."""

from __future__ import annotations

import json as json_module
import os
import sys
from pathlib import Path

from invoke import Context, task
from msgspec import to_builtins

from reports.commands.exits import reporting
from reports.commands.options import open_store
from runtime.errors import UsageError
from runtime.output import shortened
from testbed.progress import print_progress

_STDIO = "-"
_PLAIN = "ask registries by HTTP without encryption"


def _print(value: object) -> None:
    print(json_module.dumps(to_builtins(value), indent=2))


@task(name="list", help={"json": "print as JSON on standard output"})
@reporting
def list_(context: Context, json: bool = False) -> int:
    """List the images of the store: name, id, when it was made, layers and size."""
    from reports.commands.image_tables import describe_images
    from runtime.images.listing import list_images

    listed = list_images(open_store())
    _print(listed) if json else print(describe_images(listed))
    return 0


@task(positional=["image"], help={"image": "its name"})
@reporting
def inspect(context: Context, image: str) -> int:
    """Print all that the store has of an image, as JSON: manifest, configuration, and where each layer is."""
    from runtime.images import listing

    _print(listing.inspect(open_store(), image))
    return 0


@task(positional=["image"], help={"image": "its name", "json": "print as JSON on standard output"})
@reporting
def history(context: Context, image: str, json: bool = False) -> int:
    """Print the steps by which an image was made, the newest first, with the size of each one's layer."""
    from reports.commands.image_tables import describe_history
    from runtime.images import listing

    steps = listing.history(open_store(), image)
    _print(steps) if json else print(describe_history(steps))
    return 0


@task(
    positional=["before", "after"],
    help={"before": "an image", "after": "another", "json": "print as JSON on standard output"},
)
@reporting
def diff(context: Context, before: str, after: str, json: bool = False) -> int:
    """Print which files an image has otherwise than another: added (A), changed (C) or removed (D), and how."""
    from reports.commands.image_tables import describe_change
    from runtime.images.difference import differences

    store = open_store()
    found = differences(store.get(before).layers, store.get(after).layers)
    if json:
        _print(list(found))
    else:
        for change in found:
            print(describe_change(change))
    return 0


@task(help={"images": "names, comma-separated (default: all, and what no image names)"})
@reporting
def verify(context: Context, images: str = "") -> int:
    """Read every blob and every layer's files, and say which are no longer what they were; exit 1 when there are
    any."""
    from reports.commands.options import split_words
    from runtime.images.verification import verify_store

    problems = verify_store(open_store(), split_words(images), print_progress)
    for problem in problems:
        print(f"{problem.where}: {problem.what}")
    if not problems:
        print("all is as it should be")
    return 1 if problems else 0


@task(
    help={
        "cache": "also forget build steps, with layers that are in no image",
        "dry-run": "only say what would be removed",
    }
)
@reporting
def gc(context: Context, cache: bool = False, dry_run: bool = False) -> int:
    """Remove layers and blobs that no image names any more, and no writable root stands on."""
    from runtime.home import store_root
    from runtime.images.collection import collect
    from runtime.roots.store import RootStore

    store = open_store()
    roots = RootStore(store_root(), store)
    keep = roots.read().needed_diff_ids()
    done = collect(store, print_progress, cache=cache, dry_run=dry_run, keep=keep, keep_merged=roots.merged())
    would = "would remove" if dry_run else "removed"
    merged = f", {done.merged} merged directories" if done.merged else ""
    print(f"{would} {done.layers} layers and {done.blobs} blobs{merged}: {done.freed_bytes >> 20} MiB")
    if done.mounted:
        print(f"{done.mounted} more layers are mounted now")
    if done.cache_bytes:
        print(f"{done.cache_bytes >> 20} MiB more are build cache: --cache")
    return 0


@task(
    positional=["images"],
    help={
        "images": "names, comma-separated",
        "to": "the file, or - for standard output",
        "format": "oci (a tar of an image layout) or docker (as docker save)",
        "compression": "of layers that were built here, in an oci archive: none (default), gzip or zstd",
    },
)
@reporting
def save(context: Context, images: str, to: str, format: str = "oci", compression: str = "none") -> int:
    """Save images as one archive, which skopeo, podman, buildah, umoci and docker read."""
    from reports.commands.options import split_words
    from runtime.atomic import partial
    from runtime.images.compression import parse_compression
    from runtime.images.save import parse_format
    from runtime.images.save import save as write

    kind, packed, names = parse_format(format), parse_compression(compression), split_words(images)
    if not names:
        raise UsageError("images.save: which images?", "./invoke images.list names them")
    store = open_store()
    if to == _STDIO:
        if sys.stdout.isatty():
            raise UsageError("images.save --to -: standard output is a terminal", "give a file, or a pipe")
        write(store, names, sys.stdout.buffer, print_progress, format=kind, compression=packed)
        sys.stdout.buffer.flush()
        return 0
    if not Path(to).absolute().parent.is_dir():
        raise UsageError(f"images.save --to {to}: there is no such folder")
    with partial(Path(to).absolute()) as unfinished, unfinished.open("wb") as file:
        write(store, names, file, print_progress, format=kind, compression=packed)
    print_progress(f"{to}: {Path(to).stat().st_size >> 20} MiB")
    return 0


@task(
    positional=["file"],
    help={
        "file": "an oci or docker archive, a directory with an image layout, or - for standard input",
        "name": "what the image is to be called (default: as the archive calls it)",
        "platform": "of several, such as linux/arm64 (default: this host's)",
    },
)
@reporting
def load(context: Context, file: str, name: str = "", platform: str = "") -> int:
    """Bring images from an archive, of whatever tool, into the store; print their names."""
    from runtime.images.load import load as read

    source = sys.stdin.buffer if file == _STDIO else Path(file)
    for image in read(open_store(), source, print_progress, reference=name, platform=platform):
        print(image.reference)
    return 0


@task(positional=["image", "name"], help={"image": "an image", "name": "a further name for it"})
@reporting
def tag(context: Context, image: str, name: str) -> int:
    """Give an image a further name."""
    from runtime.images.reference import check_name

    store = open_store()
    with store.writing(print_progress):
        store.alias(image, check_name(name))
    return 0


@task(positional=["images"], help={"images": "names, comma-separated"})
@reporting
def rm(context: Context, images: str) -> int:
    """Forget names of images; what no other name needs is then removed by images.gc."""
    from reports.commands.options import split_words

    store = open_store()
    names = split_words(images)
    for name in names:
        store.manifest(name)  # all of them, or none
    with store.writing(print_progress):
        for name in names:
            store.untag(name)
    return 0


@task(
    positional=["image"],
    help={
        "image": "[HOST/]PATH[:TAG][@DIGEST]; a short name is one of TESTBED_REGISTRY or of registries.conf",
        "platform": "of several, such as linux/arm64 (default: this host's)",
        "plain-http": _PLAIN,
    },
)
@reporting
def pull(context: Context, image: str, platform: str = "", plain_http: bool = False) -> int:
    """Bring an image from a registry into the store; print its name."""
    from runtime.registry.client import Client
    from runtime.registry.pull import pull as fetch

    with Client(os.environ, plain_http=plain_http) as client:
        print(fetch(open_store(), client, image, print_progress, platform).reference)
    return 0


@task(
    positional=["image", "to"],
    help={
        "image": "an image",
        "to": "[HOST/]PATH[:TAG] in a registry (default: its name)",
        "compression": "of layers that were built here: none (default), gzip or zstd",
        "plain-http": _PLAIN,
    },
)
@reporting
def push(context: Context, image: str, to: str = "", compression: str = "none", plain_http: bool = False) -> int:
    """Push an image from the store to a registry; print its digest."""
    from runtime.images.compression import parse_compression
    from runtime.registry.client import Client
    from runtime.registry.push import push as send

    packed = parse_compression(compression)
    with Client(os.environ, plain_http=plain_http) as client:
        print(send(open_store(), client, image, to or image, print_progress, packed))
    return 0


@task(
    positional=["image"],
    help={"image": "[HOST/]PATH[:TAG][@DIGEST] in a registry", "type": "only those of a type", "plain-http": _PLAIN},
)
@reporting
def referrers(context: Context, image: str, type: str = "", plain_http: bool = False) -> int:
    """List what a registry has about an image (signatures, lists of its parts): digest, size and type of each."""
    from runtime.registry.client import Client

    with Client(os.environ, plain_http=plain_http) as client:
        reference, repository = client.target(image)
        digest = reference.digest or repository.manifest(reference.tag).descriptor.digest
        for one in repository.referrers(digest, type):
            print(f"{one.digest}  {one.size:>9}  {shortened(one.artifact_type)}")
    return 0


@task(help={"port": "on loopback (default: a free one)"})
@reporting
def serve(context: Context, port: str = "0") -> int:
    """Lend the store as a registry to engines on this host, until it is interrupted; print its address."""
    from threading import Event

    from reports.commands.options import parse_number
    from runtime.registry.serve import serving

    store = open_store()
    with serving(store, parse_number("--port", port)) as address:
        print(address, flush=True)
        print_progress(f"podman pull --tls-verify=false {address}/NAME, for each of images.list; Ctrl-C ends it")
        Event().wait()
    return 0


@task
@reporting
def kernel(context: Context) -> int:
    """Build the minimal guest kernel from the distribution's kernel source; takes minutes."""
    from testbed.images import build_guest_kernel

    built = build_guest_kernel(print_progress)
    print(f"{built.release} from {built.package} {built.version}: {built.image}")
    return 0

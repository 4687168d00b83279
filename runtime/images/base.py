"""The base image: a minimal Debian or Ubuntu, of the host's own release or another, made by mmdebstrap.

Packages come from the sources that the host has for the release (``runtime.images.releases``), and ``apt-get`` inside
the image uses the same. The layer is cached by the hash of all its inputs. What would differ from one build to the
next (logs, caches, the machine id, today's date) is removed or set to a fixed time, so that the same packages give the
same layer.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from msgspec import Struct

from runtime.config.default import DEFAULT_PATH
from runtime.errors import PrerequisiteError
from runtime.images.layers import settle
from runtime.images.model import History, Image, ImageConfig, Layer
from runtime.images.oci import EPOCH_S
from runtime.images.releases import (
    RELEASES,
    Host,
    choose_release,
    explain_failure,
    parse_host,
    read_sources_file,
    release_sources,
)
from runtime.images.sources import Source, distribution_sources, read_texts, to_deb822
from runtime.images.space import MIB, require_space
from runtime.images.store import Store

REFERENCE = "testbed/base"
# Increased whenever this module changes the content of the layer.
RECIPE = 2
# Essential packages and apt, with which a Dockerfile can install the rest.
VARIANT = "apt"
NEEDED_BYTES = 1500 * MIB
# Start with a merged /usr. Otherwise the release's packages install perl (55 MB) to merge it themselves.
HOOKS = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"

# No workload reads documentation and translations; licences stay.
_DPKG_OPTIONS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
# How this host reaches and trusts its archive; apt in a RUN must do the same (``apt_options``).
_APT_OPTIONS = (
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::Retries",
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
)
_IMAGE_APT_OPTION = 'Acquire::Languages "none"'
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

_SEEN_AT = "/mnt"
# All of mmdebstrap's processes and mounts are in namespaces that end with our child, which ends with us.
_CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--pid", "--fork", "--kill-child=KILL", "--mount", "--mount-proc"),
    # apt's own user, which downloads, may not enter the store; here it sees only the new tree.
    *("sh", "-c", f'mount --bind "$0" {_SEEN_AT} && exec "$@"'),
)

_EMPTIED = ("dev", "proc", "sys", "run", "tmp", "var/tmp", "var/lib/apt/lists", "var/cache/apt")
_REMOVED = (
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "var/cache/ldconfig/aux-cache",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
    "var/log/alternatives.log",
    "var/log/apt",
)
# They are empty, so that a runtime can mount its own over them without a change to the image.
_PLACEHOLDERS = ("etc/hostname", "etc/hosts", "etc/resolv.conf")
# Packages must not start services while they are installed (invoke-rc.d(8): 101, forbidden by policy).
_POLICY = "#!/bin/sh\nexit 101\n"


class Inputs(Struct, frozen=True):
    """All that determines the content of the base layer; keys are given as sha256 by path.

    How a host reaches its archive (proxies, retries) is not part of it, so a copied store is valid on another host.
    """

    architecture: str
    codename: str
    sources: tuple[Source, ...]
    packages: tuple[str, ...]
    keyrings: tuple[tuple[str, str], ...]

    def key(self) -> str:
        """Return the cache key: the sha256 of all inputs and of this module's version."""
        document = [
            RECIPE, VARIANT, HOOKS, _DPKG_OPTIONS, self.architecture, self.codename, to_deb822(self.sources),
            self.packages, self.keyrings,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def ensure_base(store: Store, progress: Callable[[str], None], release: str = "") -> Image:
    """Return the base image of ``release`` ("": the host's), and make it first if its inputs are new (about 20 s and
    100 MB of packages).

    Raises UsageError for an unknown release, and PrerequisiteError if mmdebstrap is missing, without root, without
    space, or if no package source answers.
    """
    inputs = release_inputs(release)
    return ensure_system(store, inputs, base_reference(inputs.codename), progress)


def base_reference(codename: str) -> str:
    """Return the name of a release's base image, ``testbed/base:trixie``."""
    return f"{REFERENCE}:{codename}"


def ensure_system(store: Store, inputs: Inputs, reference: str, progress: Callable[[str], None]) -> Image:
    """Return the image ``reference``, of one layer: the release and the packages of ``inputs``. It is made first if
    they are new. Raises as ``ensure_base`` does."""
    layer = store.cached(inputs.key())
    image = store.find(reference)
    if layer is not None and image is not None and image.layers == (layer,):
        return image
    with store.building(progress):
        layer = store.cached(inputs.key()) or _make(store, inputs, progress)
        config = ImageConfig(env=(f"PATH={DEFAULT_PATH}",), cmd=("/bin/sh",))
        return store.tag(reference, config, (layer,), (History(_created_by(inputs), False),))


def read_host(os_release: Path = Path("/etc/os-release")) -> Host:
    """Return this host's distribution and release. Raises PrerequisiteError if it is neither Debian nor Ubuntu."""
    return parse_host(os_release.read_text())


def release_inputs(release: str = "", packages: tuple[str, ...] = (), apt_folder: Path = Path("/etc/apt")) -> Inputs:
    """Return the inputs of an image of ``release`` ("": the host's) with ``packages``, made on this host.

    Raises UsageError for an unknown release, PrerequisiteError if this host has no package sources for it.
    """
    host = read_host()
    chosen = choose_release(release, host)
    sources = release_sources(chosen, host, apt_folder)
    encrypted = any(uri.startswith("https:") for source in sources for uri in source.uris)
    keyrings = sorted({source.keyring for source in sources if source.keyring})
    return Inputs(
        architecture=platform.machine(),
        codename=chosen.codename,
        sources=sources,
        packages=tuple(dict.fromkeys((*packages, *chosen.packages, *(("ca-certificates",) if encrypted else ())))),
        keyrings=tuple((path, hashlib.sha256(Path(path).read_bytes()).hexdigest()) for path in keyrings),
    )


def _make(store: Store, inputs: Inputs, progress: Callable[[str], None]) -> Layer:
    if os.geteuid() != 0:
        raise PrerequisiteError("making the base image needs root", "run as root, or through sudo")
    require_space(store.root, NEEDED_BYTES, "making the base image")
    progress(f"base: mmdebstrap {inputs.codename}")
    began = time.monotonic()
    with store.scratch() as scratch:
        tree, began_s = scratch / "root", time.time() - 1
        bootstrap(inputs, scratch, tree)
        _write(tree / "usr/sbin/policy-rc.d", _POLICY, 0o755)
        newest_s = settle(tree, began_s)
        layer = store.add_layer(tree, _created_by(inputs), newest_s)
    store.remember(inputs.key(), layer)
    progress(f"base: done in {time.monotonic() - began:.1f} s")
    return layer


def bootstrap(inputs: Inputs, scratch: Path, tree: Path) -> None:
    """Install the release with ``inputs.packages`` into the new directory ``tree``, without logs, caches or identity.

    ``scratch`` is a directory for temporary files, and ``tree`` is in it. This needs root. Raises PrerequisiteError
    with the last lines of mmdebstrap's output if that fails.
    """
    if shutil.which("mmdebstrap") is None:
        raise PrerequisiteError("mmdebstrap is not installed", "apt-get install mmdebstrap")
    tree.mkdir(mode=0o755)
    _run_mmdebstrap(inputs, scratch, tree)
    _clean(tree, inputs)


def _run_mmdebstrap(inputs: Inputs, scratch: Path, tree: Path) -> None:
    # If it is killed, we have to remove its temporary files, so they lie with the rest. apt's user writes here, too.
    temporary = scratch / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    sources = scratch / "base.sources"
    sources.write_text(to_deb822(inputs.sources))
    command = [
        *_CONTAINED,
        str(scratch),
        "mmdebstrap",
        f"--variant={VARIANT}",
        "--mode=root",
        "--format=directory",
        *([] if RELEASES[inputs.codename].is_merged else [f"--hook-dir={HOOKS}"]),
        *([f"--include={','.join(inputs.packages)}"] if inputs.packages else []),
        *(f"--aptopt={option}" for option in (*apt_options(), _IMAGE_APT_OPTION)),
        *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
        inputs.codename,
        f"{_SEEN_AT}/{tree.relative_to(scratch)}",
        f"{_SEEN_AT}/{sources.name}",
    ]
    environment = {
        "PATH": DEFAULT_PATH,
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(EPOCH_S),
        "TMPDIR": f"{_SEEN_AT}/{temporary.name}",
        **proxy_environment(os.environ),
    }
    log = scratch / "log"
    with open(log, "wb") as output:
        # If we are interrupted, run() kills the child.
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
        )
    if done.returncode != 0:
        raise _failure(inputs, done.returncode, log.read_text(errors="replace"))


def _failure(inputs: Inputs, status: int, output: str) -> PrerequisiteError:
    last = "\n    ".join(output.strip().splitlines()[-8:])
    if "No space left on device" in output:
        return PrerequisiteError(
            f"mmdebstrap {inputs.codename}: no space left on device\n    {last}",
            "free some space, or set TESTBED_HOME to a directory on a larger file system",
        )
    where = ", ".join(sorted({uri for source in inputs.sources for uri in source.uris}))
    return PrerequisiteError(
        f"mmdebstrap {inputs.codename} from {where}: exit status {status}\n    {last}",
        explain_failure(output, RELEASES[inputs.codename], inputs.sources),
    )


def _clean(tree: Path, inputs: Inputs) -> None:
    """Give the new tree the final content of the layer: our sources, and no logs, caches or identity."""
    for name in _EMPTIED:
        for path in (tree / name).glob("*"):
            _remove(path)
    for name in _REMOVED:
        _remove(tree / name)
    for name in _PLACEHOLDERS:
        _remove(tree / name)
        _write(tree / name, "", 0o644)
    apt = tree / "etc/apt"
    for path in (apt / "sources.list", *(apt / "sources.list.d").glob("*")):
        _remove(path)
    _write(apt / "sources.list.d/base.sources", to_deb822(inputs.sources), 0o644)
    # mmdebstrap leaves all its options there, including the host's proxy.
    _write(apt / "apt.conf.d/99mmdebstrap", _IMAGE_APT_OPTION + ";\n", 0o644)
    for keyring, _ in inputs.keyrings:
        target = tree / keyring.lstrip("/")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(Path(keyring).read_bytes())
            target.chmod(0o644)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, text: str, mode: int) -> None:
    path.write_text(text)
    path.chmod(mode)


def _created_by(inputs: Inputs) -> str:
    return f"mmdebstrap --variant={VARIANT} {inputs.codename}"


def proxy_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the proxy settings in ``environment``. Downloading packages needs them, and no image keeps them."""
    return {name: environment[name] for name in PROXY_VARIABLES if name in environment}


def package_urls(apt_folder: Path = Path("/etc/apt"), os_release: Path = Path("/etc/os-release")) -> tuple[str, ...]:
    """Return the URLs of the package sources that this host has for its own release and for those of base images, and
    of the proxies in apt's configuration; none without apt."""
    try:
        codenames = {parse_host(os_release.read_text()).codename, *RELEASES}
        texts = {**read_texts(apt_folder), **read_sources_file(os.environ)}
    except (PrerequisiteError, OSError):
        return ()
    options = (line.partition(" ")[2].strip('";') for line in apt_options() if "::Proxy" in line)
    sources = (source for codename in sorted(codenames) for source in distribution_sources(texts, codename))
    return (*options, *dict.fromkeys(uri for source in sources for uri in source.uris))


@cache
def apt_options() -> tuple[str, ...]:
    """Return how this host's apt reaches and trusts its archive, as lines of apt.conf(5); read once in a process."""
    try:
        answer = subprocess.run(
            ["apt-config", "dump", "--no-empty", "--format", '%f "%v";%n', *_APT_OPTIONS],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return ()
    return tuple(line for line in answer.stdout.splitlines() if line.startswith("Acquire::"))

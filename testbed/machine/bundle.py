"""One file with everything that a run in the reference machine was made of, and what it must give again.

It is a tar archive, compressed: ``bundle.json``, the run's trials or, of the ladder, its record, and the machine's
kernel, initial RAM disk and disk, on which are the emulator's own files, too, and all of this checkout that measures.
Each part is named with its sha256, and none is used before it has that.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from runtime import atomic
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.files import read_bounded
from runtime.home import store_root
from runtime.images.space import MIB, require_space
from runtime.lease import lease
from testbed.bench import make_run_id
from testbed.host.turn import take_turn
from testbed.images import build_images
from testbed.interruption import Undo
from testbed.ladder.model import FILE
from testbed.ladder.store import encode_results, read_ladder
from testbed.ladder.study import PROGRAMS
from testbed.machine import emulator
from testbed.machine.differences import Difference, compare_ladders, compare_trials
from testbed.machine.emulation import USER, emulate
from testbed.machine.inputs import Inputs, combined_digest, inputs, read_qemu_version, require_room
from testbed.machine.job import Job
from testbed.machine.reference import hand_over, results_digests
from testbed.machine.systems import choose_system
from testbed.results import TRIALS, RunFolder
from testbed.scenario.model import load

# Raised when an older testbed could no longer read it right.
FORMAT = 1
_DESCRIPTION = "bundle.json"
_LONGEST_DESCRIPTION = 1 << 20
_LONGEST_RESULTS = 256 * MIB
_LONGEST_PART = 16 << 30
_CHUNK_BYTES = 1 << 20
# Of an opened bundle, the directory that has its parts; beside it are the layers, and no layer may be below another.
_ROOT = "parts"
_NEEDED_BYTES = 4000 * MIB


class Description(Struct, frozen=True):
    """What a bundle holds: the ``job``, the emulator's version and the layers of the disk that it is made of, bottom
    first, the disk's length, and the sha256 of each input and of each result by name."""

    format: int
    job: Job
    run: str
    qemu: str
    layers: tuple[str, ...]
    disk_bytes: int
    inputs: Mapping[str, str]
    results: Mapping[str, str]


class _MadeOf(Struct, frozen=True):
    """What the inputs of a run were made of, as its user named it."""

    scenario: str
    base: str
    guest_kernel: str


class _Machine(Struct, frozen=True):
    """What a manifest says of the reference machine, as far as it is needed here."""

    kind: str
    qemu: str
    job: Job
    made_of: _MadeOf
    inputs_by_name: Mapping[str, str]
    results_by_name: Mapping[str, str]


class _Run(Struct, frozen=True):
    """A run that is to be bundled: of the bench or of the ladder, whose results are its trials or its record."""

    name: str
    machine: _Machine
    commit: object
    results: bytes


def _read_run(path: Path) -> _Run:
    """Return the run in a folder. Raises UsageError for one that was not made in the reference machine."""
    if (path / FILE).exists():
        ladder = read_ladder(path)
        machine = _read_machine(path, ladder.machine, "ladder")
        return _Run(ladder.id, machine, ladder.source.get("commit"), encode_results(ladder))
    run = RunFolder.open(path)
    machine = _read_machine(path, run.manifest.get("machine"), "bench")
    commit = (run.manifest.get("source") or {}).get("commit")
    return _Run(run.run_id, machine, commit, read_bounded(run.path / TRIALS, _LONGEST_RESULTS))


def _read_machine(path: Path, described: object, task: str) -> _Machine:
    try:
        return msgspec.convert(described, _Machine)
    except msgspec.ValidationError as error:
        hint = f"{task} --machine reference makes a run that can be bundled; of this one, pass its folder on"
        raise UsageError(f"{path} was not measured in the reference machine", hint) from error


def name_results(job: Job) -> str:
    """Return what a bundle calls the results of a job."""
    return FILE if job.rungs else TRIALS


def bundle(path: Path, scenarios: Path, target: Path, progress: Callable[[str], None]) -> str:
    """Write the bundle of the run in the folder ``path``, of the bench or of the ladder, to ``target``, whole or not at
    all, and return the digest over its inputs.

    The inputs are made again, of this checkout and this host's store. Raises UsageError when the run was not made in
    the reference machine, or when they are no longer the run's.
    """
    run = _read_run(path)
    machine, made_of = run.machine, run.machine.made_of
    scenario = load(made_of.scenario, scenarios)
    require_space(target.absolute().parent, _NEEDED_BYTES, "writing the bundle")
    require_room()
    programs = PROGRAMS if machine.job.rungs else {}
    images = build_images(scenario, progress, made_of.base, machine.job.measures, programs=programs)
    kernel = Path(made_of.guest_kernel) if made_of.guest_kernel else None
    with inputs(machine.job, scenario.folder, images, run.name, progress, kernel) as made:
        expected = machine.inputs_by_name
        if changed := sorted(name for name in made.digests if made.digests[name] != expected.get(name)):
            raise UsageError(
                f"the inputs of the run {run.name} cannot be made again here: {', '.join(changed)} changed",
                f"check out {run.commit or 'its commit'}, with the store that it was measured with, or measure again",
            )
        description = Description(
            format=FORMAT,
            job=machine.job,
            run=run.name,
            qemu=machine.qemu,
            layers=made.layer_names,
            disk_bytes=made.disk_bytes,
            inputs=made.digests,
            results=machine.results_by_name,
        )
        progress(f"writing {target}")
        with atomic.partial(target.absolute()) as unfinished:
            _write(unfinished, description, run.results, made.files)
        return made.digest


def _write(target: Path, description: Description, results: bytes, files: Path) -> None:
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        document = msgspec.json.format(msgspec.json.encode(description), indent=1)
        _add(archive, _DESCRIPTION, io.BytesIO(document), len(document))
        _add(archive, name_results(description.job), io.BytesIO(results), len(results))
        for part in _list_parts(description.job):
            with (files / part).open("rb") as source:
                _add(archive, part, source, (files / part).stat().st_size)


def _list_parts(job: Job) -> tuple[str, ...]:
    return emulator.PARTS[choose_system(job.platforms)]


def _add(archive: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    archive.addfile(entry, source)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Description, bytes, Path]]:
    """Yield what a bundle says, the results that it expects, and a folder with its parts, each of which has its digest.

    Raises UsageError, which names the part and its digest, for a file that is truncated, changed or no bundle.
    """
    require_space(store_root(), _NEEDED_BYTES, "unpacking the bundle")
    with atomic.scratch(store_root() / "guest" / "bundle") as folder, ExitStack() as undo:
        files = folder / _ROOT / emulator.FOLDER.name
        files.mkdir(parents=True)
        try:
            archive = undo.enter_context(tarfile.open(path, mode="r|gz"))
            description = msgspec.json.decode(_read(archive, _DESCRIPTION, _LONGEST_DESCRIPTION), type=Description)
            if description.format > FORMAT:
                raise UsageError(f"{path} has the format {description.format}; this testbed reads up to {FORMAT}")
            wanted = name_results(description.job)
            results = _read(archive, wanted, _LONGEST_RESULTS)
            _check(path, wanted, hashlib.sha256(results).hexdigest(), description.results.get(wanted))
            for name in _list_parts(description.job):
                digest = _extract(archive, name, files / name)
                _check(path, name, digest, description.inputs.get(name))
        except (tarfile.TarError, EOFError, OSError, msgspec.MsgspecError) as error:
            raise UsageError(f"{path} is no whole bundle: {error}", "fetch it again") from error
        yield description, results, folder


def _member(archive: tarfile.TarFile, name: str) -> tuple[tarfile.TarInfo, IO[bytes]]:
    entry = archive.next()
    stream = archive.extractfile(entry) if entry is not None and entry.isfile() else None
    if entry is None or entry.name != name or stream is None:
        raise tarfile.TarError(f"{name} is not where it should be")
    return entry, stream


def _read(archive: tarfile.TarFile, name: str, limit_bytes: int) -> bytes:
    entry, stream = _member(archive, name)
    if entry.size > limit_bytes:
        raise tarfile.TarError(f"{name} has {entry.size} bytes, of at most {limit_bytes}")
    data = stream.read(limit_bytes)
    if len(data) != entry.size:
        raise tarfile.TarError(f"{name} ends after {len(data)} of {entry.size} bytes")
    return data


def _extract(archive: tarfile.TarFile, name: str, target: Path) -> str:
    entry, stream = _member(archive, name)
    if entry.size > _LONGEST_PART:
        raise tarfile.TarError(f"{name} has {entry.size} bytes, of at most {_LONGEST_PART}")
    digest, written = hashlib.sha256(), 0
    with target.open("wb") as file:
        while data := stream.read(_CHUNK_BYTES):
            digest.update(data)
            written += file.write(data)
    if written != entry.size:
        raise tarfile.TarError(f"{name} ends after {written} of {entry.size} bytes")
    target.chmod(0o444)
    return digest.hexdigest()


def _check(path: Path, name: str, digest: str, expected: str | None) -> None:
    if digest != expected:
        raise UsageError(
            f"{path}: {name} has the sha256 {digest}, not {expected or 'one that it names'}",
            "the bundle was changed or damaged: fetch it again",
        )


def reproduce(
    path: Path, progress: Callable[[str], None], *, any_qemu: bool = False, wait: bool = False, share: bool = False
) -> tuple[Difference, ...]:
    """Run a bundle's experiment again and return what differs from what it expects; nothing when it is identical.

    Raises UsageError for a bundle that is damaged, or whose emulator is not of the version that it names, unless
    ``any_qemu``; PrerequisiteError without room for the machine; WorkloadError as a run in it.
    """
    require_room()
    run_id = make_run_id("reproduce")
    with Undo() as undo:
        undo.enter_context(take_turn(run_id, wait=wait, progress=progress, share=share))
        scratch = undo.enter_context(lease(run_id))
        progress(f"{path}: checking its parts")
        description, expected, folder = undo.enter_context(opened(path))
        layers = _unpack_layers(folder, description.layers)
        found = read_qemu_version(layers)
        if found != description.qemu and not any_qemu:
            raise UsageError(
                f"{path} names {description.qemu}, and has {found}",
                "its figures may differ in every digit: another QEMU may count other instructions. To try: --any-qemu",
            )
        system = choose_system(description.job.platforms)
        made = Inputs(layers, folder / _ROOT, description.disk_bytes, description.inputs, system)
        progress(f"reference machine: {combined_digest(description.inputs)[:16]}")
        emulate(made, run_id, scratch / "console", scratch / "results", progress)
        run = hand_over(scratch)
        if description.job.rungs:
            return compare_ladders(expected, encode_results(read_ladder(run)))
        digests = results_digests(run)
        if digests == dict(description.results):
            return ()
        differences = compare_trials(expected, (run / TRIALS).read_bytes())
        others = sorted(name for name in description.results if digests.get(name) != description.results[name])
        return differences or tuple(
            Difference(name, 0, description.results[name], digests.get(name, "nothing")) for name in others
        )


def _unpack_layers(folder: Path, names: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the directories of the disk's layers ``names``, unpacked below ``folder``. Raises TestbedError."""
    # Whoever wrote the bundle wrote the disk: it is unpacked by a user who may write nowhere else.
    disk, target = folder / _ROOT / emulator.FOLDER.name / emulator.DISK, folder / "layers"
    command = ["fsck.erofs", f"--extract={target}", "--force", str(disk)]
    try:
        target.mkdir()
        os.chown(target, USER.uid, USER.gid)
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            user=USER.uid,
            group=USER.gid,
            extra_groups=(),
        )
    except FileNotFoundError as error:
        raise PrerequisiteError(f"unpack the bundle's disk: {error}", "install erofs-utils") from error
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines()[-3:]
        raise TestbedError(f"unpack the bundle's disk: fsck.erofs: {' '.join(said)}", "fetch the bundle again")
    if bad := [name for name in names if "/" in name or not (target / name).is_dir()]:
        raise UsageError(f"the bundle's disk has no layer {', '.join(bad)}", "fetch it again")
    for other in target.iterdir():
        if other.name not in names:
            shutil.rmtree(other)
    return tuple(target / name for name in names)

"""Run by test_build_failures in a mount namespace of its own: build on a file system that is too small."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from runtime.builder.build import build
from runtime.errors import PrerequisiteError
from runtime.images.model import ImageConfig
from runtime.images.store import Store


def main(folder: Path, base: Path) -> int:
    """Fill a tmpfs of 12 MiB by a RUN; print what is left and exit as a command would."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], check=True)
    store = Store(folder / "store")
    with store.building(print), store.scratch() as scratch:
        shutil.copytree(base, scratch / "root", symlinks=True)
        layer = store.add_layer(scratch / "root", "base")
        store.tag("tiny", ImageConfig(env=("PATH=/bin",)), (layer,))
    (folder / "Dockerfile").write_text("FROM tiny\nRUN dd if=/dev/zero of=/big bs=1M count=64\n")
    try:
        build(store, context=folder, dockerfile=folder / "Dockerfile", reference="x", progress=print)
    except PrerequisiteError as error:
        layers = [path for path in (store.root / "layers").iterdir() if path.is_dir()]
        print(f"{error}\nlayers: {len(layers)}, leftovers: {len(store.leftovers())}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

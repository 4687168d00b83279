"""A Dockerfile that stands on images of a registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.builder.build import build, default_resolver
from runtime.errors import UsageError
from runtime.images.rootfs import lookup
from runtime.images.store import Store
from runtime.registry.resolving import registry_resolver
from tests.runtime.images.images import tar_of
from tests.runtime.registry.conftest import Open
from tests.runtime.registry.images import push_image

pytestmark = pytest.mark.root


def test_what_a_dockerfile_names_comes_from_a_registry(registry: str, open_repository: Open, tmp_path: Path) -> None:
    for name in ("one", "two"):
        repository = open_repository(registry, f"library/{name}")
        push_image(repository, tmp_path, "1", [tar_of({f"{name}/file": name.encode()})])
    (tmp_path / "context").mkdir()
    dockerfile = tmp_path / "context" / "Dockerfile"
    dockerfile.write_text("FROM one:1\nCOPY --from=two:1 /two/file /copied\n")
    store = Store(tmp_path / "store")

    def made(**environment: str) -> Path | None:
        names = {"CONTAINERS_REGISTRIES_CONF": "/none", "REGISTRY_AUTH_FILE": "/none", **environment}
        resolve = registry_resolver(default_resolver(store, print), store, print, names)
        image = build(
            store, context=dockerfile.parent, dockerfile=dockerfile, reference="made", progress=print, resolve=resolve
        )
        assert lookup("one/file", image.layers) is not None
        return lookup("copied", image.layers)

    with pytest.raises(UsageError, match=r"Dockerfile:\d: .*no such image") as caught:
        made()
    assert "TESTBED_REGISTRY" in caught.value.hint
    for registry_there in (f"http://{registry}", ""):  # the second time all is in the store
        found = made(TESTBED_REGISTRY=registry_there)
        assert found is not None and found.read_text() == "two"

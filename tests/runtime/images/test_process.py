"""From an image's configuration to the process that both platforms execute."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.images.model import Image, ImageConfig
from runtime.images.process import image_process
from runtime.spec import User

pytestmark = pytest.mark.root

CONFIG = ImageConfig(
    env=("PATH=/bin", "MODE=image"), cmd=("serve",), entrypoint=("run",), working_dir="/srv", user="alice"
)


@pytest.fixture
def image(tiny: Image) -> Image:
    return replace(tiny, config=CONFIG)


def test_the_configuration_is_what_runs(image: Image) -> None:
    process = image_process(image, environment={})
    assert process.args == ("run", "serve")
    assert process.env == ("PATH=/bin", "MODE=image", "HOME=/home/alice")
    assert (process.cwd, process.user) == ("/srv", User(1000, 100, additional_gids=(29,)))


def test_overrides(image: Image) -> None:
    assert image_process(image, command=("test",), environment={}).args == ("run", "test")
    assert image_process(image, entrypoint=("sh",), environment={}).args == ("sh",)
    process = image_process(image, command=("-c",), entrypoint=("sh",), environment={"MODE": "test", "HOME": "/x"})
    assert process.args == ("sh", "-c")
    assert process.env == ("PATH=/bin", "MODE=test", "HOME=/x")


def test_nothing_to_execute(tiny: Image) -> None:
    with pytest.raises(UsageError, match="no CMD or ENTRYPOINT"):
        image_process(replace(tiny, config=ImageConfig()), environment={})


def test_what_compose_says_of_the_user_and_the_directory() -> None:
    image = Image("app", "0" * 64, ImageConfig(cmd=("run",), working_dir="/srv/app", user="7"), ())
    process = image_process(image, environment={}, user="5:6", groups=("9", "6"), working_dir="data")
    assert process.user == User(5, 6, additional_gids=(9,)) and process.cwd == "/srv/app/data"
    assert image_process(image, environment={}, working_dir="/var").cwd == "/var"
    with pytest.raises(UsageError, match="group 'nobody' is not in the image"):
        image_process(image, environment={}, groups=("nobody",))

"""The state of a build and the image that comes of it, as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtime.builder import words
from runtime.builder.stage import MOST_PAIRS_BYTES, MOST_PATH, Pairs, Stage, cache_key, parse_port, single_ports
from runtime.images.model import History, Image, ImageConfig, Layer
from runtime.images.oci import CREATED, Document, config_of, history_of, to_json

A, B = (Layer(f"sha256:{name * 64}", Path(f"/store/{name}")) for name in "ab")
CONFIG = ImageConfig(
    env=("PATH=/bin", "A=1=2"),
    cmd=("serve", "-x"),
    entrypoint=("/init",),
    working_dir="/srv/app",
    user="web:web",
    exposed_ports=("80/tcp",),
    labels=(("name", "web"),),
)
IMAGE = Image("web", "id", CONFIG, (A,), (History("FROM", False),))


def stage(**changes: Any) -> Stage:
    return Stage.on(Image("i", "id", ImageConfig(**changes), ()))


# --- names and values


def test_pairs_grow_by_what_is_set_and_not_by_what_is_replaced() -> None:
    pairs = Pairs([("A", "1")])
    pairs.put("A", "22")
    pairs.put("é", "")
    assert pairs == {"A": "22", "é": ""} and pairs.size == len(b"A=22\0") + len("é=\0".encode())
    assert Pairs(pairs.items()).size == pairs.size


@pytest.mark.parametrize("name", ["", "A=B", "="])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        Pairs().put(name, "1")


def test_what_no_program_can_be_given_is_refused() -> None:
    pairs = Pairs()
    most = words.LONGEST - len("A=\0")
    pairs.put("A", "x" * most)
    with pytest.raises(ValueError, match=f"longer than {words.LONGEST} bytes"):
        pairs.put("A", "x" * (most + 1))
    with pytest.raises(ValueError, match=f"longer than {words.LONGEST} bytes"):
        pairs.put("A", "é" * (most // 2 + 1))
    with pytest.raises(ValueError, match=f"longer than {MOST_PAIRS_BYTES} bytes together"):
        for number in range(MOST_PAIRS_BYTES // most + 1):
            pairs.put(f"{number:03}", "x" * (most - 2))


# --- the stage


def test_a_build_begins_with_all_that_the_image_has() -> None:
    begun = Stage.on(IMAGE)
    assert begun.env == {"PATH": "/bin", "A": "1=2"} and begun.finished_config == CONFIG
    assert (begun.layers, begun.history, begun.own_command) == ((A,), [History("FROM", False)], False)


def test_what_a_build_sets_is_in_the_configuration_in_one_order() -> None:
    begun = Stage.on(IMAGE)
    begun.env.put("B", "3")
    begun.labels.put("a", "first")
    begun.ports.update(map(parse_port, ("443/tcp", "53/udp")))
    begun.arguments.put("SECRET", "x")
    finished = begun.finished_config
    assert finished.env == ("PATH=/bin", "A=1=2", "B=3")
    assert finished.labels == (("a", "first"), ("name", "web"))
    assert finished.exposed_ports == ("443/tcp", "53/udp", "80/tcp")
    assert "SECRET" not in to_json(finished, (), ()), "an ARG is the build's alone"
    assert IMAGE.config is CONFIG and IMAGE.history == (History("FROM", False),), "the image stays"


def test_a_variable_is_envs_before_it_is_args() -> None:
    begun = Stage.on(IMAGE)
    begun.arguments.put("A", "argument")
    begun.arguments.put("ONLY", "argument")
    assert (begun.variables["A"], begun.variables["ONLY"]) == ("1=2", "argument")
    assert begun.variables.get("NONE") is None


def test_each_instruction_is_a_step_of_history_and_some_leave_a_layer() -> None:
    copied = Stage.on(IMAGE).with_layer(B, "COPY")
    ended = copied.with_config(ImageConfig(user="x"), "USER")
    assert copied.layers == ended.layers == (A, B) and ended.config.user == "x"
    assert ended.history == [History("FROM", False), History("COPY", False), History("USER", True)]


@pytest.mark.parametrize(
    ("working_dir", "path", "absolute"),
    [
        ("/", "a", "/a"),
        ("/srv", "a/b", "/srv/a/b"),
        ("/srv", "/a", "/a"),
        ("/srv", "//a/./b//", "/a/b"),
        ("/srv/app", "../x", "/srv/x"),
        ("/srv", "../../../etc", "/etc"),
        ("/srv", "a/../..", "/"),
        ("/srv", "", "/srv"),
        ("srv", "a", "/srv/a"),  # as an image may have it that was made elsewhere
        ("", "a", "/a"),
    ],
)
def test_a_path_from_the_working_directory_on(working_dir: str, path: str, absolute: str) -> None:
    assert stage(working_dir=working_dir).absolute(path) == absolute


def test_a_path_longer_than_the_kernels_is_refused() -> None:
    assert stage().absolute("x" * (MOST_PATH - 1)) == "/" + "x" * (MOST_PATH - 1)
    with pytest.raises(ValueError, match=r"x\.\.\. is a path of more than"):
        stage().absolute("x" * MOST_PATH)


def test_the_key_of_a_step_changes_with_everything_that_it_rests_on() -> None:
    keys = [
        cache_key((A, B), "RUN", "make", {"A": "1", "B": "2"}),
        cache_key((B, A), "RUN", "make", {"A": "1", "B": "2"}),
        cache_key((A,), "RUN", "make", {"A": "1", "B": "2"}),
        cache_key((A, B), "COPY", "make", {"A": "1", "B": "2"}),
        cache_key((A, B), "RUN", "make", {"A": "1", "B": "3"}),
        cache_key((A, B), "RUN", "make"),
        cache_key((A, B), "RUN", ["make"]),
    ]
    assert len(set(keys)) == len(keys)
    assert cache_key((A, B), "RUN", "make", {"B": "2", "A": "1"}) == keys[0], "not with the order of names"


# --- the configuration as JSON


def test_a_configuration_is_read_back_as_it_was_written() -> None:
    history = (History("FROM", False), History("USER", True))
    text = to_json(CONFIG, (A.diff_id, B.diff_id), history)
    document = msgspec.json.decode(text, type=Document)
    assert (config_of(document), history_of(document)) == (CONFIG, history)
    assert document.rootfs.diff_ids == (A.diff_id, B.diff_id)


def test_the_text_is_the_same_whatever_the_order_of_labels_and_the_time() -> None:
    """Its hash is the image's id."""
    one, other = (ImageConfig(labels=labels) for labels in ((("a", "1"), ("b", "2")), (("b", "2"), ("a", "1"))))
    assert to_json(one, (), ()) == to_json(other, (), ()) and " " not in to_json(one, (), ())
    assert json.loads(to_json(one, (), (History("x", False),)))["history"] == [{"created": CREATED, "created_by": "x"}]
    assert json.loads(to_json(one, (), ()))["created"] == CREATED


@pytest.mark.parametrize("config", [{}, {"config": None}, {"config": {}}, {"config": {"Env": None, "Labels": None}}])
def test_what_a_configuration_does_not_have_is_empty(config: dict[str, Any]) -> None:
    document = msgspec.convert({"rootfs": {"diff_ids": []}, "architecture": "any", **config}, Document)
    assert config_of(document) == ImageConfig() and history_of(document) == ()


def test_ranges_of_ports_are_each_port_once() -> None:
    assert single_ports(map(parse_port, ("8000-8002", "8001-8003", "80", "8000-8000/udp"))) == (
        "80/tcp", "8000/tcp", "8000/udp", "8001/tcp", "8002/tcp", "8003/tcp",
    )  # fmt: skip
    assert len(single_ports((first, 65535, "tcp") for first in range(1, 60_000))) == 65535


def test_what_is_no_port_of_an_image_is_left_out() -> None:
    assert stage(exposed_ports=("80/tcp", "http", "0", "99999/udp")).finished_config.exposed_ports == ("80/tcp",)

"""YAML as compose-go reads it, and files that mean no good."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.yamltree.nodes import Scalar, Source, Table, classify, parse_documents
from testbed.yamltree.problems import Problems
from testbed.yamltree.values import Value, print_scalar, read_tree


def parse(text: str) -> Value:
    problems = Problems()
    (document,) = parse_documents(text, Source(Path("f.yaml"), Path()), problems)
    problems.check()
    return Value(problems, "", document)


# What Go prints of what yaml.v3 makes of a plain scalar: resolve.go of yaml.v3, and fmt's %v.
PRINTED = [
    *(("1", "1"), ("-1", "-1"), ("+1", "1"), ("1_000", "1000"), ("0777", "511"), ("0o17", "15"), ("0x1F", "31")),
    *(("0b101", "5"), ("09", "9"), ("1.50", "1.5"), ("1.0", "1"), (".5", "0.5"), ("1e3", "1000"), ("1e21", "1e+21")),
    *(("1e20", "100000000000000000000"), ("1.5e-7", "1.5e-07"), ("0.0001", "0.0001"), ("0.00001", "1e-05")),
    *(("true", "true"), ("True", "true"), ("FALSE", "false"), (".inf", "+Inf"), ("-.inf", "-Inf"), (".nan", "NaN")),
    *(("yes", "yes"), ("on", "on"), ("n", "n"), ("1:30", "1:30"), ("22:22", "22:22"), ("1.2.3", "1.2.3")),
    *(("'0777'", "0777"), ('"true"', "true"), ("!!str 0777", "0777")),
    *(("12345678901234567890123", "1.2345678901234568e+22"),),
    *(("2001-01-01", "2001-01-01"), ("a b", "a b"), ("-", "-"), ("0x", "0x"), ("1_", "1"), ("_1", "_1")),
]  # fmt: skip


@pytest.mark.parametrize(("written", "printed"), PRINTED)
def test_scalars_are_printed_as_go_does(written: str, printed: str) -> None:
    value = parse(f"k: {written}\n" if written != "-" else "k: '-'\n")
    node = value.entries()["k"].node
    assert isinstance(node, Scalar) and print_scalar(node) == printed


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_what_is_null(text: str) -> None:
    assert classify(text) == "null"
    assert parse(f"k: {text}\n").entries()["k"].is_null
    assert not parse(f"k: '{text}'\n").entries()["k"].is_null


def test_merges_take_what_is_not_there() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 3}\n"
    merged = parse(text).entries()["c"].entries()
    assert {key: value.text() for key, value in merged.items()} == {"x": "3", "y": "1", "z": "2"}
    assert merged["z"].line == 2, "where it stands, not where it is merged"


@pytest.mark.parametrize("form", ["{<<: [%s]}", "{<<: *l%d}", "[%s]", "{k: [%s]}"])
def test_aliases_of_aliases_end(form: str) -> None:
    """Each of nine levels names the one below it nine times: 9^9 values, were they made."""
    lines = ["l0: &l0 {a: b}"]
    for level in range(1, 10):
        inner = level - 1 if "%d" in form else ", ".join([f"*l{level - 1}"] * 9)
        lines.append(f"l{level}: &l{level} " + form % inner)
    began_s = time.process_time()
    root = parse("\n".join(lines) + "\n")
    assert len(root.entries()) == 10
    assert time.process_time() - began_s < 1


def test_an_alias_is_the_very_node() -> None:
    root = parse("a: &a {x: 1}\nb: [*a, *a]\n").entries()
    assert all(item.node is root["a"].node for item in root["b"].items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a\n  b: *a\n", r"f.yaml:2: a.b: is a part of &a"),
        ("a: &a [1, *a]\n", r"f.yaml:1: a\[1\]: is a part of &a"),
        ("a: *b\n", "f.yaml:1: not well-formed YAML: no anchor &b"),
        ("a: 1\na: 2\n", r"f.yaml:2: a: is there twice \(first on line 1\)"),
        ("a: {b: {c: 1, c: 2}}\nd: 1\nd: 2\n", r"a.b.c: is there twice.*\n.*d: is there twice"),
        ("<<: [1]\n", "f.yaml:1: <<: is '1'; expected an alias of a mapping"),
        ("? {a: b}\n: c\n", "has a key that is no text"),
        ("x-0: &l0 [1]\n" + "".join(f"x-{n}: &l{n} [*l{n - 1}]\n" for n in range(1, 70)), "nested too deeply"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_what_a_file_says_of_another_is_kept() -> None:
    entries = parse("a: !reset null\nb: !override [1]\nc: !override {d: 1}\n").entries()
    assert [value.node.directive for value in entries.values()] == ["reset", "override", "override"]
    assert entries["a"].is_null and isinstance(entries["c"].node, Table)


def test_one_document_where_one_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("a: 1\n---\nb: 1\n")
    with pytest.raises(UsageError, match=r"two.yaml:3: a second document"):
        read_tree(tmp_path / "two.yaml")


def test_a_large_file_is_read_fast(tmp_path: Path) -> None:
    lines = (f"  s{number}: {{image: nginx, environment: {{A: b, C: d}}, ports: [1, 2]}}\n" for number in range(6000))
    (tmp_path / "large.yaml").write_text("services:\n" + "".join(lines))
    began_s = time.process_time()
    assert len(read_tree(tmp_path / "large.yaml").entries()["services"].entries()) == 6000
    assert time.process_time() - began_s < 5

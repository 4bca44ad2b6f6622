"""YAML with line numbers."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.errors import InvalidInput
from sandbox.project.yamlfile import dotted, load_documents, load_yaml, near, parse_yaml, reads_as_text


def data_of(text: str) -> Any:
    return parse_yaml(text, shown_as="x.yaml").data


def test_every_key_and_item_has_its_line() -> None:
    document = parse_yaml("a:\n  b: 1\n\n  c:\n    - x\n    - d: 2\n", shown_as="x.yaml")
    assert document.lines == {(): 1, ("a",): 1, ("a", "b"): 2, ("a", "c"): 4, ("a", "c", 0): 5, ("a", "c", 1): 6,
                              ("a", "c", 1, "d"): 6}  # fmt: skip
    assert document.line(("a", "c", 1, "missing", "deeper")) == 6
    assert document.error(("a", "c", 1, "d"), "is wrong").what == "x.yaml:6: a.c[1].d: is wrong"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True), ("off", False), ("true", True), ("~", None), ("", None), ("null", None), ("'yes'", "yes"),
        ("12", 12), ("-3", -3), ("0644", 420), ("0o644", 420), ("0x1F", 31), ("1.5", 1.5), ("1e3", 1000.0),
        ("'12'", "12"), ('"null"', "null"), ("!!str 12", "12"), ("2024-01-31", "2024-01-31"),
        ("12:30:45", "12:30:45"), ("1.2.3", "1.2.3"), ("|\n  a\n  b", "a\nb\n"), (">-\n  a\n  b", "a b"), ("v1", "v1"),
    ],
)  # fmt: skip
def test_scalars_are_read_as_helm_reads_them(text: str, value: object) -> None:
    assert data_of(f"a: {text}\n") == {"a": value}


def test_anchors_and_merges() -> None:
    text = "base: &b {x: 1, y: {z: 2}}\none: *b\ntwo: {<<: *b, x: 5}\nthree: {x: 6, <<: [*b, {w: 3}]}\n"
    assert data_of(text) == {
        "base": {"x": 1, "y": {"z": 2}},
        "one": {"x": 1, "y": {"z": 2}},
        "two": {"x": 5, "y": {"z": 2}},
        "three": {"x": 6, "y": {"z": 2}, "w": 3},
    }
    assert data_of("a: &x [1]\nb: &x [2]\nc: *x\n")["c"] == [2]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "x.yaml:5: b.c: is given twice"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: a second document begins here"),
        ("a: [1, 2\nb: 3\n", "x.yaml:2:"),
        ("a:\n\t- b\n", "x.yaml:2:1: is not valid YAML"),
        ("a: *nowhere\n", "x.yaml:1: there is no anchor &nowhere before this alias"),
        ("a: &a [*a]\n", "contains itself"),
        ("a: !!python/object/apply:os.system [id]\n", "x.yaml:1: the tag !!python/object/apply:os.system"),
        ("a: !!binary aGk=\n", "x.yaml:1: the tag !!binary has no meaning here"),
        ("a: !Ref b\n", "x.yaml:1: the tag !Ref has no meaning here"),
        ("{[1, 2]: 3}\n", "x.yaml:1: a key must be plain text"),
        ("a: .inf\n", "cannot be written as JSON"),
        ("a: 1e999\n", "too large"),
        ("[" * 5000, "x.yaml"),
        ("a: " + "[" * 100 + "]" * 100, "nested more than"),
        ("a: " + "{b: " * 100 + "1" + "}" * 100, "nested more than"),
        ("a: {<<: 1}\n", "<< merges mappings only"),
    ],
)
def test_what_is_refused_names_the_line(text: str, what: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        data_of(text)
    assert what in raised.value.what


def test_the_first_of_two_equal_keys_is_named() -> None:
    with pytest.raises(InvalidInput) as raised:
        data_of("services:\n  web: {}\n  orders: {}\n  web: {}\n")
    assert raised.value.what == "x.yaml:4: services.web: is given twice"
    assert raised.value.why == "the first is in line 2"


def test_a_billion_laughs_are_bounded() -> None:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(InvalidInput, match="expands to more than"):
        data_of("\n".join(lines))


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with pytest.raises(InvalidInput, match=r"x\.yaml cannot be read"):
        load_yaml(path)
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(InvalidInput, match=r"shown:2: is not UTF-8"):
        load_yaml(path, shown_as="shown")
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert load_yaml(path).data == {"a": 1, "b": 2}
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(InvalidInput, match="larger than"):
        load_yaml(path)
    path.write_text("a: 1\n---\n\n---\nb: 2\n")
    documents = load_documents(path)
    assert [document.data for document in documents] == [{"a": 1}, {"b": 2}]
    assert documents[1].lines[("b",)] == 5


def means_the_same_to_pyyaml(text: str) -> bool:
    """`y` and `0o17` are text to PyYAML, which leaves their quotes out, and not to Helm."""
    return reads_as_text(text) or yaml.safe_dump(text)[0] in "'\""


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
    .filter(means_the_same_to_pyyaml),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxz", min_size=1, max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip


@given(values)
def test_what_pyyaml_writes_is_read_back(value: object) -> None:
    assert data_of(yaml.safe_dump({"a": value}, allow_unicode=True))["a"] == value


@given(st.text(max_size=80))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        parse_yaml(text, shown_as="x.yaml")


def test_paths_and_near_names() -> None:
    assert dotted(("services", "web", "images", 0, "name")) == "services.web.images[0].name"
    assert dotted(("set", "a.b", 1)) == 'set."a.b"[1]'
    assert near("chrat", ["chart", "kustomize"]) == "; did you mean 'chart'?"
    assert near("zzz", ["chart"]) == ""

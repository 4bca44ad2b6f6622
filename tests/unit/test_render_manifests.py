"""Manifests read from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.model.errors import InvalidInput, Refused
from sandbox.render.manifests import parse_manifests, read_manifests, split_documents

MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n"


def test_reads_folders_recursively_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "k8s/inner").mkdir(parents=True)
    (tmp_path / "k8s/b.yml").write_text(f"# comment\n---\n{MAP % 'b1'}---\n---\n{MAP % 'b2'}")
    (tmp_path / "k8s/inner/c.json").write_text('{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}')
    (tmp_path / "k8s/a.yaml").write_text(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n"
    )
    (tmp_path / "k8s/kustomization.yaml").write_text("resources: []")
    (tmp_path / "k8s/README.md").write_text("no manifest")
    found = read_manifests(tmp_path, ["k8s", "k8s/b.yml"])
    assert [item["metadata"]["name"] for item in found] == ["a", "b1", "b2", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"k\.yaml:\d:\d: is not valid YAML"),
        (f"{MAP % 'a'}---\nreplicas: 1\n", r"k\.yaml \(document 2, line 4\) is no Kubernetes object"),
        (f"{MAP % 'a'}---\napiVersion: v1\nkind: X\nkind: Y\n", r"k\.yaml:7: kind: is given twice"),
        ("apiVersion: v1\nkind: Job\nmetadata: {generateName: a-}\n", r"k\.yaml: this Job has no metadata\.name"),
        ("- a", r"k\.yaml is no Kubernetes object"),
        ("apiVersion: v1\nkind: List\nitems: [3]", r"k\.yaml, item 1 is no Kubernetes object"),
    ],
)
def test_errors_name_file_and_document(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_manifests(text, shown_as="k.yaml")


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="no manifests in empty"):
        read_manifests(tmp_path, ["empty"])
    with pytest.raises(InvalidInput, match="gone does not exist"):
        read_manifests(tmp_path, ["gone"])


def test_two_objects_with_one_name_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(MAP % "x" + "---\n" + MAP % "x")
    with pytest.raises(InvalidInput, match="configmap/x is there twice"):
        read_manifests(tmp_path, ["a.yaml"])


@pytest.mark.parametrize("link", ["folder", "file"])
def test_links_out_of_the_tree_are_refused(tmp_path: Path, link: str) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (outside / "a.yaml").write_text(MAP % "a")
    if link == "folder":
        (tree / "k8s").symlink_to(outside)
    else:
        (tree / "k8s").mkdir()
        (tree / "k8s/a.yaml").symlink_to(outside / "a.yaml")
    with pytest.raises(Refused, match="leads out of the repository"):
        read_manifests(tree, ["k8s"])


def test_documents_keep_their_lines() -> None:
    text = "# head\na: 1\n---\n# only a comment\n---  # third\nb: 2\n--- {c: 3}\n"
    assert [(line, part.strip()) for line, part in split_documents(text)] == [
        (1, "# head\na: 1"),
        (5, "# third\nb: 2"),
        (7, "{c: 3}"),
    ]


def test_dashes_inside_of_text_do_not_split() -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  a: |\n    ---\n    x\n"
    assert parse_manifests(text, shown_as="k")[0]["data"] == {"a": "---\nx\n"}

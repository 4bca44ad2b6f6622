"""What a kustomization may reach, checked before kustomize runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.model.errors import InvalidInput, Refused
from sandbox.render.kustomize import check


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "base").mkdir(parents=True)
    (tree / "overlay").mkdir()
    (tree / "base/kustomization.yaml").write_text("resources: [map.yaml]\n")
    (tree / "base/map.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
    (tree / "overlay/patch.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\n")
    (tmp_path / "outside.yaml").write_text("secret: x")
    return tree


def overlay(tree: Path, text: str) -> None:
    (tree / "overlay/kustomization.yaml").write_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "resources: [../base]",
        "resources: [../base]\npatches: [{path: patch.yaml}]",
        'resources: [../base]\npatches: [{patch: "[{op: add, path: /data, value: {}}]"}]',
        "resources: [../base]\npatches: [{path: patch.yaml, target: {kind: ConfigMap, name: a}}]",
        "resources: [../base]\npatchesStrategicMerge: ['apiVersion: v1\n\n  kind: x']",
        "configMapGenerator: [{name: c, files: [patch.yaml, k=patch.yaml], literals: [URL=https://x.io/a?ref=b]}]",
        "resources: [../base]\nreplacements: [{source: {fieldPath: data.a, name: a}, targets: []}]",
        "resources: [../base]\nimages: [{name: a, newName: ghcr.io/acme/a}]",
        "transformers:\n- |\n  apiVersion: builtin\n  kind: LabelTransformer\n  metadata: {name: x}\n",
    ],
)
def test_what_stays_in_the_tree_is_let_through(tree: Path, text: str) -> None:
    overlay(tree, text)
    check(tree, "overlay")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resources: ['https://example.com/a.yaml']", "is remote"),
        ("resources: [github.com/acme/web]", "is remote"),
        ("resources: ['github.com:acme/web']", "is remote"),
        ("resources: ['git@example.com:acme/web.git']", "is remote"),
        ("resources: ['ssh://git@example.com/acme/web']", "is remote"),
        ("resources: ['git::https://example.com/x']", "is remote"),
        ("resources: ['../base?ref=main']", "is remote"),
        ("bases: ['https://example.com/x//y?ref=v1']", "is remote"),
        ("components: ['file:///etc']", "is remote"),
        ("crds: ['https://example.com/crd.yaml']", "is remote"),
        ("openapi: {path: 'https://example.com/schema.json'}", "is remote"),
        ("patches: [{path: 'https://example.com/p.yaml'}]", "is remote"),
        ("patchesJson6902: [{path: 'http://example.com/p.yaml', target: {kind: X, name: y}}]", "is remote"),
        ("patchesStrategicMerge: ['https://example.com/p.yaml']", "is remote"),
        ("configMapGenerator: [{name: c, files: ['k=https://example.com/x']}]", "is remote"),
        ("secretGenerator: [{name: c, env: 'https://example.com/x'}]", "is remote"),
        ("replacements: [{path: 'https://example.com/x'}]", "is remote"),
        ("transformers: ['https://example.com/x']", "is remote"),
        (
            "transformers:\n- |\n  apiVersion: builtin\n  kind: PatchTransformer\n  path: https://example.com/x\n",
            "is remote",
        ),
        ("resources: [../../outside.yaml]", "leads out of the repository"),
        ("resources: [/etc/passwd]", "leads out of the repository"),
        ("configMapGenerator: [{name: c, files: [../../outside.yaml]}]", "leads out of the repository"),
        ("configMapGenerator: [{name: c, envs: [/etc/environment]}]", "leads out of the repository"),
        ("patches: [{path: ../../outside.yaml}]", "leads out of the repository"),
        ("resources: [link.yaml]", "leads out of the repository"),
        ("helmCharts: [{name: a, repo: 'https://example.com'}]", "helmCharts is not rendered"),
        ("helmChartInflationGenerator: [{chartName: a}]", "is not rendered"),
        ("generators:\n- |\n  apiVersion: acme.dev/v1\n  kind: Mine\n", "is a kustomize plugin"),
        ("generators: [plugin.yaml]", "asks for a function to be run"),
        ("resources: [plugin.yaml]", "asks for a function to be run"),
        (
            "generators:\n- |\n  apiVersion: builtin\n  kind: HelmChartInflationGenerator\n",
            "HelmChartInflationGenerator is not rendered",
        ),
    ],
)
def test_what_leaves_it_or_runs_programs_is_refused(tree: Path, text: str, message: str) -> None:
    (tree / "overlay/link.yaml").symlink_to(tree.parent / "outside.yaml")
    (tree / "overlay/plugin.yaml").write_text(
        "apiVersion: v1\nkind: X\nmetadata:\n  name: x\n  annotations:\n"
        "    config.kubernetes.io/function: |\n      exec: {path: ./steal}\n"
    )
    overlay(tree, text)
    with pytest.raises(Refused, match=message):
        check(tree, "overlay")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resources: [gone.yaml]", "gone.yaml does not exist in the commit"),
        ("resources: [../gone]", "does not exist in the commit"),
        ("resources: [", "is not valid YAML"),
        ("- a", "is no kustomization"),
    ],
)
def test_what_is_not_there_is_an_error_of_the_file(tree: Path, text: str, message: str) -> None:
    overlay(tree, text)
    with pytest.raises(InvalidInput, match=message):
        check(tree, "overlay")


def test_bases_are_checked_too(tree: Path) -> None:
    overlay(tree, "resources: [../base]")
    (tree / "base/kustomization.yaml").write_text("resources: ['https://example.com/a.yaml']")
    with pytest.raises(Refused, match=r"base/kustomization\.yaml: resources: https"):
        check(tree, "overlay")


def test_a_circle_ends(tree: Path) -> None:
    overlay(tree, "resources: [../base]")
    (tree / "base/kustomization.yaml").write_text("resources: [../overlay]")
    check(tree, "overlay")  # kustomize itself says that it is one


def test_a_folder_without_a_kustomization(tree: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no kustomization\.yaml in overlay"):
        check(tree, "overlay")

"""Images in manifests and chart values."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.images.rewrite import chart_values, references, with_images
from sandbox.model.errors import InvalidInput
from sandbox.model.images import ResolvedImage

DIGEST = "sha256:" + "ab" * 32
WEB = ResolvedImage("shop/web", "10.0.0.1:5000/acme/shop/web", "src-1", DIGEST, "built")
PINNED = f"10.0.0.1:5000/acme/shop/web:src-1@{DIGEST}"


def deployment(*images: str) -> dict[str, Any]:
    pod = {"containers": [{"name": str(n), "image": image} for n, image in enumerate(images)]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"template": {"spec": pod}},
    }


@pytest.mark.parametrize(
    "written",
    [
        "shop/web",
        "shop/web:latest",
        "docker.io/shop/web:1",
        f"shop/web@{DIGEST}",
        "10.0.0.1:5000/acme/shop/web:src-1",
    ],
)
def test_replaces_by_the_digest(written: str) -> None:
    changed, used = with_images([deployment(written, "redis:7")], [WEB])
    assert references(changed) == {PINNED, "redis:7"}
    assert used == {"shop/web"}


@pytest.mark.parametrize("written", ["web", "shop/web-admin", "ghcr.io/shop/web", "$(IMAGE)", ""])
def test_leaves_others_alone(written: str) -> None:
    changed, used = with_images([deployment(written)], [WEB])
    assert references(changed) == {written}
    assert used == set()


def test_sees_every_place() -> None:
    pod = {
        "initContainers": [{"name": "i", "image": "shop/web"}],
        "containers": [{"name": "c", "image": "shop/web"}],
        "ephemeralContainers": [{"name": "e", "image": "shop/web"}],
        "volumes": [{"name": "v", "image": {"reference": "shop/web:1"}}],
    }
    kinds = [
        {"apiVersion": "v1", "kind": "Pod", "spec": pod},
        {"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}},
        {"apiVersion": "example.dev/v1", "kind": "Rollout", "spec": {"template": {"spec": pod}}},
    ]
    for kind in kinds:
        changed, _ = with_images([kind], [WEB])
        assert str(changed).count(PINNED) == 4


def test_text_that_looks_like_an_image_stays() -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"image": "shop/web", "containers": "shop/web"}}
    assert with_images([config], [WEB]) == ([config], set())


def test_the_originals_stay_as_they_are() -> None:
    original = deployment("shop/web")
    before = copy.deepcopy(original)
    with_images([original], [WEB])
    references([original])
    assert original == before


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        (
            {"image.repository": "repository", "image.tag": "tag"},
            {"image": {"repository": WEB.repository, "tag": f"src-1@{DIGEST}"}},
        ),
        (
            {"image.repository": "repository", "image.tag": "tag", "image.digest": "digest"},
            {"image": {"repository": WEB.repository, "tag": "src-1", "digest": DIGEST}},
        ),
        ({"web.image": "reference"}, {"web": {"image": PINNED}}),
        (
            {"image.registry": "registry", "image.name": "name"},
            {"image": {"registry": "10.0.0.1:5000", "name": "acme/shop/web"}},
        ),
        ({}, {}),
    ],
)
def test_chart_values(mapping: dict[str, str], expected: dict[str, Any]) -> None:
    assert chart_values(WEB, mapping) == expected


def test_an_image_that_is_only_planned_has_a_tag() -> None:
    planned = ResolvedImage("shop/web", "r.io/web", "src-1", "", "planned")
    assert chart_values(planned, {"tag": "tag"}) == {"tag": "src-1"}


@pytest.mark.parametrize(
    "mapping", [{"a": "version"}, {"a": "tag", "a.b": "tag"}, {"a.b": "tag", "a": "tag"}, {"": "tag"}, {"a..b": "tag"}]
)
def test_a_mapping_that_cannot_be_is_refused(mapping: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="image shop/web"):
        chart_values(WEB, mapping)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["containers", "image", "volumes", "spec", "reference"]), inner, max_size=3
            )
        ),
        max_leaves=20,
    )
)
def test_no_shape_breaks_it(node: Any) -> None:
    with_images([{"apiVersion": "v1", "kind": "X", "spec": node}], [WEB])

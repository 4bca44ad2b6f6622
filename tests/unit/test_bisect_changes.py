"""Two states taken apart into changes, and put together again in any way."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from sandbox.bisect.changes import RESTARTED, Change, Comparison, State
from sandbox.bisect.report import _of
from sandbox.capture.difference import Difference
from sandbox.model.objects import Manifest, ObjectRef, digest, pod_spec
from sandbox.model.record import ImageLock, ServiceLock
from sandbox.provision.plan import ServicePlan
from sandbox.render.transform import label
from sandbox.reproduce.plan import SHARED

KEY = "key-of-the-store"


def config(name: str, value: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}}


def secret(name: str, value: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"value": value}}


def workload(name: str, image: str = "one", *, replicas: int = 1, refers: str = "", **env: str) -> Manifest:
    container: Manifest = {"name": "main", "image": image, "env": [{"name": k, "value": v} for k, v in env.items()]}
    if refers:
        container["envFrom"] = [{"configMapRef": {"name": refers}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "template": {"metadata": {}, "spec": {"containers": [container]}}},
    }


def plan(name: str, manifests: list[Manifest], *, commit: str = "", image: str = "") -> ServicePlan:
    marked = label(manifests, name)
    images = (ImageLock(name=name, repository=f"r/{name}", digest=image),) if image else ()
    lock = ServiceLock(
        kind="manifests", repo="", ref="", commit=commit, images=images, input_digest=digest(marked), manifest_digest=""
    )
    return ServicePlan(name=name, lock=lock, manifests=marked)


def state(services: Mapping[str, list[Manifest]], key_id: str = KEY, **more: Any) -> State:
    plain = {str(ObjectRef.of(m)): copy.deepcopy(m) for manifests in services.values() for m in manifests}
    return State({name: plan(name, manifests, **more) for name, manifests in services.items()}, plain, key_id)


def manifest_of(plans: Mapping[str, ServicePlan], kind: str, name: str) -> Manifest | None:
    found = [m for p in plans.values() for m in p.manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return found[0] if found else None


def main(plans: Mapping[str, ServicePlan], name: str) -> Manifest:
    manifest = manifest_of(plans, "Deployment", name)
    assert manifest is not None
    found: Manifest = (pod_spec(manifest) or {})["containers"][0]
    return found


def test_equal_states_have_no_changes() -> None:
    one = {"web": [workload("web"), config("web", "1")]}
    assert Comparison(state(one), state(one)).changes == {}


@pytest.mark.parametrize(
    ("good", "bad", "names"),
    [
        (workload("web"), workload("web", "two"), {"web/images"}),
        (workload("web", A="1"), workload("web", A="2"), {"web/configuration"}),
        (workload("web"), workload("web", replicas=2), {"web/manifests"}),
        (config("c", "1"), config("c", "2"), {"web/configuration"}),
        (secret("c", "hmac-1"), secret("c", "hmac-2"), {"web/configuration"}),
        (
            workload("web", A="1"),
            workload("web", "two", A="2", replicas=2),
            {"web/images", "web/configuration", "web/manifests"},
        ),
    ],
)
def test_parts_of_a_service(good: Manifest, bad: Manifest, names: set[str]) -> None:
    found = Comparison(state({"web": [good]}), state({"web": [bad]}))
    assert set(found.changes) == names
    assert found.units == {"web": frozenset(names)}


def test_a_service_that_is_only_on_one_side_is_one_change() -> None:
    both = {"web": [workload("web")]}
    found = Comparison(state(both), state({**both, "new": [workload("new"), config("new", "1")]}))
    assert set(found.changes) == {"new"}
    assert set(found.mixed(frozenset())) == {"web"}
    assert set(found.mixed(frozenset({"new"}))) == {"web", "new"}


def test_objects_that_several_use_are_units_of_their_own() -> None:
    found = Comparison(
        state({SHARED: [config("a", "1"), config("b", "1")]}), state({SHARED: [config("a", "2"), config("b", "2")]})
    )
    assert set(found.units) == {"configmap/a", "configmap/b"}
    mixed = found.mixed(frozenset({"configmap/b"}))
    values = {name: (manifest_of(mixed, "ConfigMap", name) or {})["data"]["value"] for name in ("a", "b")}
    assert values == {"a": "1", "b": "2"}


def test_that_others_use_an_object_by_now_is_no_change_of_it() -> None:
    before = {"web": [workload("web"), config("c", "1")], "api": [workload("api")]}
    after = {"web": [workload("web")], "api": [workload("api")], SHARED: [config("c", "1")]}
    assert Comparison(state(before), state(after)).changes == {}


def test_every_combination_of_parts() -> None:
    good = state({"web": [workload("web", "one", A="1")]})
    bad = state({"web": [workload("web", "two", A="2", replicas=2)]})
    found = Comparison(good, bad)
    for count in range(4):
        for chosen in itertools.combinations(sorted(found.changes), count):
            mixed = found.mixed(frozenset(chosen))
            assert main(mixed, "web")["image"] == ("two" if "web/images" in chosen else "one")
            assert main(mixed, "web")["env"][0]["value"] == ("2" if "web/configuration" in chosen else "1")
            deployed = manifest_of(mixed, "Deployment", "web")
            assert deployed is not None
            assert deployed["spec"]["replicas"] == (2 if "web/manifests" in chosen else 1)


def test_none_and_all_of_the_changes_are_the_states_themselves() -> None:
    one = {"web": [workload("web", A="1")], "api": [workload("api"), config("api", "1")]}
    other = {"web": [workload("web", "two", B="2")], "api": [workload("api", replicas=3)], "new": [workload("new")]}
    good, bad = state(one), state(other)
    found = Comparison(good, bad)
    for made, side in ((frozenset[str](), good), (frozenset(found.changes), bad)):
        mixed = found.mixed(made)
        assert {n: sorted(map(str, p.manifests)) for n, p in mixed.items()} == {
            n: sorted(map(str, p.manifests)) for n, p in side.services.items()
        }


def test_images_of_the_lock_go_with_the_images() -> None:
    good = state({"web": [workload("web", "one")]}, commit="a", image="sha256:1")
    bad = state({"web": [workload("web", "two", replicas=2)]}, commit="b", image="sha256:2")
    found = Comparison(good, bad)

    def lock(*made: str) -> tuple[str, str]:
        lock = found.mixed(frozenset(made))["web"].lock
        return lock.commit, lock.images[0].digest

    assert lock() == ("a", "sha256:1")
    assert lock("web/images") == ("a", "sha256:2")
    assert lock("web/manifests") == ("b", "sha256:1")
    assert lock("web/images", "web/manifests") == ("b", "sha256:2")


def test_pods_start_again_when_the_configuration_that_they_refer_to_changes() -> None:
    good = {"web": [workload("web", refers="web"), config("web", "1")], "api": [workload("api")]}
    bad = {"web": [workload("web", refers="web"), config("web", "2")], "api": [workload("api")]}
    found = Comparison(state(good), state(bad))

    def mark(name: str, *made: str) -> str | None:
        manifest = manifest_of(found.mixed(frozenset(made)), "Deployment", name)
        assert manifest is not None
        annotations: dict[str, str] = manifest["spec"]["template"]["metadata"].get("annotations", {})
        return annotations.get(RESTARTED)

    assert mark("api") is None
    assert mark("web") not in (None, mark("web", "web/configuration"))


def test_secrets_are_compared_by_their_keys_where_fingerprints_say_nothing() -> None:
    good, bad = {"web": [secret("c", "hmac-1")]}, {"web": [secret("c", "hmac-2")]}
    assert Comparison(state(good, "key-1"), state(bad, "key-2")).changes == {}
    more = copy.deepcopy(bad)
    more["web"][0]["data"]["other"] = "hmac-3"
    assert set(Comparison(state(good, "key-1"), state(more, "key-2")).changes) == {"web/configuration"}


def test_a_secret_that_is_made_up_anew_each_time_is_no_change() -> None:
    plain = {"web": [secret("tls", "hmac-1")]}
    good, bad = state(plain), state(plain)
    bad.services["web"].manifests[0]["data"]["value"] = "another certificate"
    assert Comparison(good, bad).changes == {}


def test_the_digest_is_that_of_what_was_captured() -> None:
    good, bad = {"web": [workload("web")]}, {"web": [workload("web", "two")]}
    assert Comparison(state(good), state(bad)).digest() == Comparison(state(good), state(bad)).digest()
    assert Comparison(state(good), state(bad)).digest() != Comparison(state(good), state(good)).digest()


@pytest.mark.parametrize(
    ("part", "shown"),
    [("images", {"a", "i"}), ("configuration", {"a", "e"}), ("manifests", {"a", "r"}), ("", {"a", "i", "e", "r"})],
)
def test_the_differences_of_a_change_are_those_of_its_part(part: Any, shown: set[str]) -> None:
    where = "deployments.apps/web"
    differences = {
        "a": Difference("service", "web", "commit", "1", "2"),
        "i": Difference("object", where, "spec.template.spec.containers.main.image", "1", "2"),
        "e": Difference("object", where, "spec.template.spec.containers.main.env.A.value", "1", "2"),
        "r": Difference("object", where, "spec.replicas", "1", "2"),
        "x": Difference("object", "deployments.apps/api", "spec.replicas", "1", "2"),
        "y": Difference("service", "api", "commit", "1", "2"),
    }
    change = Change("web/x", "web", part, ("deployment.apps/web",))
    assert list(_of(change, differences.values())) == [differences[name] for name in sorted(shown, key="aier".index)]

"""The chart as Helm takes it, and its clean-up as the cluster runs it: image, CronJob, account, policies."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.cluster.client import Cluster
from sandbox.cluster.providers import ClusterInfo, embedded_bin_dir
from sandbox.cluster.providers.embedded.provider import EmbeddedProvider
from sandbox.model.errors import InvalidInput
from sandbox.project.platform import parse_platform
from sandbox.provision import cleanupjob
from tests.conftest import TEST_CLUSTER, kubectl
from tests.e2e.api import api_of
from tests.e2e.bounded import until
from tests.e2e.handmade import Group, group_on
from tests.e2e.platform_cluster import CHART, VALUES, helm, install

ROOT = Path(__file__).parents[2]
# A cluster of its own: the chart is about the whole of it.
_NAME = os.environ.get("SANDBOX_TEST_CHART_CLUSTER", f"{TEST_CLUSTER}-chart")
_SYSTEM = ("--namespace", "sandbox-system")


def render(*arguments: str) -> list[dict[str, Any]]:
    done = helm(None, "template", "sandbox", str(CHART), *_SYSTEM, *arguments)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def named(documents: list[dict[str, Any]], kind: str) -> set[str]:
    return {document["metadata"]["name"] for document in documents if document["kind"] == kind}


def test_lint() -> None:
    done = helm(None, "lint", "--strict", str(CHART), *_SYSTEM)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("warnBefore=soon", "warnBefore"),
        ("warnBefor=30m", "warnBefor"),
        ("profiles.tiny.podSecurity=none", "tiny"),
        ("profiles.small.maxTTL=long", "maxTTL"),
        ("admission.enabled=maybe", "enabled"),
        ("cleanup.schedule=often", "schedule"),
        ("limits.sandboxesPerOwner=0", "sandboxesPerOwner"),
    ],
)
def test_the_schema_refuses(argument: str, said: str) -> None:
    done = helm(None, "template", "sandbox", str(CHART), *_SYSTEM, "--set", argument)

    assert done.returncode != 0
    assert said in done.stderr


def tiny(**more: Any) -> dict[str, Any]:
    return {"profiles": {"tiny": {"resourceQuota": {"pods": 3}, **more}}}


def limited(kind: str = "Container", **more: Any) -> dict[str, Any]:
    return tiny(limitRange=[{"type": kind, **more}])


def let_out(**rule: Any) -> dict[str, Any]:
    return tiny(network="restricted", egress=[rule])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"registry": "https://registry.example.com"}, "registry"),
        ({"registry": "registry.example.com:5000/"}, "registry"),
        ({"captureStore": "somewhere"}, "captureStore"),
        ({"captureStore": "s4://captures"}, "captureStore"),
        ({"captureStore": "s3://key:word@captures"}, "captureStore"),
        ({"clusterName": "two\nlines"}, "clusterName"),
        ({"warnBefore": "0m"}, "warnBefore"),
        ({"recordRetention": "101y"}, "recordRetention"),
        ({"recordRetention": "36501d"}, "recordRetention"),
        ({"profiles": {"Tiny": {"resourceQuota": {"pods": 3}}}}, "Tiny"),
        (tiny(name="other"), "calls itself"),
        (tiny(maxTTL="0h"), "maxTTL"),
        (tiny(maxTTL="3d", maxLifetime="2d"), "maxLifetime (2d) is less than maxTTL (3d)"),
        (tiny(resourceQuota={"pots": 3}), "pots"),
        (tiny(resourceQuota={"pods": 1.5}), "pods (1.5) must be a whole number"),
        (tiny(resourceQuota={"count/jobs.batch": "500m"}), "must be a whole number"),
        (tiny(resourceQuota={"requests.cpu": "1e40"}), "more than any cluster has"),
        (limited("Pod", default={"cpu": 1}), "are for containers"),
        (limited("PersistentVolumeClaim", max={"cpu": 1}), "needs min.storage or max.storage"),
        (limited(maxLimitRequestRatio={"cpu": "500m"}), "is less than 1"),
        (limited(defaultRequest={"memory": "1Gi"}, default={"memory": "900M"}), "is more than default.memory"),
        (limited(min={"cpu": "1"}, max={"cpu": "100m"}), "is more than max.cpu"),
        (tiny(limitRange=[{"type": "Container"}, {"type": "Container"}]), "two items of one type"),
        (tiny(egress=[{"cidr": "10.0.0.0/8"}]), "egress"),
        (let_out(ports=[{"port": 1}]), "give one of"),
        (let_out(cidr="10.0.0.0/8", namespace="shared"), "give one of"),
        (let_out(namespace="shared", **{"except": ["10.0.0.0/8"]}), "except"),
        (let_out(cidr="10.0.0.0/8", ports=[{"port": 9, "endPort": 8}]), "endPort (8) is less than port (9)"),
        (let_out(cidr="everywhere"), "cidr"),
        (let_out(cidr="10.20.1.0/16"), "10.20.1.0/16"),
        (let_out(cidr="10.300.0.0/16"), "10.300.0.0/16"),
        (let_out(cidr="10.20.0.0/16", **{"except": ["10.21.0.0/24"]}), "10.21.0.0/24"),
        (let_out(cidr="10.20.0.0/16", **{"except": ["fd00::/8"]}), "fd00::/8"),
        (tiny(allowedKinds=["Pod"], forbiddenKinds=["Pod"]), "allowedKinds"),
        (tiny(forbiddenKinds=["pods"]), "forbiddenKinds"),
    ],
)
def test_what_the_tool_would_refuse_for_everybody_is_not_installed(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput, match="ConfigMap sandbox-config"):
        parse_platform(yaml.safe_dump(values))
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))

    done = helm(None, "template", "sandbox", str(CHART), *_SYSTEM, "--values", str(tmp_path / "values.yaml"))

    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(
    "values",
    [
        VALUES,
        {"registry": "registry.example.com:5000", "captureStore": "s3://captures/shared", "clusterName": "dev"},
        {"registry": "registry.example.com:5000/team/a", "captureStore": "file:///srv/captures", "warnBefore": "1d12h"},
        {"captureStore": "abfs://captures@account.dfs.core.windows.net/sandbox"},
        tiny(resourceQuota={"requests.cpu": 0.5, "requests.nvidia.com/gpu": "0", "count/jobs.batch": 3}, name="tiny"),
        limited(defaultRequest={"cpu": "0.05", "memory": "64Mi"}, default={"cpu": "500m", "memory": "0.1G"}),
        let_out(cidr="0.0.0.0/0", ports=[{"port": 1, "endPort": 9}], **{"except": ["10.0.0.0/8", "192.168.7.0/24"]}),
        let_out(cidr="fd00::/8", **{"except": ["fd00:1::/32"]}),
    ],
)
def test_what_the_tool_takes_is_installed(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))

    made = render("--values", str(tmp_path / "values.yaml"))

    config = next(document for document in made if document["kind"] == "ConfigMap")
    parse_platform(config["data"]["platform.yaml"])


def test_it_goes_where_it_is_looked_for() -> None:
    done = helm(None, "template", "sandbox", str(CHART), "--namespace", "elsewhere")

    assert done.returncode != 0
    assert "--namespace sandbox-system" in done.stderr


def test_what_is_switched_off_is_not_there() -> None:
    all_of_it = render()
    assert named(all_of_it, "CronJob") == {"sandbox-cleanup"}
    policies = named(all_of_it, "ValidatingAdmissionPolicy")
    assert {"sandbox-namespaces", "sandbox-guardrails", "sandbox-network-first", "sandbox-cleanup-account"} <= policies
    assert policies == named(all_of_it, "ValidatingAdmissionPolicyBinding")

    assert named(render("--set", "cleanup.enabled=false"), "CronJob") == set()
    assert named(render("--set", "admission.enabled=false"), "ValidatingAdmissionPolicy") == set()
    assert "sandbox-owner" not in named(render("--set", "access.create=false"), "ClusterRole")


def test_a_pattern_that_is_none_is_refused_when_it_is_rendered() -> None:
    done = helm(None, "template", "sandbox", str(CHART), *_SYSTEM, "--set", "admission.reservedNames={(}")

    assert done.returncode != 0
    assert "error parsing regexp" in done.stderr


def test_the_clean_up_is_not_tried_again_and_has_no_rights_on_its_node() -> None:
    job = next(found for found in render() if found["kind"] == "CronJob")["spec"]

    assert job["concurrencyPolicy"] == "Forbid"
    run = job["jobTemplate"]["spec"]
    # Leftovers are no failure that trying again would mend; the condition names the exit code.
    assert run["backoffLimit"] == 0
    (rule,) = run["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["operator"], rule["onExitCodes"]["values"]) == ("FailJob", "NotIn", [0])
    pod = run["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_platform_says_how_namespaces_begin() -> None:
    made = render("--set", "admission.namespacePrefix=sbx-")

    config = next(document for document in made if document["kind"] == "ConfigMap")
    assert parse_platform(config["data"]["platform.yaml"]).namespace_prefix == "sbx-"


def test_locks_stay_in_the_cluster_only_where_no_store_is_named() -> None:
    assert named(render(), "Namespace") == {"sandbox-locks"}
    assert named(render("--set", "captureStore=s3://captures"), "Namespace") == set()
    assert named(render("--set", "cleanup.enabled=false"), "Namespace") == set()


def test_custom_resources_that_the_clean_up_deletes_are_told_to_all_who_must_know() -> None:
    listed = {"group": "acid.zalan.do", "resource": "postgresqls"}
    made = render("--set-json", f"cleanup.customResources=[{json.dumps(listed)}]")

    config = next(d for d in made if d["metadata"]["name"] == "sandbox-config" and d["kind"] == "ConfigMap")
    assert parse_platform(config["data"]["platform.yaml"]).cleanup.kinds == {"postgresqls.acid.zalan.do"}
    role = next(d for d in made if d["metadata"]["name"] == "sandbox-cleanup" and d["kind"] == "ClusterRole")
    rule = {"apiGroups": ["acid.zalan.do"], "resources": ["postgresqls"], "verbs": ["list", "delete"]}
    assert rule in role["rules"]
    assert "sandbox-cleanup-custom-resources" in named(made, "ValidatingAdmissionPolicyBinding")
    assert "sandbox-cleanup-custom-resources" not in named(render(), "ValidatingAdmissionPolicy")


def test_where_services_of_other_namespaces_may_be_reached_is_the_platforms_to_say() -> None:
    def services(*arguments: str) -> str:
        made = render(*arguments)
        return next(
            json.dumps(d) for d in made if d["metadata"]["name"] == "sandbox-services" and "Policy" in d["kind"]
        )

    assert "admission.externalNames" not in services()
    assert '[\\"^qa-\\"].exists(' in services("--set", "admission.externalNames={^qa-}")
    done = helm(None, "template", "sandbox", str(CHART), *_SYSTEM, "--set", "admission.externalNames={(}")
    assert "error parsing regexp" in done.stderr


def test_a_profile_is_taken_away_and_one_without_a_network_policy_asks_for_none() -> None:
    without = render("--set", "profiles.large=null", "--set", "profiles.small.network=open")

    config = next(d for d in without if d["kind"] == "ConfigMap")
    assert set(yaml.safe_load(config["data"]["platform.yaml"])["profiles"]) == {"small", "medium"}
    policies = named(without, "ValidatingAdmissionPolicy")
    assert "sandbox-network-first" not in policies
    assert "sandbox-limits-first" in policies


# --- in a cluster -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installed:
    """A cluster with the chart on it, and the image that its clean-up runs."""

    info: ClusterInfo
    image: str


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    if reason := EmbeddedProvider().available():
        pytest.skip(f"no embedded cluster: {reason}")
    info = asyncio.run(EmbeddedProvider().create(_NAME, progress=print))
    image = build_image(info)
    repository, _, digest = image.partition("@")
    cleanup = {"schedule": "* * * * *", "image": {"repository": repository, "digest": digest}}
    install(info, tmp_path_factory.mktemp("values"), {"clusterName": "test", "cleanup": cleanup})
    yield Installed(info, image)
    if "SANDBOX_TEST_CHART_CLUSTER" not in os.environ:
        asyncio.run(EmbeddedProvider().delete(_NAME, print))


def build_image(info: ClusterInfo) -> str:
    """The product's own image, in the cluster's registry; by digest."""
    tag = f"localhost/sandbox:{os.getpid()}"
    base = subprocess.run(
        [ROOT / "examples/shop/make-base-image", str(info.registry)],
        check=True,
        timeout=600,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()
    subprocess.run([ROOT / "scripts/build-image", tag, base], check=True, timeout=600, stdout=subprocess.DEVNULL)
    try:
        return asyncio.run(EmbeddedProvider().load_image(info.name, tag, print))
    finally:
        subprocess.run(["buildah", "rmi", "--force", tag], check=False, timeout=60, capture_output=True)


@pytest.fixture
def group(installed: Installed) -> Iterator[Group]:
    with group_on(installed.info) as made:
        yield made


def test_the_clean_up_fires_and_deletes_what_has_expired_and_nothing_else(installed: Installed, group: Group) -> None:
    info = installed.info
    over, alive = group.name("over"), group.name("alive")
    group.make(over, timedelta(hours=-1))
    group.make(alive, timedelta(hours=4))

    def gone() -> bool | None:
        return True if over not in group.alive() else None

    until(gone, "the CronJob fires and deletes what has expired", 180)

    assert alive in group.alive()

    def ended() -> dict[str, Any] | None:
        pods = api_of(info).list("pods", "sandbox-system")
        done = [pod for pod in pods if pod["status"]["phase"] in ("Succeeded", "Failed")]
        said = [pod for pod in done if over in kubectl(info, "logs", *_SYSTEM, pod["metadata"]["name"])]
        return said[0] if said else None

    pod = until(ended, "the pass that deleted it ends", 60)
    # What it says to people comes between, from standard error.
    written = kubectl(info, "logs", *_SYSTEM, pod["metadata"]["name"]).splitlines()
    lines = [json.loads(line) for line in written if line.startswith("{")]
    (deleted,) = [line for line in lines if line["action"] == "deleted" and over in line.values()]
    kept = kubectl(info, "get", "configmaps", "--namespace", "sandbox-locks", "-o", "name").split()
    assert deleted["lock"].replace("configmap://sandbox-locks/", "configmap/") in kept
    job = json.loads(kubectl(info, "get", "job", *_SYSTEM, pod["metadata"]["ownerReferences"][0]["name"], "-o", "json"))
    assert job["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    container = pod["spec"]["containers"][0]
    assert container["image"] == installed.image
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["securityContext"]["runAsUser"] == 65532
    # What `doctor` says of it.
    until(lambda: True if "it last succeeded" in cleanup_health(info).said else None, "it is said to succeed", 60)


def cleanup_health(info: ClusterInfo) -> cleanupjob.Health:
    async def look() -> cleanupjob.Health | None:
        async with Cluster.connect(info.context, info.kubeconfig) as connection:
            return await cleanupjob.look(connection)

    found = asyncio.run(look())
    assert found is not None
    return found


def test_an_image_that_cannot_be_pulled_is_told(installed: Installed) -> None:
    made = (
        "create",
        "job",
        "without-image",
        *_SYSTEM,
        "--from=cronjob/sandbox-cleanup",
        "--dry-run=client",
        "-o",
        "json",
    )
    job = json.loads(kubectl(installed.info, *made))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["image"] = f"{installed.info.registry}/no-such-image:1"
    kubectl(installed.info, "create", "-f", "-", stdin=json.dumps(job))
    try:
        held = until(
            lambda: found if (found := cleanup_health(installed.info)).said.startswith("its pod does not") else None,
            "the newest pod of the clean-up is seen not to start",
            90,
        )
        assert "ImagePull" in held.said
        assert "cleanup.image" in held.mend
    finally:
        kubectl(installed.info, "delete", "job", "without-image", *_SYSTEM, "--wait=false")


@pytest.mark.parametrize(
    ("may", "verb", "what"),
    [
        ("yes", "list", "namespaces"),
        ("yes", "delete", "namespaces"),
        ("yes", "create", "events"),
        ("yes", "list", "persistentvolumes"),
        ("no", "delete", "persistentvolumes"),
        ("yes", "get", "configmaps/sandbox-record"),
        ("yes", "list", "configmaps/sandbox-record"),
        ("no", "list", "configmaps/settings"),
        ("no", "watch", "configmaps/sandbox-record"),
        ("no", "list", "secrets/sandbox-record"),
        ("yes", "get", "leases.coordination.k8s.io/sandbox-deploy"),
        ("no", "get", "leases.coordination.k8s.io/other"),
        ("no", "get", "configmaps/settings"),
        ("no", "list", "configmaps"),
        ("no", "get", "secrets"),
        ("no", "list", "pods"),
        ("no", "create", "namespaces"),
        ("no", "delete", "pods"),
        ("no", "create", "rolebindings.rbac.authorization.k8s.io"),
        ("no", "update", "namespaces/finalize"),
    ],
)
def test_the_clean_up_has_the_rights_that_it_needs(installed: Installed, may: str, verb: str, what: str) -> None:
    account = "--as=system:serviceaccount:sandbox-system:sandbox-cleanup"
    script = ("auth", "can-i", verb, what, account, "--namespace", "default")
    # kubectl ends with 1 for "no".
    answer = kubectl_says(installed.info, *script)

    assert answer == may


def test_of_all_config_maps_the_clean_up_lists_records_only(installed: Installed) -> None:
    account = "--as=system:serviceaccount:sandbox-system:sandbox-cleanup"
    with group_on(installed.info) as group:
        group.make(group.name("alive"))

        for namespaces in (("--all-namespaces",), ("--namespace", group.name("alive"))):
            listed = ("get", "configmaps", "-o", "name", *namespaces)
            only = kubectl_says(installed.info, *listed, "--field-selector=metadata.name=sandbox-record", account)
            assert set(only.split()) == {"configmap/sandbox-record"}
            for wider in ("", "metadata.name!=x", "metadata.name=kube-root-ca.crt", "metadata.namespace=default"):
                assert kubectl_says(installed.info, *listed, f"--field-selector={wider}", account) == ""


def kubectl_says(info: ClusterInfo, *arguments: str) -> str:
    folder = embedded_bin_dir()
    assert folder is not None
    argv = [str(folder / "kubectl"), f"--kubeconfig={info.kubeconfig}", f"--context={info.context}", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip()

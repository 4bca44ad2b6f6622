"""What fails is said within seconds: service, pod, container, the cluster's own reason, the last log lines."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from sandbox.cluster.providers import ClusterInfo
from tests.conftest import kubectl
from tests.e2e.bounded import until
from tests.e2e.projects import (
    Ended,
    GitProject,
    Manifest,
    Namespace,
    Tool,
    config_map,
    deployment,
    documents,
    job,
)

# Seconds from the first event in the cluster: ten, and what a busy machine and events' whole seconds add.
AT_MOST = 12.0


def deploy(tool: Tool, project: GitProject, services: dict[str, Manifest], *arguments: str) -> Ended:
    project.declare(services)
    project.commit()
    return tool.up(project, *arguments)


def test_a_crash_loop_shows_the_last_words_of_the_container(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    web = deployment("web", probe_image, "crash", "cannot read /etc/web.conf")

    ended = deploy(tool, project, {"shop": project.manifests("shop", web)})

    pod = space.list("pods")[0]["metadata"]["name"]
    ended.failed(1, "service shop", f"pod/{pod}", "container main", "(exit code 1)", "    cannot read /etc/web.conf")
    # It ends as soon as it has started.
    assert ended.at - space.first_shown("Started") < AT_MOST
    assert space.annotations()["sandbox.dev/phase"] == "Failed"


def test_one_service_that_fails_does_not_hide_behind_others_that_wait(
    tool: Tool, project: GitProject, probe_image: str
) -> None:
    never = {"exec": {"command": ["/probe", "crash", "not yet"]}}
    slow = deployment("slow", probe_image, "sleep", readinessProbe=never)
    broken = deployment("broken", probe_image, "crash", "gone wrong")

    services = {"slow": project.manifests("slow", slow), "broken": project.manifests("broken", broken)}
    ended = deploy(tool, project, services)

    ended.failed(1, "service broken", "gone wrong")


def test_an_image_that_cannot_be_pulled_is_named(
    tool: Tool, project: GitProject, space: Namespace, cluster: ClusterInfo
) -> None:
    image = f"{cluster.registry}/no/such:image"

    ended = deploy(tool, project, {"shop": project.manifests("shop", deployment("web", image, "sleep"))})

    pod = space.list("pods")[0]["metadata"]["name"]
    ended.failed(1, "service shop", f"pod/{pod}", "container main", "ImagePull", image, "not found")
    assert ended.at - space.first_shown("Failed") < AT_MOST


def test_a_rejection_by_the_quota_is_shown_in_the_words_of_the_api_server(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    # What is there already counts too; the preflight looks at what is deployed only.
    project.declare({"web": project.manifests("web", config_map("web", text="x"))})
    project.commit()
    tool.up(project).ok()
    resources = {"requests": {"cpu": "1900m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "64Mi"}}
    space.kubectl("apply", "-f", "-", stdin=documents(deployment("by-hand", probe_image, "sleep", resources=resources)))
    space.kubectl("wait", "deployment/by-hand", "--for=jsonpath={.status.replicas}=1", "--timeout=30s")
    web = deployment("web", probe_image, "sleep", resources={"requests": {"cpu": "500m", "memory": "64Mi"}})

    ended = deploy(tool, project, {"shop": project.manifests("shop", web)})

    ended.failed(1, "service shop", "web", "FailedCreate", "exceeded quota: sandbox", "requests.cpu=500m")
    assert ended.at - space.first_shown("FailedCreate") < AT_MOST


def test_a_pod_that_fits_on_no_node_is_said(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    web = deployment("web", probe_image, "sleep")
    web["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "of-gold"}

    ended = deploy(tool, project, {"shop": project.manifests("shop", web)})

    pod = space.list("pods")[0]["metadata"]["name"]
    ended.failed(1, "service shop", f"pod/{pod}", "Unschedulable", "node(s) didn't match", "selector")
    assert ended.at - space.first_shown("FailedScheduling") < AT_MOST


def test_a_config_error_of_a_container_is_said(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    # Root in the image, and forbidden in the pod: only the kubelet finds out.
    web = deployment("web", probe_image, "sleep", securityContext={"runAsNonRoot": True})

    ended = deploy(tool, project, {"shop": project.manifests("shop", web)})

    ended.failed(1, "service shop", "container main", "CreateContainerConfigError", "runAsNonRoot")
    assert ended.at - space.first_shown("Failed") < AT_MOST


def test_a_failed_migration_of_a_chart_shows_its_log(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    # As many charts have it: a run that failed is left, and Helm takes it away before no other.
    hook = {"helm.sh/hook": "pre-install,pre-upgrade", "helm.sh/hook-delete-policy": "hook-succeeded"}
    migration = job("migrate", probe_image, "crash", "column total does not exist", annotations=hook)
    chart = project.chart("orders", documents(migration), documents(deployment("orders", probe_image, "sleep")))

    ended = deploy(tool, project, {"orders": chart})

    ended.failed(1, "service orders", "migrate", "container main", "column total does not exist")
    assert ended.at - space.first_shown("BackoffLimitExceeded") < AT_MOST
    assert space.names("deployments") == set()
    assert space.names("jobs") == {"migrate"}

    mended = job("migrate", probe_image, "write", "/dev/null", "x", annotations=hook)
    deploy(tool, project, {"orders": project.chart("orders", documents(mended), documents(config_map("orders")))}).ok()

    assert space.names("jobs") == set()


def test_a_migration_of_a_chart_that_cannot_start_does_not_wait_for_helm_to_give_up(
    tool: Tool, project: GitProject, space: Namespace, cluster: ClusterInfo
) -> None:
    migration = job("migrate", f"{cluster.registry}/no/such:image", annotations={"helm.sh/hook": "pre-install"})

    ended = deploy(tool, project, {"orders": project.chart("orders", documents(migration))})

    ended.failed(1, "service orders", "migrate", "ImagePull", "/no/such:image")
    assert ended.at - space.first_shown("Failed") < AT_MOST


def test_a_failed_job_among_manifests_shows_its_log(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    seed = project.manifests("seed", job("seed", probe_image, "crash", "no such table"))
    ended = deploy(tool, project, {"seed": seed}, "--rollback-on-failure")

    ended.failed(1, "service seed", "job.batch/seed", "no such table", "there is no deployment before to roll back to")
    assert ended.at - space.first_shown("BackoffLimitExceeded") < AT_MOST


@pytest.mark.parametrize("stage", ["beforeDeploy", "afterDeploy"])
def test_a_failed_hook_of_the_project_shows_its_log(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str, stage: str
) -> None:
    hook = {"name": "seed", "command": ["/probe", "crash", "no seed today"], "image": probe_image}
    web = project.manifests("web", config_map("web", text="x")) | {"hooks": {stage: [hook]}}

    ended = deploy(tool, project, {"web": web})

    ended.failed(1, "service web", "seed", "no seed today")
    assert ("web" in space.names("configmaps")) is (stage == "afterDeploy")


def test_a_failed_smoke_test_shows_what_was_answered(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    command = {"command": ["/probe", "crash", "the page is empty"], "image": probe_image}
    web = project.manifests("web", config_map("web", text="x")) | {"smoke": command}

    deploy(tool, project, {"web": web}).failed(1, "service web", "smoke", "the page is empty")


def test_what_is_not_ready_in_time_is_said_with_what_it_waits_for(
    tool: Tool, project: GitProject, probe_image: str
) -> None:
    never = {"exec": {"command": ["/probe", "crash", "not yet"]}, "periodSeconds": 1}
    web = deployment("web", probe_image, "sleep", readinessProbe=never)

    ended = deploy(tool, project, {"shop": project.manifests("shop", web)}, "--timeout", "6s")

    ended.failed(1, "service shop", "deployment.apps/web", "0 of 1")


def test_without_waiting_nothing_is_looked_at(tool: Tool, project: GitProject, probe_image: str) -> None:
    web = deployment("web", probe_image, "crash", "later")

    deploy(tool, project, {"shop": project.manifests("shop", web)}, "--no-wait").ok()


def test_a_service_waits_until_those_that_it_needs_are_ready(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    slow = {"exec": {"command": ["/probe", "resolve", "localhost"]}, "initialDelaySeconds": 3, "periodSeconds": 1}
    api = project.manifests("api", deployment("api", probe_image, "sleep", readinessProbe=slow))
    web = project.manifests("web", deployment("web", probe_image, "sleep")) | {"needs": ["api"]}

    deploy(tool, project, {"web": web, "api": api}).ok()

    ready = {c["type"]: c for c in space.get("deployment", "api")["status"]["conditions"]}["Available"]
    assert space.get("deployment", "web")["metadata"]["creationTimestamp"] >= ready["lastTransitionTime"]


def test_workloads_of_all_kinds_are_waited_for(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    def as_kind(kind: str, **spec: object) -> Manifest:
        made = deployment(kind.lower(), probe_image, "sleep")
        del made["spec"]["replicas"]
        return {**made, "kind": kind, "spec": {**made["spec"], **spec}}

    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    stateful = as_kind("StatefulSet", serviceName="statefulset")
    pod = stateful["spec"]["template"]["spec"]
    pod["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    pod["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    done = job("done", probe_image, "write", "/dev/null", "x")

    services = project.manifests("all", claim, stateful, as_kind("DaemonSet"), as_kind("Deployment"), done)
    deploy(tool, project, {"all": services}).ok()

    assert space.get("statefulset", "statefulset")["status"]["readyReplicas"] == 1
    assert space.get("daemonset", "daemonset")["status"]["numberReady"] == 1
    assert space.get("deployment", "deployment")["status"]["availableReplicas"] == 1
    assert space.get("job", "done")["status"]["succeeded"] == 1
    assert space.get("persistentvolumeclaim", "data")["status"]["phase"] == "Bound"


@pytest.fixture
def gadgets(cluster: ClusterInfo, project: GitProject) -> Iterator[str]:
    """The API group of a kind of custom resources that is only this test's."""
    group = f"{project.name}.example.com"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gadgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"},
            "versions": [{**version, "schema": {"openAPIV3Schema": anything}}],
        },
    }
    kubectl(cluster, "apply", "-f", "-", stdin=documents(definition))
    kubectl(cluster, "wait", "--for=condition=Established", f"crd/gadgets.{group}", "--timeout=20s")
    yield group
    kubectl(cluster, "delete", "crd", f"gadgets.{group}", "--wait=false")


def test_a_custom_resource_is_waited_for_until_its_condition_says_that_it_is_ready(
    tool: Tool, project: GitProject, space: Namespace, gadgets: str
) -> None:
    gadget = {"apiVersion": f"{gadgets}/v1", "kind": "Gadget", "metadata": {"name": "radio"}, "spec": {"size": 1}}
    project.declare({"radio": project.manifests("radio", gadget)})
    project.commit()

    def say(status: str, message: str) -> None:
        conditions = [{"type": "Ready", "status": status, "reason": "Tuning", "message": message}]
        patch = json.dumps({"status": {"observedGeneration": 1, "conditions": conditions}})
        words = ("patch", f"gadgets.{gadgets}/radio", "--subresource=status", "--type=merge", "-p", patch)
        until(lambda: space.kubectl(*words) if radio_is_there() else None, "the gadget can be patched", 20)

    def radio_is_there() -> bool:
        found = space.itself()
        return found is not None and "radio" in space.names(f"gadgets.{gadgets}")

    running = tool.start_up(project)
    running.read_until("• Deploy radio")
    say("False", "looking for a station")
    running.read_until("looking for a station")
    assert running.process.poll() is None
    say("True", "found one")

    running.wait(30).ok()

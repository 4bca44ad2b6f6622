"""What a quota profile decides besides amounts: how many sandboxes, how long they live, and what just fits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.cluster.providers import ClusterInfo
from tests.conftest import kubectl
from tests.e2e.bounded import until
from tests.e2e.projects import GitProject, Namespace, Tool, config_map, deployment, documents


def profile(name: str, hard: dict[str, Any], **more: Any) -> dict[str, Any]:
    about = {"apiVersion": "sandbox.dev/v1", "kind": "QuotaProfile", "name": name, "resourceQuota": hard}
    return {**about, **more}


def write_profile(project: GitProject, written: dict[str, Any]) -> None:
    project.write({f"quotas/{written['name']}.yaml": documents(written)})


def _idle_row(tool: Tool, name: str) -> dict[str, Any] | None:
    rows = tool.run("quota", "usage", "--idle", "1s", "-o", "json").ok().data
    return next((row for row in rows if row["name"] == name and row["idle"]), None)


@pytest.mark.parametrize(("limit", "owner"), [("maxPerOwner", ()), ("maxPerProject", ("--owner", "erin@example.com"))])
def test_one_sandbox_too_many_is_refused_before_anything_is_built(
    tool: Tool, project: GitProject, space: Namespace, cluster: ClusterInfo, limit: str, owner: tuple[str, ...]
) -> None:
    # Its own name: sandboxes of other tests do not count.
    mine = f"p-{project.name}"
    write_profile(project, profile(mine, {"pods": "1", "configmaps": "5"}, **{limit: 1}))
    project.declare({"web": project.manifests("web", config_map("web", text="x"))}, defaults={"quota": mine})
    project.commit()
    tool.up(project).ok()
    # Again, it is not one more.
    tool.up(project).ok()

    more = tool.run("up", "--name", f"{project.name}-2", *owner, cwd=project.folder)

    more.failed(4, f"may have 1 sandbox of the quota profile {mine}", project.name, f"sandbox down {project.name}")
    assert "Resolve images" not in more.err
    assert Namespace(cluster, f"{project.name}-2").itself() is None
    # A lock makes no sandbox.
    tool.run("lock", cwd=project.folder).ok()


def test_no_up_goes_beyond_the_longest_life(
    tool: Tool, project: GitProject, space: Namespace, cluster: ClusterInfo
) -> None:
    write_profile(project, profile("brief", {"pods": "1", "configmaps": "5"}, maxTTL="2h", maxLifetime="3h"))
    project.declare({"web": project.manifests("web", config_map("web", text="x"))}, defaults={"quota": "brief"})
    project.commit()
    tool.up(project, "--ttl", "4h").failed(4, "over what the quota profile brief allows", "2h")
    tool.up(project, "--ttl", "2h").ok()
    note = space.annotations()
    life = datetime.fromisoformat(note["sandbox.dev/max-expires-at"]) - datetime.fromisoformat(
        note["sandbox.dev/created-at"]
    )
    assert life == timedelta(hours=3)

    end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    kubectl(cluster, "annotate", "namespace", space.name, "--overwrite", f"sandbox.dev/max-expires-at={end}")
    capped = tool.up(project, "--ttl", "2h").ok()
    assert "that is its longest life" in capped.err
    assert space.annotations()["sandbox.dev/expires-at"] == end

    past = (datetime.now(UTC) - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    kubectl(cluster, "annotate", "namespace", space.name, "--overwrite", f"sandbox.dev/max-expires-at={past}")
    tool.up(project, "--ttl", "2h").failed(4, "has reached its longest life", "sandbox down")


def test_a_sandbox_that_takes_all_of_its_quota_is_deployed_and_one_less_is_refused(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    """Helm's Secrets, ours, hooks that end, and what controllers make: counted to the last one."""
    hook = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "prepare", "annotations": {"helm.sh/hook": "pre-install"}},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        {
                            "name": "main",
                            "image": probe_image,
                            "args": ["exit", "0"],
                            "resources": {"limits": {"cpu": "20m", "memory": "16Mi"}},
                        }
                    ],
                }
            },
        },
    }
    web = deployment("web", probe_image, "sleep", replicas=2, resources={"limits": {"cpu": "10m", "memory": "16Mi"}})
    exact = {
        "requests.cpu": "20m",
        "limits.memory": "32Mi",
        "pods": "2",
        "count/pods": "3",
        "secrets": "3",
        "configmaps": "3",
        "services": "0",
        "count/jobs.batch": "1",
        "count/deployments.apps": "1",
        "count/replicasets.apps": "1",
        "count/leases.coordination.k8s.io": "1",
        "count/serviceaccounts": "1",
        "count/networkpolicies.networking.k8s.io": "1",
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "plain"}}
    chart = project.chart("chart", documents(hook), documents(web), documents(config_map("chart", text="x")))
    project.declare({"chart": chart, "plain": project.manifests("plain", secret)}, defaults={"quota": "exact"})
    for resource, less in {"requests.cpu": "19m", "secrets": "2", "count/pods": "2"}.items():
        write_profile(project, profile("exact", {**exact, resource: less}))
        project.commit()
        ended = tool.up(project, "--dry-run").failed(4, "WORKLOAD", "LEFT", resource)
        assert ended.out == ""
    write_profile(project, profile("exact", exact))
    project.commit()

    said = tool.up(project).ok().err

    assert "deployment.apps/web will not be updated by the next `up`" in said
    assert "after ten deployments" in said
    quota = space.get("resourcequota", "sandbox")
    # The lease goes when all is deployed.
    assert quota["status"]["used"] == {**exact, "count/leases.coordination.k8s.io": "0"}

    one = tool.run("quota", "usage", project.name, "-o", "json").ok().data
    told = {use["resource"]: (use["requested"], use["used"], use["hard"]) for use in one["resources"]}
    assert told["requests.cpu"] == ("20m", "20m", "20m")
    assert told["limits.memory"] == (str(32 * 2**20),) * 3
    assert (one["idle"], one["volumes"], one["quota_profile"]) == ("", [], "exact")
    lines = tool.run("quota", "usage", project.name).ok().out
    assert "100%" in lines
    assert f"Sandbox {project.name} of " in lines
    row = until(lambda: _idle_row(tool, project.name), "the sandbox is idle for a second")
    assert row["idle"].startswith("no deployment for ")
    assert {use["resource"]: use["used"] for use in row["resources"]}["pods"] == "2"
    groups = tool.run("quota", "usage", "--by", "project", "-o", "json").ok().data
    (group,) = (group for group in groups if group["name"] == project.name)
    assert (group["sandboxes"], group["idle"]) == (1, 0)
    assert project.name in tool.run("quota", "usage", "--by", "project").ok().out
    tool.run("quota", "usage", project.name, "--by", "owner").failed(2, "leave the name out")

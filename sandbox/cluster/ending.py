"""What a namespace that is being deleted waits for."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.model.deletion import ending_for, pod_reasons, stuck_reasons
from sandbox.model.errors import SandboxError, Unreachable
from sandbox.model.objects import Manifest

# The control plane begins with it after 5 s, and says what remains when it comes by again.
_SILENT_AT_FIRST: Final = timedelta(seconds=30)


async def what_holds(cluster: Cluster, namespace: Manifest) -> list[str]:
    """Why a namespace does not end: in the control plane's words, else its pods.

    Kubernetes ends pods before everything else, and while it waits for them its conditions say nothing.

    Raises:
        Unreachable: the cluster does not answer.
    """
    if reasons := stuck_reasons(namespace):
        return reasons
    name = namespace["metadata"]["name"]
    try:
        pods = [pod async for pod in objects.list_(cluster, "v1", "Pod", name, metadata_only=True)]
    except Unreachable:
        raise
    except SandboxError as error:
        hint = f"pods end first: `kubectl get pods -n {name}` shows them"
        return [f"the control plane does not say what it waits for; {hint} ({error})"]
    if reasons := pod_reasons(pods, cluster.known_time()):
        return reasons
    if ending_for(namespace, cluster.known_time()) < _SILENT_AT_FIRST:
        return ["Kubernetes is deleting what is in it"]
    return ["the control plane does not say what it waits for, and there are no pods"]

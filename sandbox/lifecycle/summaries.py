"""What the records of sandboxes say in short: asked for one by one, or listed where they are many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final, TypeVar

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.model import labels
from sandbox.model.objects import ObjectRef
from sandbox.model.summary import Summary, read_summary

# A server goes through all ConfigMaps for it; for fewer than these, that is more than to ask for each.
_MANY: Final = 100
# A record in a list costs this part of a request of its own, at the most.
_OTHERS: Final = 10
# A record may take 1 MiB, and a page is held in memory as a whole.
_PAGE: Final = 25
_Wanted = TypeVar("_Wanted")


async def read(cluster: Cluster, namespace: str) -> Summary | None:
    """What the record of one namespace says; None where it has none.

    Raises:
        SandboxError: the cluster does not say.
    """
    found = await objects.get(cluster, ObjectRef("", "v1", "ConfigMap", labels.RECORD_NAME, namespace))
    return read_summary(found) if found is not None else None


def is_worth_a_list(wanted: int, known: int) -> bool:
    """Whether to list all records for some of them.

    Args:
        known: how many sandboxes there are.
    """
    return wanted >= _MANY and known <= (_OTHERS + 1) * wanted


async def listed(cluster: Cluster, wanted: Mapping[str, _Wanted]) -> AsyncIterator[tuple[_Wanted, Summary]]:
    """What the records of these namespaces say; not of all, where the list shows mostly others' and is given up.

    The field selector is what lets RBAC hold this to records (and never Secrets): the API server takes
    ``metadata.name`` for the name that the request is about, which ``resourceNames`` can allow
    (https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources).

    Args:
        wanted: by namespace; may lose entries meanwhile.

    Raises:
        Forbidden: we may not list them.
        SandboxError: the cluster does not go on.
    """
    most_others = _OTHERS * len(wanted)
    async for found in objects.list_(
        cluster, "v1", "ConfigMap", field_selector=f"metadata.name={labels.RECORD_NAME}", limit=_PAGE
    ):
        item = wanted.get(found["metadata"]["namespace"])
        if item is not None:
            yield item, read_summary(found)
            continue
        most_others -= 1
        if most_others < 0:
            return

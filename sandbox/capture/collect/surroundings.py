"""What the namespace stands on: nodes, the server's version, our tools', and the quota that is used."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from sandbox import __version__
from sandbox.capture.bundle import JSON_TYPE
from sandbox.capture.collect.collection import Collection, as_json
from sandbox.capture.collect.running import Running
from sandbox.cluster import objects
from sandbox.cluster.tools import tool_versions
from sandbox.model.errors import SandboxError
from sandbox.model.objects import Manifest, ObjectRef

_NODE_FACTS = ("capacity", "allocatable", "conditions", "nodeInfo")


@dataclass
class Surroundings:
    """Versions by tool, and the server's."""

    tools: dict[str, str] = field(default_factory=dict)
    server_version: str = ""
    user: str = ""


async def collect_versions(collection: Collection, found: Surroundings) -> None:
    """The server's version, who we are to it, and the tools of this machine."""
    async with collection.looking_at("versions.json", "versions") as look:
        server, found.user, tools = await asyncio.gather(
            collection.cluster.request("GET", "/version"),
            _user(collection),
            asyncio.to_thread(tool_versions),
        )
        found.server_version = str(server.get("gitVersion"))
        found.tools = {"sandbox": __version__, **tools}
        await collection.store_safe("versions.json", as_json({"server": server, "tools": found.tools}), JSON_TYPE, look)


async def _user(collection: Collection) -> str:
    try:
        return (await collection.cluster.whoami()).username
    except SandboxError:
        # Servers before 1.28 do not say.
        return ""


async def collect_nodes(collection: Collection, running: Running) -> None:
    """The nodes that pods run on: capacity, conditions, versions. Nothing else of them."""
    await running.pods_known.wait()
    names = sorted({str((pod.get("spec") or {}).get("nodeName")) for pod in running.pods} - {"None", ""})
    async with collection.looking_at("nodes.json", "nodes") as look:
        if not names:
            look.end("absent", "no pod is on a node")
            return

        async def one(name: str) -> Manifest | None:
            async with collection.requests:
                return await objects.get(collection.cluster, ObjectRef("", "v1", "Node", name))

        nodes = [_facts(node) for node in await asyncio.gather(*map(one, names)) if node]
        look.count = len(nodes)
        await collection.store_json("nodes.json", nodes, look)


def _facts(node: Manifest) -> dict[str, Any]:
    status, metadata = node.get("status") or {}, node["metadata"]
    return {
        "name": metadata["name"],
        "labels": metadata.get("labels") or {},
        "taints": (node.get("spec") or {}).get("taints") or [],
        **{key: status.get(key) for key in _NODE_FACTS},
    }

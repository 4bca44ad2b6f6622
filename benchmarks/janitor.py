"""The peer of `cleanup.py`: kube-janitor's way of deleting expired namespaces, and nothing else of it.

One LIST of the namespaces, then for each one that has expired an Event and a DELETE, one request after another from
one thread over one connection that is kept open (https://codeberg.org/hjacobs/kube-janitor, `janitor.py`: `clean_up`,
`create_event`, `delete`). Requests are made as pykube-ng makes them, with `requests`: the certificates are given with
each. What kube-janitor does besides (a LIST of every kind in the cluster) is left out.

    python benchmarks/janitor.py KUBECONFIG CONTEXT
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
import yaml


def main(kubeconfig: str, context: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server, ask = _connect(yaml.safe_load(Path(kubeconfig).read_text()), context, Path(folder))
        namespaces = ask("GET", f"{server}/api/v1/namespaces")["items"]
        deleted = 0
        for namespace in namespaces:
            metadata = namespace["metadata"]
            expires = (metadata.get("annotations") or {}).get("janitor/expires")
            if "deletionTimestamp" in metadata or not expires:
                continue
            if datetime.now(UTC) > datetime.strptime(expires, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC):
                events = f"{server}/api/v1/namespaces/{metadata['name']}/events"
                ask("POST", events, _event(namespace, expires))
                ask("DELETE", f"{server}/api/v1/namespaces/{metadata['name']}", {"propagationPolicy": "Background"})
                deleted += 1
    print(f"deleted {deleted} of {len(namespaces)} namespaces")


def _connect(config: dict[str, Any], context: str, folder: Path) -> tuple[str, Callable[..., Any]]:
    chosen = next(entry["context"] for entry in config["contexts"] if entry["name"] == context)
    cluster = next(entry["cluster"] for entry in config["clusters"] if entry["name"] == chosen["cluster"])
    user = next(entry["user"] for entry in config["users"] if entry["name"] == chosen["user"])
    files = {"ca": cluster["certificate-authority-data"], "crt": user["client-certificate-data"]}
    for name, data in {**files, "key": user["client-key-data"]}.items():
        (folder / name).write_bytes(base64.b64decode(data))
    session = requests.Session()
    given: Any = {"verify": str(folder / "ca"), "cert": (str(folder / "crt"), str(folder / "key")), "timeout": 10}

    def ask(method: str, url: str, body: Any = None) -> Any:
        response = session.request(method, url, data=None if body is None else json.dumps(body), **given)
        response.raise_for_status()
        return response.json()

    return cluster["server"], ask


def _event(namespace: dict[str, Any], expires: str) -> Any:
    metadata = namespace["metadata"]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {"namespace": metadata["name"], "generateName": "kube-janitor-"},
        "type": "Normal",
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "reason": "ExpiryTimeReached",
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Namespace",
            "name": metadata["name"],
            "namespace": metadata["name"],
            "uid": metadata["uid"],
        },
        "message": f"Namespace {metadata['name']} expired on {expires} and will be deleted",
        "source": {"component": "kube-janitor"},
    }


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What tests read of a cluster past the tool, over a connection that stays open.

Two thousand starts of kubectl were an eighth of the end-to-end tests' CPU time, most of them to look at one object
or to delete a namespace. Answers are the API server's own, as `kubectl get -o json` prints them.
"""

from __future__ import annotations

import base64
import functools
import http.client
import json
import ssl
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

from sandbox.cluster.providers import ClusterInfo

Manifest = dict[str, Any]
_TIMEOUT = 60  # seconds
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass(frozen=True)
class _Resource:
    prefix: str
    plural: str
    api_version: str
    kind: str
    namespaced: bool


class Api:
    """One cluster's API as the context's user may use it; for tests that run in threads as well."""

    def __init__(self, kubeconfig: Path, context: str) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        chosen = _named(config["contexts"], context)["context"]
        server = _named(config["clusters"], chosen["cluster"])["cluster"]
        self._address = urlsplit(server["server"]).netloc
        self._tls = _tls(server, _named(config["users"], chosen["user"])["user"])
        self._connections = threading.local()
        self._resources: dict[str, _Resource] = {}

    def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """An object; None where there is none.

        Args:
            kind: as kubectl takes it: kind, singular, plural or short name.
        """
        resource = self._resource(kind)
        status, found = self._ask("GET", f"{_path(resource, namespace)}/{name}")
        return None if status == 404 else _good(status, found)

    def list(self, kinds: str, namespace: str = "", selector: str = "") -> list[Manifest]:
        """The objects of a kind, or of several (with commas between), each with its kind and version.

        Args:
            namespace: empty: all of the cluster.
        """
        found: list[Manifest] = []
        for kind in kinds.split(","):
            resource = self._resource(kind)
            query = {"labelSelector": selector} if selector else {}
            items = _good(*self._ask("GET", _path(resource, namespace), query=query))["items"]
            found += [{"apiVersion": resource.api_version, "kind": resource.kind, **item} for item in items]
        return found

    def create_namespace(self, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        _good(*self._ask("POST", "/api/v1/namespaces", body))

    def delete_namespace(self, name: str) -> None:
        """Without waiting until it is gone; harmless where there is none."""
        status, answer = self._ask("DELETE", f"/api/v1/namespaces/{name}")
        # 409: it is being deleted already.
        if status not in (404, 409):
            _good(status, answer)

    def delete_namespaces(self, selector: str) -> None:
        """Those with these labels, as :meth:`delete_namespace`."""
        for namespace in self.list("namespaces", selector=selector):
            self.delete_namespace(namespace["metadata"]["name"])

    def _resource(self, kind: str) -> _Resource:
        if kind.lower() not in self._resources:
            self._resources = {**self._discovered("apis"), **self._discovered("api")}
        assert kind.lower() in self._resources, f"the cluster has no {kind}"
        return self._resources[kind.lower()]

    def _discovered(self, root: str) -> dict[str, _Resource]:
        """By the names that kubectl takes; the first group that has a name keeps it."""
        found: dict[str, _Resource] = {}
        for group in _good(*self._ask("GET", f"/{root}", accept=_DISCOVERY))["items"]:
            name = group["metadata"].get("name", "")
            preferred = group["versions"][0]
            api_version = f"{name}/{preferred['version']}" if name else preferred["version"]
            for each in preferred.get("resources", ()):
                resource = _Resource(
                    f"/{root}/{api_version}",
                    each["resource"],
                    api_version,
                    each["responseKind"]["kind"],
                    each["scope"] == "Namespaced",
                )
                names = (each["resource"], each.get("singularResource", ""), resource.kind, *each.get("shortNames", ()))
                for said in filter(None, names):
                    found.setdefault(said.lower(), resource)
                    found.setdefault(f"{said}.{name}".lower(), resource)
        return found

    def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = "application/json",
    ) -> tuple[int, Any]:
        target = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": accept, "Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        for last in (False, True):
            kept = getattr(self._connections, "kept", None)
            connection = kept or http.client.HTTPSConnection(self._address, timeout=_TIMEOUT, context=self._tls)
            self._connections.kept = connection
            try:
                connection.request(method, target, text, headers)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())
            except (http.client.HTTPException, ConnectionError, ssl.SSLError):
                connection.close()
                self._connections.kept = None
                # The server closes what nobody used for a while; a new connection that fails is another matter.
                if last or kept is None:
                    raise
        raise AssertionError("the second try returns or raises")


def api_of(cluster: ClusterInfo) -> Api:
    return _connected(cluster.kubeconfig, cluster.context)


@functools.cache
def _connected(kubeconfig: Path, context: str) -> Api:
    return Api(kubeconfig, context)


def _path(resource: _Resource, namespace: str) -> str:
    inside = f"/namespaces/{namespace}" if namespace and resource.namespaced else ""
    return f"{resource.prefix}{inside}/{resource.plural}"


def _good(status: int, answer: Any) -> Any:
    assert status < 300, f"{status}: {answer.get('message', answer)}"
    return answer


def _named(entries: list[Manifest], name: str) -> Manifest:
    return next(entry for entry in entries if entry["name"] == name)


def _tls(server: Manifest, user: Manifest) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=_data(server, "certificate-authority").decode())
    with tempfile.NamedTemporaryFile() as file:
        file.write(_data(user, "client-certificate") + b"\n" + _data(user, "client-key"))
        file.flush()
        made.load_cert_chain(file.name)
    return made


def _data(entry: Manifest, key: str) -> bytes:
    return base64.b64decode(entry[f"{key}-data"]) if f"{key}-data" in entry else Path(entry[key]).read_bytes()

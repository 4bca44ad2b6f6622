"""People of several rights, as the API server knows them: by client certificate or by a ServiceAccount's token."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import FromServer
from sandbox.cluster.providers import ClusterInfo
from tests.conftest import kubectl
from tests.e2e.api import api_of
from tests.e2e.bounded import until

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the API server said to one request."""

    status: int
    message: str
    body: Any = None

    def ok(self) -> Any:
        assert self.status < 300, f"{self.status}: {self.message}"
        return self.body

    def refused(self, *words: str) -> None:
        """The API server itself refused it, for the reason that these words say."""
        assert self.status in (403, 422), f"{self.status}: {self.message or self.body}"
        missing = [word for word in words if word not in self.message]
        assert not missing, f"{missing} not in: {self.message}"


@dataclass(frozen=True)
class Person:
    """Somebody with a kubeconfig; requests go to the API server as they are, past everything of ours."""

    user: str
    info: ClusterInfo
    kubeconfig: Path

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        return asyncio.run(self._ask(method, path, body, content_type, query))

    async def _ask(
        self, method: str, path: str, body: Any, content_type: str, query: Mapping[str, str] | None
    ) -> Answer:
        async with Cluster.connect(None, self.kubeconfig) as connection:
            try:
                answer = await connection.request(method, path, body=body, content_type=content_type, query=query)
            except FromServer as error:
                return Answer(error.status, error.why)
        return Answer(200, "", answer)

    def create(self, path: str, body: Manifest, **query: str) -> Answer:
        return self.ask("POST", path, body, query=query)

    def merge(self, path: str, patch: Manifest, **query: str) -> Answer:
        return self.ask("PATCH", path, patch, content_type="application/merge-patch+json", query=query)

    def apply(self, path: str, body: Manifest) -> Answer:
        query = {"fieldManager": "test", "force": "true"}
        return self.ask("PATCH", path, body, content_type="application/apply-patch+yaml", query=query)

    def delete(self, path: str, **query: str) -> Answer:
        return self.ask("DELETE", path, query=query)

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)


def by_certificate(info: ClusterInfo, folder: Path, user: str, groups: Sequence[str] = ()) -> Person:
    """A person with a certificate that the cluster signed (CertificateSigningRequest)."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    name = "".join(letter if letter.isalnum() else "-" for letter in user)
    pem = request.public_bytes(serialization.Encoding.PEM)
    spec = {
        "request": base64.b64encode(pem).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"],
        "expirationSeconds": 86_400,
    }
    order = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name}}
    kubectl(info, "delete", "csr", name, "--ignore-not-found")
    kubectl(info, "create", "-f", "-", stdin=yaml.safe_dump({**order, "spec": spec}))
    kubectl(info, "certificate", "approve", name)

    def signed() -> str | None:
        order = api_of(info).get("csr", name) or {}
        return (order.get("status") or {}).get("certificate")

    certificate = until(signed, f"the certificate of {user}", 30)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    credentials = {
        "client-certificate-data": certificate,
        "client-key-data": base64.b64encode(private).decode(),
    }
    return Person(user, info, _kubeconfig(info, folder / f"{name}.kubeconfig", credentials))


def by_token(info: ClusterInfo, folder: Path, namespace: str, name: str) -> Person:
    """A ServiceAccount; it is made where it is not there yet."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
    kubectl(info, "apply", "-f", "-", stdin=yaml.safe_dump(account))
    token = kubectl(info, "create", "token", name, "--namespace", namespace, "--duration=24h").strip()
    file = folder / f"{namespace}-{name}.kubeconfig"
    return Person(f"system:serviceaccount:{namespace}:{name}", info, _kubeconfig(info, file, {"token": token}))


def _kubeconfig(info: ClusterInfo, file: Path, credentials: Mapping[str, str]) -> Path:
    """The cluster's kubeconfig with somebody else's credentials, under the same context."""
    config = yaml.safe_load(info.kubeconfig.read_text())
    context = next(c["context"] for c in config["contexts"] if c["name"] == info.context)
    server = next(c for c in config["clusters"] if c["name"] == context["cluster"])
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": info.context,
        "clusters": [server],
        "users": [{"name": "somebody", "user": dict(credentials)}],
        "contexts": [{"name": info.context, "context": {"cluster": server["name"], "user": "somebody"}}],
    }
    file.write_text(yaml.safe_dump(document))
    file.chmod(0o600)
    return file

"""The certificates of one cluster: its own authorities, and one client or server certificate per program.

Names and groups are those that Kubernetes' built-in roles expect
(https://kubernetes.io/docs/setup/best-practices/certificates/).
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=3652)  # a throw-away cluster's certificates are never renewed


@dataclass(frozen=True)
class Certificate:
    """What one certificate says."""

    file: str
    authority: str
    common_name: str
    organization: str = ""
    server_names: tuple[str, ...] = ()  # host names and addresses; empty for a pure client


def wanted(node: str, addresses: Sequence[str]) -> list[Certificate]:
    """All certificates of a cluster.

    Args:
        node: the node's name.
        addresses: where the API server is reached.
    """
    service = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    local = ("localhost", "127.0.0.1")
    return [
        Certificate("apiserver", "ca", "kube-apiserver", "", (*service, "10.96.0.1", *local, *addresses)),
        Certificate("apiserver-kubelet-client", "ca", "kube-apiserver-kubelet-client", "system:masters"),
        Certificate("kubelet-server", "ca", node, "", (node, *addresses)),
        Certificate("admin", "ca", "sandbox-admin", "system:masters"),
        Certificate("controller-manager", "ca", "system:kube-controller-manager"),
        Certificate("scheduler", "ca", "system:kube-scheduler"),
        Certificate("kubelet", "ca", f"system:node:{node}", "system:nodes"),
        Certificate("kube-proxy", "ca", "system:kube-proxy"),
        Certificate("coredns", "ca", "system:coredns"),
        Certificate("etcd", "etcd-ca", "etcd", "", local),
        Certificate("apiserver-etcd-client", "etcd-ca", "kube-apiserver-etcd-client"),
        Certificate("front-proxy-client", "front-proxy-ca", "front-proxy-client"),
    ]


def ensure(directory: Path, certificates: Sequence[Certificate]) -> None:
    """Write authorities, certificates and the service-account key, all or none of them.

    An existing directory is complete (it appears by a rename) and stays as it is: running programs hold its keys.
    """
    if directory.exists():
        return
    work = Path(tempfile.mkdtemp(prefix=".certificates-", dir=directory.parent))
    try:
        authorities = {name: _authority(name) for name in {c.authority for c in certificates}}
        for name, authority in authorities.items():
            _write(work, name, *authority)
        for certificate in certificates:
            _write(work, certificate.file, *_issue(certificate, *authorities[certificate.authority]))
        _write_service_account_key(work)
        work.rename(directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _authority(name: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"sandbox-{name}", "")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(subject, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return key, builder.sign(key, hashes.SHA256())


def _issue(
    wanted: Certificate, authority_key: ec.EllipticCurvePrivateKey, authority: x509.Certificate
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if wanted.server_names:
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        _builder(_name(wanted.common_name, wanted.organization), authority.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
    )
    if wanted.server_names:
        names = x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys(wanted.server_names)])
        builder = builder.add_extension(names, critical=False)
    return key, builder.sign(authority_key, hashes.SHA256())


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + _LIFETIME)
    )


def _name(common_name: str, organization: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(directory: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    _write_private(directory / f"{name}.key", _pem(key))
    (directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_service_account_key(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write_private(directory / "service-account.key", _pem(key))
    (directory / "service-account.pub").write_bytes(public)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # SEC 1 ("EC PRIVATE KEY"): the form that the API server accepts for service-account keys as well.
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)

"""New values for what a capture keeps secret, the same wherever a value occurs. Pure but for making certificates.

A capture has a fingerprint (the first 16 digits of an HMAC) of each value: ``hmac-…`` in a Secret, ``redacted-…`` in
any other text. What is made of a fingerprint depends on it and on the sandbox's seed alone, so that Secrets,
ConfigMaps, variables and the passwords of database roles agree, and a second run makes the same again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from sandbox.capture.secrecy import PLACEHOLDER
from sandbox.model.objects import Manifest, containers, pod_spec

_FINGERPRINT = re.compile(r"hmac-([0-9a-f]{16})")
# Letters and digits only: the same in a URL, in JSON and in YAML.
_LENGTH = 32
_DOCKER = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")
_TLS = "kubernetes.io/tls"
_BASE64 = re.compile(r"[A-Za-z0-9+/]")
_USER = re.compile(r"^(?P<prefix>.*?)(?:USER|USERNAME|LOGIN)(?P<suffix>_FILE)?$", re.IGNORECASE)
_PASSWORDS = ("PASSWORD", "PASS", "PASSWD", "PWD")
_DATABASE = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]+@[^\s\"'<>]+")


class Values:
    """What stands for each fingerprint.

    Attributes:
        used: value → fingerprint, of all that were asked for.
    """

    def __init__(self, seed: bytes, known: Mapping[str, str] | None = None) -> None:
        """
        Args:
            seed: of the sandbox.
            known: values that need not be made up, by fingerprint: true ones, and those put together of others.
        """
        self._seed = seed
        self._known = dict(known or {})
        self.used: dict[str, str] = {}

    @property
    def known(self) -> Mapping[str, str]:
        """What need not be made up, by fingerprint."""
        return self._known

    def is_true(self, fingerprint: str) -> bool:
        return fingerprint in self._known

    def of(self, fingerprint: str) -> str:
        """The value for a fingerprint, as text."""
        value = self._known.get(fingerprint)
        if value is None:
            digest = hmac.digest(self._seed, fingerprint.encode(), hashlib.sha256)
            value = base64.b32encode(digest).decode().lower()[:_LENGTH]
        self.used[value] = fingerprint
        return value

    def know(self, fingerprint: str, value: str) -> None:
        """Let a fingerprint stand for a value."""
        self._known.setdefault(fingerprint, value)

    def in_text(self, text: str) -> str:
        """A text with values for its placeholders."""
        return PLACEHOLDER.sub(lambda found: self.of(found[0].removeprefix("redacted-")), text)

    def in_data(self, value: Any) -> Any:
        """Data with values for the placeholders in all its texts and keys."""
        if isinstance(value, str):
            return self.in_text(value) if "redacted-" in value else value
        if isinstance(value, Mapping):
            return {self.in_data(key): self.in_data(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.in_data(item) for item in value]
        return value


def values_of(
    seed: bytes, secrets: Iterable[Manifest], true: Iterable[Manifest] = (), other: Mapping[str, str] | None = None
) -> Values:
    """The values of a capture.

    Args:
        secrets: as the capture has them: fingerprints, and shapes of what is no secret.
        true: the same Secrets with their true values, where whoever asks may read them.
        other: more that is known, by fingerprint.
    """
    values = Values(seed, other)
    captured = list(secrets)
    opened = {m["metadata"]["name"]: m for m in true if isinstance(m.get("metadata"), dict)}
    for secret in captured:
        shown = opened.get(secret["metadata"]["name"])
        for key, fingerprint in _fingerprints(secret):
            value = _plain((shown.get("data") or {}).get(key)) if shown else None
            if value is not None:
                values.know(fingerprint, value)
                _learn_password(values, (secret.get("shapes") or {}).get(key), value)
    # Made of others: after all true ones are known.
    for secret in captured:
        shapes = secret.get("shapes") or {}
        for key, fingerprint in _fingerprints(secret):
            if isinstance(shapes.get(key), str):
                values.know(fingerprint, values.in_text(shapes[key]))
    return values


def _learn_password(values: Values, shape: Any, value: str) -> None:
    """A URL's password is a value of its own, which stands alone elsewhere."""
    found = PLACEHOLDER.search(shape) if isinstance(shape, str) else None
    if found:
        try:
            password = urlsplit(value).password
        except ValueError:
            return
        if password:
            values.know(found[0].removeprefix("redacted-"), unquote(password))


def _fingerprints(secret: Manifest) -> list[tuple[str, str]]:
    found = []
    for field in ("data", "stringData"):
        entries = secret.get(field)
        for key, text in entries.items() if isinstance(entries, Mapping) else ():
            match = _FINGERPRINT.fullmatch(str(text))
            if match:
                found.append((str(key), match[1]))
    return found


def regenerated(
    secret: Manifest, values: Values, true: Manifest | None = None, edit: Callable[[str], str] = lambda text: text
) -> tuple[Manifest, str]:
    """A captured Secret with values, and what became of them in words; empty: they are the captured ones.

    Args:
        edit: what else is to be done to a value that is text (names of namespaces).
    """
    made = {key: value for key, value in secret.items() if key not in ("data", "stringData", "shapes")}
    if true is not None and isinstance(true.get("data"), Mapping):
        made["data"] = {key: _edited(value, edit) for key, value in true["data"].items()}
        return made, ""
    found = _fingerprints(secret)
    kind = secret.get("type")
    if kind in _DOCKER:
        empty = "{}" if kind.endswith("dockercfg") else json.dumps({"auths": {}})
        made["data"] = {key: _encoded(empty) for key, _ in found}
        return made, "the logins of registries are not in the capture: it holds none"
    if kind == _TLS:
        certificate, private = _certificate(secret["metadata"]["name"])
        texts = {"tls.crt": certificate, "tls.key": private, "ca.crt": certificate}
        made["data"] = {key: _encoded(texts.get(key) or values.of(fingerprint)) for key, fingerprint in found}
        return made, "a certificate that signs itself: the captured one is not in the capture"
    made["data"] = {key: _encoded(edit(values.of(fingerprint))) for key, fingerprint in found}
    shapes = secret.get("shapes") or {}
    opaque = [key for key, _ in found if key not in shapes or PLACEHOLDER.search(str(shapes[key]))]
    return made, f"new values for {', '.join(sorted(opaque))}" if opaque else ""


def _edited(encoded: Any, edit: Callable[[str], str]) -> Any:
    text = _plain(encoded)
    return encoded if text is None else _encoded(edit(text))


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _plain(encoded: Any) -> str | None:
    try:
        return base64.b64decode(str(encoded), validate=True).decode() if encoded is not None else None
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


def _certificate(name: str) -> tuple[str, str]:
    """A certificate that signs itself, and its key, as PEM."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=90))
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def within_base64(text: str) -> list[str]:
    """The placeholders of a text that stand in the middle of base64: what a value would be there, nobody can tell."""
    found = []
    for match in PLACEHOLDER.finditer(text):
        before = text[: match.start()]
        run = re.search(r"[A-Za-z0-9+/]*$", before)
        if run and len(run[0]) >= 4:
            found.append(match[0])
    return found


# -- passwords of database roles --------------------------------------------------------------------------------------


def role_passwords(roles: Iterable[str], manifests: Sequence[Manifest]) -> dict[str, str]:
    """Which password each role of a database has, as those know it who use it.

    What says so: URLs, variables of one container that belong together (``DB_USER`` and ``DB_PASSWORD``), and keys of
    one Secret (``username`` and ``password``).

    Args:
        manifests: as they are going to be applied, Secrets with their values.
    """
    wanted = {_unquoted(role) for role in roles}
    found: dict[str, str] = {}
    data = {(m["kind"], m["metadata"]["name"]): _data(m) for m in manifests if m["kind"] in ("Secret", "ConfigMap")}

    def learn(user: str | None, password: str | None) -> None:
        if user in wanted and password:
            found.setdefault(user, password)

    for manifest in manifests:
        for container in containers(pod_spec(manifest) or {}):
            variables = _variables(container, data)
            for user, password in [*_pairs(variables), *_in_urls(variables.values())]:
                learn(user, password)
    for texts in data.values():
        for user, password in [*_pairs(texts), *_in_urls(texts.values())]:
            learn(user, password)
    return found


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') and name.endswith('"') else name


def _data(manifest: Manifest) -> dict[str, str]:
    entries = manifest.get("data") or {}
    if manifest["kind"] == "ConfigMap":
        return {str(key): str(value) for key, value in entries.items()}
    return {str(key): text for key, value in entries.items() if (text := _plain(value)) is not None}


def _variables(container: Manifest, data: Mapping[tuple[str, str], Mapping[str, str]]) -> dict[str, str]:
    """The variables of a container, as far as the manifests tell."""
    found: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            entries = data.get((kind, (source.get(field) or {}).get("name", "")), {}) if source.get(field) else {}
            found |= {f"{source.get('prefix', '')}{key}": value for key, value in entries.items()}
    for variable in container.get("env") or ():
        name, value = str(variable.get("name")), variable.get("value")
        for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            reference = (variable.get("valueFrom") or {}).get(field)
            if reference:
                value = data.get((kind, reference.get("name", "")), {}).get(reference.get("key", ""))
        if isinstance(value, str):
            found[name] = re.sub(r"\$\(([A-Za-z0-9_.-]+)\)", lambda m: found.get(m[1], m[0]), value)
    return found


def _pairs(variables: Mapping[str, str]) -> list[tuple[str, str]]:
    by_name = {name.upper().replace("-", "_").replace(".", "_"): value for name, value in variables.items()}
    found = []
    for name, value in by_name.items():
        match = _USER.match(name)
        if match and not match["suffix"]:
            password = next((by_name[p] for w in _PASSWORDS if (p := f"{match['prefix']}{w}") in by_name), None)
            if password is not None:
                found.append((value, password))
    return found


def _in_urls(texts: Iterable[str]) -> list[tuple[str, str]]:
    found = []
    for text in texts:
        for candidate in _DATABASE.findall(text):
            try:
                parts = urlsplit(candidate)
                if parts.username and parts.password:
                    found.append((unquote(parts.username), unquote(parts.password)))
            except ValueError:
                continue
    return found

"""What workloads refer to, and what of it nothing provides. Pure.

A pod whose Secret, ConfigMap or key is missing stays in ContainerCreating or CreateContainerConfigError;
here it is known before anything is applied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.model.objects import Manifest, ObjectRef, containers, pod_spec, split_api_version

# None: it will have keys that are not known here.
Keys = frozenset[str] | None
Identity = tuple[str, str]

SECRET, CONFIG_MAP, ACCOUNT, CLAIM = "Secret", "ConfigMap", "ServiceAccount", "PersistentVolumeClaim"

# The control plane makes these in every namespace.
ALWAYS_THERE: Mapping[Identity, Keys] = {
    (ACCOUNT, "default"): None,
    (CONFIG_MAP, "kube-root-ca.crt"): frozenset({"ca.crt"}),
}

# Ingresses with one of these get their certificate's Secret from cert-manager.
_CERTIFICATE_ANNOTATIONS = ("cert-manager.io/issuer", "cert-manager.io/cluster-issuer", "kubernetes.io/tls-acme")
_VOLUMES_WITH_SECRET_REF = ("cephfs", "rbd", "flexVolume", "iscsi", "scaleIO", "storageos", "cinder")


@dataclass(frozen=True, order=True)
class Reference:
    """One reference from an object to another by name.

    Attributes:
        owner: the object that refers.
        field: where, such as ``container web, env DATABASE_URL``.
        kind: Secret, ConfigMap, ServiceAccount or PersistentVolumeClaim.
        key: inside the Secret or ConfigMap; empty: all of it.
        optional: the pod starts without it.
    """

    owner: ObjectRef
    field: str
    kind: str
    name: str
    key: str = ""
    optional: bool = False


@dataclass(frozen=True, order=True)
class MissingReference:
    """A reference that nothing provides.

    Attributes:
        certain: False where something in the manifests may make it at run time: a custom resource's
            operator, or a workload with the right to create such objects. Then it is worth a warning, no refusal.
        blocking: False where pods start without it: pull secrets, an Ingress' certificate.
    """

    service: str
    owner: ObjectRef
    field: str
    kind: str
    name: str
    key: str
    certain: bool
    blocking: bool

    def __str__(self) -> str:
        what = f"{self.kind} {self.name}" + (f" has no key {self.key!r}" if self.key else " does not exist")
        return f"service {self.service}: {self.owner}, {self.field}: {what}"


def missing_references(
    services: Mapping[str, Sequence[Manifest]],
    existing: Collection[tuple[str, str, str]] = (),
) -> list[MissingReference]:
    """References that neither the services nor the namespace provide; optional ones left out.

    Args:
        services: name → manifests, Helm hooks included.
        existing: (kind, name, key) of what is, or will be, in the namespace besides: one with an empty key for the
            object itself, and one for each key of a Secret or ConfigMap.
    """
    provided: dict[Identity, Keys] = dict(ALWAYS_THERE)
    for kind, name, key in existing:
        known = provided.get((kind, name)) or frozenset()
        provided[(kind, name)] = known | {key} if kind in (SECRET, CONFIG_MAP) else None
    everything = [manifest for manifests in services.values() for manifest in manifests]
    for identity, keys in provides(everything):
        provided[identity] = keys
    makeable = _made_at_run_time(everything)
    missing = []
    for service, manifests in services.items():
        for reference in find_references(manifests):
            identity = (reference.kind, reference.name)
            if reference.optional or _is_there(reference, provided):
                continue
            missing.append(
                MissingReference(
                    service=service,
                    owner=reference.owner,
                    field=reference.field,
                    kind=reference.kind,
                    name=reference.name,
                    # Where the object is not there at all, the key is no news.
                    key=reference.key if identity in provided else "",
                    certain=reference.kind not in makeable,
                    blocking=reference.field not in ("imagePullSecrets", "tls"),
                )
            )
    return list(dict.fromkeys(missing))


def find_references(manifests: Iterable[Manifest]) -> list[Reference]:
    """Every Secret, ConfigMap, ServiceAccount and claim that the manifests refer to in their own namespace."""
    found: list[Reference] = []
    for manifest in manifests:
        if "name" not in (manifest.get("metadata") or {}):
            continue
        owner = ObjectRef.of(manifest)
        spec = pod_spec(manifest)
        if spec is not None:
            found += _of_pod(owner, spec)
        elif (owner.group, owner.kind) == ("networking.k8s.io", "Ingress"):
            found += _of_ingress(owner, manifest)
        elif (owner.group, owner.kind) == ("gateway.networking.k8s.io", "Gateway"):
            found += _of_gateway(owner, manifest)
        elif (owner.group, owner.kind) == ("", ACCOUNT):
            found += [
                Reference(owner, "imagePullSecrets", SECRET, name) for name in _names(manifest.get("imagePullSecrets"))
            ]
    return list(dict.fromkeys(found))


def provides(manifests: Iterable[Manifest]) -> Iterator[tuple[Identity, Keys]]:
    """(kind, name) and keys of what the manifests bring, or make some controller bring."""
    for manifest in manifests:
        metadata, spec = manifest.get("metadata") or {}, manifest.get("spec") or {}
        name = metadata.get("name", "")
        group, _ = split_api_version(manifest.get("apiVersion", ""))
        match (group, manifest.get("kind")):
            case ("", "Secret"):
                yield (SECRET, name), _keys_of(manifest, "data", "stringData", open_types=("service-account-token",))
            case ("", "ConfigMap"):
                yield (CONFIG_MAP, name), _keys_of(manifest, "data", "binaryData")
            case ("", "ServiceAccount" | "PersistentVolumeClaim" as kind):
                yield (kind, name), None
            case ("apps", "StatefulSet"):
                for template in spec.get("volumeClaimTemplates") or ():
                    claim = (template.get("metadata") or {}).get("name", "")
                    for ordinal in range(min(int(spec.get("replicas") or 1), 100)):
                        yield (CLAIM, f"{claim}-{name}-{ordinal}"), None
            case ("cert-manager.io", "Certificate"):
                yield (SECRET, spec.get("secretName", name)), None
            case ("bitnami.com", "SealedSecret"):
                yield (SECRET, name), frozenset(spec.get("encryptedData") or {})
            case ("external-secrets.io", "ExternalSecret"):
                yield (SECRET, (spec.get("target") or {}).get("name") or name), None
            case ("secrets.hashicorp.com", _):
                yield (SECRET, (spec.get("destination") or {}).get("name") or name), None
            case ("secrets-store.csi.x-k8s.io", "SecretProviderClass"):
                for secret in spec.get("secretObjects") or ():
                    yield (SECRET, secret.get("secretName", "")), None


def _of_pod(owner: ObjectRef, spec: Manifest) -> Iterator[Reference]:
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        yield Reference(owner, "serviceAccountName", ACCOUNT, account)
    for name in _names(spec.get("imagePullSecrets")):
        yield Reference(owner, "imagePullSecrets", SECRET, name)
    for volume in spec.get("volumes") or ():
        yield from _of_volume(owner, f"volume {volume.get('name', '')}", volume)
    for container in containers(spec):
        where = f"container {container.get('name', '')}"
        for variable in container.get("env") or ():
            yield from _of_variable(owner, f"{where}, env {variable.get('name', '')}", variable)
        for source in container.get("envFrom") or ():
            for key, kind in (("secretRef", SECRET), ("configMapRef", CONFIG_MAP)):
                yield from _whole(owner, f"{where}, envFrom", kind, source.get(key))


def _of_variable(owner: ObjectRef, field: str, variable: Manifest) -> Iterator[Reference]:
    source = variable.get("valueFrom") or {}
    for name, kind in (("secretKeyRef", SECRET), ("configMapKeyRef", CONFIG_MAP)):
        ref = source.get(name)
        if isinstance(ref, dict) and ref.get("name"):
            yield Reference(owner, field, kind, ref["name"], str(ref.get("key", "")), bool(ref.get("optional")))


def _of_volume(owner: ObjectRef, field: str, volume: Manifest) -> Iterator[Reference]:
    yield from _items(owner, field, SECRET, volume.get("secret"), name="secretName")
    yield from _items(owner, field, CONFIG_MAP, volume.get("configMap"))
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield from _items(owner, field, SECRET, source.get("secret"))
        yield from _items(owner, field, CONFIG_MAP, source.get("configMap"))
    if claim := (volume.get("persistentVolumeClaim") or {}).get("claimName"):
        yield Reference(owner, field, CLAIM, claim)
    yield from _whole(owner, field, SECRET, (volume.get("csi") or {}).get("nodePublishSecretRef"))
    if share := (volume.get("azureFile") or {}).get("secretName"):
        yield Reference(owner, field, SECRET, share)
    for kind in _VOLUMES_WITH_SECRET_REF:
        yield from _whole(owner, field, SECRET, (volume.get(kind) or {}).get("secretRef"))


def _items(owner: ObjectRef, field: str, kind: str, source: Any, name: str = "name") -> Iterator[Reference]:
    """A volume made of a Secret or ConfigMap: all of it, or the keys that it lists."""
    if not isinstance(source, dict) or not source.get(name):
        return
    optional = bool(source.get("optional"))
    keys = [str(item.get("key", "")) for item in source.get("items") or ()]
    for key in keys or [""]:
        yield Reference(owner, field, kind, source[name], key, optional)


def _whole(owner: ObjectRef, field: str, kind: str, ref: Any) -> Iterator[Reference]:
    if isinstance(ref, dict) and ref.get("name"):
        yield Reference(owner, field, kind, ref["name"], optional=bool(ref.get("optional")))


def _of_ingress(owner: ObjectRef, manifest: Manifest) -> Iterator[Reference]:
    annotations = manifest["metadata"].get("annotations") or {}
    if any(name in annotations for name in _CERTIFICATE_ANNOTATIONS):
        return
    for entry in (manifest.get("spec") or {}).get("tls") or ():
        if entry.get("secretName"):
            yield Reference(owner, "tls", SECRET, entry["secretName"])


def _of_gateway(owner: ObjectRef, manifest: Manifest) -> Iterator[Reference]:
    if any(name in (manifest["metadata"].get("annotations") or {}) for name in _CERTIFICATE_ANNOTATIONS):
        return
    for listener in (manifest.get("spec") or {}).get("listeners") or ():
        for ref in (listener.get("tls") or {}).get("certificateRefs") or ():
            if ref.get("kind", SECRET) == SECRET and not ref.get("namespace") and ref.get("name"):
                yield Reference(owner, "tls", SECRET, ref["name"])


def _names(entries: Any) -> list[str]:
    return [entry["name"] for entry in entries or () if isinstance(entry, dict) and entry.get("name")]


def _keys_of(manifest: Manifest, *fields: str, open_types: tuple[str, ...] = ()) -> Keys:
    if any(word in str(manifest.get("type", "")) for word in open_types):
        return None
    return frozenset(str(key) for field in fields for key in manifest.get(field) or {})


def _is_there(reference: Reference, provided: Mapping[Identity, Keys]) -> bool:
    identity = (reference.kind, reference.name)
    if identity not in provided:
        return False
    keys = provided[identity]
    return not reference.key or keys is None or reference.key in keys


def _made_at_run_time(manifests: Sequence[Manifest]) -> set[str]:
    """Kinds that something in the manifests may create later."""
    made: set[str] = set()
    for manifest in manifests:
        group, _ = split_api_version(manifest.get("apiVersion", ""))
        if "." in group and not group.endswith(".k8s.io"):
            made |= {SECRET, CONFIG_MAP, ACCOUNT, CLAIM}
        if manifest.get("kind") in ("Role", "ClusterRole"):
            for rule in manifest.get("rules") or ():
                if {"create", "*"} & set(rule.get("verbs") or ()):
                    resources = set(rule.get("resources") or ())
                    made |= {SECRET} if {"secrets", "*"} & resources else set()
                    made |= {CONFIG_MAP} if {"configmaps", "*"} & resources else set()
                    made |= {CLAIM} if {"persistentvolumeclaims", "*"} & resources else set()
    return made

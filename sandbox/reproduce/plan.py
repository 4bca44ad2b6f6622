"""From a capture to what is going to be in the sandbox. Pure: nothing is asked of anybody."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sandbox.capture.collect.data import BEFORE, FIXTURES
from sandbox.capture.fixtures.model import Fixture
from sandbox.capture.services import named_workloads
from sandbox.cluster.readiness import time_of
from sandbox.model.errors import InvalidInput
from sandbox.model.objects import Manifest, ObjectRef, canonical_json, containers, digest, pod_spec, pod_template
from sandbox.model.record import Record, ServiceLock
from sandbox.provision.attribution import attribute, key_of
from sandbox.provision.base import ports_of
from sandbox.provision.plan import ServicePlan
from sandbox.render.references import find_references
from sandbox.render.transform import label
from sandbox.reproduce.captured import Captured
from sandbox.reproduce.images import Pin, Ran, pinned, pins, ran
from sandbox.reproduce.namespaces import Mention, Renaming
from sandbox.reproduce.portable import HAD_COMPLETED, Change, Surroundings, replaced, stripped, why_left_out
from sandbox.reproduce.replacement import Replacement
from sandbox.reproduce.secrets import Values, regenerated, within_base64

# Objects that several services use, or none.
SHARED = "shared"
# What a service holds, rather than what it is: it stays as captured when the service is at another commit.
_HELD = frozenset({"Secret", "PersistentVolumeClaim"})
_CLOCKS = timedelta(seconds=1)
_HELM_RELEASE = "meta.helm.sh/release-name"
_WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Pod"})
# Whoever else wrote into an object knows more of it than what was deployed.
_DEPLOYERS = frozenset({"sandbox", "helm", "Helm", "kube-controller-manager", "kubelet", "before-first-apply"})


@dataclass(frozen=True)
class Choices:
    """What the user decided.

    Attributes:
        only: services; empty: all.
        identity: whether what is encrypted can be read.
        before: what stores held before the deployment that failed, instead of at the failure.
        as_deployed: objects that nobody changed since as they were deployed, without the server's defaults.
    """

    only: tuple[str, ...] = ()
    data: bool = True
    identity: bool = False
    allow_tags: bool = False
    before: bool = False
    as_deployed: bool = True


@dataclass(frozen=True)
class DataStore:
    """A database or cache that is filled before anything else starts.

    Attributes:
        root: where the bundle has the fixture's files.
        note: how its contents differ from those at the failure; empty: they do not.
    """

    fixture: Fixture
    service: str
    workload: Manifest
    root: str = FIXTURES
    note: str = ""


@dataclass(frozen=True)
class Blueprint:
    """What is going to be in the sandbox, and how it differs from what was captured.

    Attributes:
        services: by name; ``shared`` has what no single one of them owns.
        expected: each object that is brought back as it was captured, without what its server gave it.
        changes: the differences that are meant.
        left_out: objects that are not brought back, as kubectl writes them, and why.
        stores: what is filled from fixtures; ``unfilled``: fixture → why it is not.
        replaced: services at another commit; ``other``: their objects, as kubectl writes them → the commit, in words.
    """

    services: Mapping[str, ServicePlan]
    expected: Mapping[str, Manifest]
    changes: tuple[Change, ...]
    left_out: Mapping[str, str]
    stores: tuple[DataStore, ...]
    unfilled: Mapping[str, str]
    pins: tuple[Pin, ...]
    renamed: tuple[Mention, ...]
    unresolved: tuple[str, ...]
    replaced: Mapping[str, Replacement] = field(default_factory=dict)
    other: Mapping[str, str] = field(default_factory=dict)

    @property
    def manifests(self) -> list[Manifest]:
        return [manifest for service in self.services.values() for manifest in service.manifests]


@dataclass
class _Draft:
    """A blueprint under way."""

    expected: dict[str, Manifest] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    pins: list[Pin] = field(default_factory=list)
    renamed: list[Mention] = field(default_factory=list)
    unresolved: list[str] = field(default_factory=list)
    made: dict[str, list[Manifest]] = field(default_factory=lambda: defaultdict(list))
    other: dict[str, str] = field(default_factory=dict)


def blueprint(
    captured: Captured,
    values: Values,
    place: Surroundings,
    choices: Choices,
    images: Mapping[Pin, Pin] | None = None,
    replacements: Mapping[str, Replacement] | None = None,
) -> Blueprint:
    """Plan a sandbox that is what was captured.

    Args:
        values: for the fingerprints.
        images: what registries said of the images of an earlier draft.
        replacements: services that are at another commit than the captured one.

    Raises:
        InvalidInput: there is no such service, or nothing to bring back.
    """
    draft = _Draft()
    wanted = _wanted(captured, draft, choices)
    service_of = _services(captured, wanted)
    chosen = _chosen(choices.only, set(service_of.values()) - {SHARED}, captured.record)
    renaming = Renaming(captured.document.namespace, place.namespace, _service_names(captured))
    known = ran(captured.pods)
    secrets = {m["metadata"]["name"]: m for m in captured.true_secrets if choices.identity}
    recorded = _recorded(captured.record) if choices.as_deployed else {}
    others = _Others(captured.record, replacements or {})
    for manifest in wanted:
        service, name = service_of[_key(manifest)], str(ObjectRef.of(manifest))
        if chosen and service not in (*chosen, SHARED):
            draft.left_out[name] = f"of the service {service}, which --only leaves out"
            continue
        if others.have(manifest):
            continue
        if why := others.lack(manifest, service):
            draft.left_out[name] = why
            continue
        plain = stripped(manifest)
        draft.expected[name] = plain
        if manifest["kind"] == "Secret":
            made = _secret(plain, values, secrets, place, renaming, draft)
        else:
            made = _object(_as_deployed(manifest, plain, recorded), values, place, renaming, draft)
        if made is not None and (made := _with_images(made, known, choices, images or {}, draft)) is not None:
            draft.made[service].append(made)
    others.add(place, draft, {_key(manifest) for manifest in wanted})
    if not draft.made:
        raise InvalidInput(
            "the capture holds nothing that could be brought back",
            why="; ".join(f"{name}: {why}" for name, why in captured.problems.items()),
            hint="`sandbox capture show ID --items` lists what it holds",
        )
    stores, unfilled = _stores(captured, values, draft, choices)
    draft.changes = _with_filled_claims(draft, stores)
    return Blueprint(
        services={
            name: _plan(name, manifests, captured, draft, (replacements or {}).get(name))
            for name, manifests in sorted(draft.made.items())
        },
        expected=draft.expected,
        changes=tuple(draft.changes),
        left_out=draft.left_out,
        stores=tuple(stores),
        unfilled=unfilled,
        pins=tuple(draft.pins),
        renamed=tuple(draft.renamed),
        unresolved=tuple(dict.fromkeys(draft.unresolved)),
        replaced=dict(replacements or {}),
        other=draft.other,
    )


# -- which objects, of which service ----------------------------------------------------------------------------------


def _wanted(captured: Captured, draft: _Draft, choices: Choices) -> list[Manifest]:
    since = min((at for fixture in captured.before if (at := time_of(fixture.started_at))), default=None)
    everything = [*captured.objects, *captured.secrets, *captured.pods]
    uids = {str(m["metadata"].get("uid")) for m in everything if m["metadata"].get("uid")}
    found = []
    for manifest in everything:
        why = why_left_out(manifest, uids)
        if why == HAD_COMPLETED and choices.before and since and _is_younger(manifest, since):
            # What it did is not in the data yet.
            why = ""
        if why == "":
            found.append(manifest)
        elif why is not None:
            draft.left_out[str(ObjectRef.of(manifest))] = why
    return found


def _is_younger(manifest: Manifest, than: datetime) -> bool:
    """Whether an object was made after a time; the clocks of two machines, so about a second is nothing."""
    made = time_of(manifest["metadata"].get("creationTimestamp"))
    return made is not None and made >= than - _CLOCKS


def _key(manifest: Manifest) -> tuple[str, str, str]:
    return key_of(manifest)


def _service_names(captured: Captured) -> set[str]:
    return {m["metadata"]["name"] for m in captured.objects if (m["apiVersion"], m["kind"]) == ("v1", "Service")}


def _services(captured: Captured, wanted: Sequence[Manifest]) -> dict[tuple[str, str, str], str]:
    """The service of each object: as the capture attributed workloads; others belong to the only one that uses them."""
    everything = [m for m in (*captured.objects, *captured.secrets, *captured.pods) if "uid" in m["metadata"]]
    attributed = attribute(named_workloads(everything, captured.record), captured.record)
    found: dict[tuple[str, str, str], str] = {}
    for manifest in wanted:
        uid = manifest["metadata"].get("uid", "")
        service = attributed.get(uid) or (manifest["metadata"]["name"] if pod_spec(manifest) is not None else "")
        if service:
            found[_key(manifest)] = service
    workloads = [(found[_key(m)], m) for m in wanted if _key(m) in found and pod_spec(m) is not None]
    users = _users(workloads)
    for manifest in wanted:
        if _key(manifest) not in found:
            names = users.get((manifest["kind"], manifest["metadata"]["name"]), set()) | _selected(manifest, workloads)
            found[_key(manifest)] = names.pop() if len(names) == 1 else SHARED
    return found


def _users(workloads: Iterable[tuple[str, Manifest]]) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for service, manifest in workloads:
        for reference in find_references([manifest]):
            found[(reference.kind, reference.name)].add(service)
    return found


def _selected(manifest: Manifest, workloads: Iterable[tuple[str, Manifest]]) -> set[str]:
    """The services whose pods a Service selects, or whose workload an autoscaler is for."""
    spec = manifest.get("spec") or {}
    if manifest["kind"] == "HorizontalPodAutoscaler":
        target = (spec.get("scaleTargetRef") or {}).get("name")
        return {service for service, workload in workloads if workload["metadata"]["name"] == target}
    selector = spec.get("selector") or {}
    if manifest["kind"] == "PodDisruptionBudget":
        selector = selector.get("matchLabels") or {}
    if manifest["kind"] not in ("Service", "PodDisruptionBudget") or not selector:
        return set()
    return {
        service
        for service, workload in workloads
        if selector.items() <= (((pod_template(workload) or {}).get("metadata") or {}).get("labels") or {}).items()
    }


def _chosen(only: Sequence[str], there: Collection[str], record: Record | None) -> set[str]:
    """The services that are asked for, with what the record says they need."""
    unknown = set(only) - set(there)
    if unknown:
        raise InvalidInput(
            f"the capture has no service {', '.join(sorted(unknown))}", hint=f"it has {', '.join(sorted(there))}"
        )
    found, left = set(only), list(only)
    while left:
        name = left.pop()
        entry = record.services.get(name) if record else None
        more = [need for need in (entry.needs if entry else ()) if need in there and need not in found]
        found |= set(more)
        left += more
    return found


# -- one object -------------------------------------------------------------------------------------------------------


def _recorded(record: Record | None) -> dict[tuple[str, str, str], Manifest]:
    services = record.services.values() if record else ()
    return {_key(m): m for service in services for m in service.manifests if "name" in (m.get("metadata") or {})}


def _as_deployed(live: Manifest, plain: Manifest, recorded: Mapping[tuple[str, str, str], Manifest]) -> Manifest:
    """An object as it was deployed, without the server's defaults, where it was still that; else as it was."""
    written = recorded.get(_key(live))
    if written is None:
        return plain
    managers = {
        str(m.get("manager"))
        for m in live["metadata"].get("managedFields") or ()
        if isinstance(m, dict) and not m.get("subresource")
    }
    clean = stripped(written)
    return clean if managers <= _DEPLOYERS and _is_within(clean, plain) else plain


def _is_within(part: object, whole: object) -> bool:
    """Whether all that one object says another one says too."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and _is_within(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        if not isinstance(whole, list) or len(part) != len(whole):
            return False
        return all(_is_within(a, b) for a, b in zip(part, whole, strict=True))
    return part == whole


def _object(plain: Manifest, values: Values, place: Surroundings, renaming: Renaming, draft: _Draft) -> Manifest | None:
    name = str(ObjectRef.of(plain))
    made, changes = replaced(plain, place)
    draft.changes += changes
    if made is None:
        return None
    text = canonical_json(made).decode()
    filled: Manifest = values.in_data(made) if "redacted-" in text else made
    if filled != made:
        draft.changes += [Change(name, path, "new values for what is secret") for path in _redacted_paths(made)]
        for placeholder in within_base64(text):
            draft.unresolved.append(f"{name}: {placeholder} stands within base64, where its new value does not fit")
    done = renaming.of(filled)
    draft.renamed += done.done
    draft.unresolved += [mention.line() for mention in done.unresolved]
    draft.changes += [Change(name, m.path, f"{m.before} → {m.after}") for m in done.done]
    return done.manifest


def _redacted_paths(value: object, path: str = "") -> list[str]:
    if isinstance(value, str):
        return [path] if "redacted-" in value else []
    if isinstance(value, dict):
        return [p for key, item in value.items() for p in _redacted_paths(item, f"{path}.{key}".removeprefix("."))]
    if isinstance(value, list):
        return [p for number, item in enumerate(value) for p in _redacted_paths(item, f"{path}[{number}]")]
    return []


def _secret(
    plain: Manifest,
    values: Values,
    true: Mapping[str, Manifest],
    place: Surroundings,
    renaming: Renaming,
    draft: _Draft,
) -> Manifest | None:
    name = str(ObjectRef.of(plain))
    made, why = regenerated(plain, values, true.get(plain["metadata"]["name"]), renaming.in_text)
    if why:
        draft.changes.append(Change(name, "data", why))
    elif renaming.before != renaming.after:
        # Whether a value named the namespace is not for a report to show.
        draft.changes.append(Change(name, "data", f"names of hosts are those in {place.namespace}"))
    placed, changes = replaced(made, place)
    draft.changes += changes
    return placed


def _with_images(
    made: Manifest,
    known: Mapping[tuple[str, str, str], Ran],
    choices: Choices,
    images: Mapping[Pin, Pin],
    draft: _Draft,
) -> Manifest | None:
    if pod_spec(made) is None:
        return made
    name = str(ObjectRef.of(made))
    found = [images.get(pin, pin) for pin in pins(made, known, allow_tags=choices.allow_tags)]
    draft.pins += found
    gone = [pin for pin in found if not pin.reference]
    if gone:
        draft.left_out[name] = "; ".join(f"image of {pin.container}: {pin.why}" for pin in gone)
        return None
    for number, pin in enumerate(found):
        if pin.reference != pin.named:
            why = pin.why or f"{pin.named} by its digest"
            draft.changes.append(Change(name, f"image of {pin.container}", why))
        elif pin.why:
            draft.changes.append(Change(name, f"image of {pin.container} ({number})", pin.why))
    return pinned(made, found)


# -- services at another commit ---------------------------------------------------------------------------------------


class _Others:
    """The objects of services at another commit, in the place of the captured ones."""

    def __init__(self, record: Record | None, replacements: Mapping[str, Replacement]) -> None:
        self._record = record
        self._replacements = replacements
        self._objects = {
            _key(manifest): (name, manifest)
            for name, replacement in replacements.items()
            for manifest in replacement.plan.manifests
        }

    def have(self, captured: Manifest) -> bool:
        """Whether the other commit's object takes the place of a captured one."""
        return captured["kind"] not in _HELD and _key(captured) in self._objects

    def lack(self, captured: Manifest, service: str) -> str:
        """Why a captured object goes without anything in its place; empty: it does not."""
        replacement = self._replacements.get(service)
        if replacement is None or captured["kind"] in _HELD:
            return ""
        if _key(captured) in {_key(hook) for hook in replacement.plan.hooks}:
            return f"{replacement.line}, whose own runs instead"
        if pod_spec(captured) is not None or self._is_deployed(captured, service):
            return f"{replacement.line}, which has no such object"
        return ""

    def _is_deployed(self, captured: Manifest, service: str) -> bool:
        """Whether it came with the service, rather than being something that the service finds in its environment."""
        entry = self._record.services.get(service) if self._record else None
        known = {(item.group, item.kind, item.name) for item in entry.inventory} if entry else set()
        return _key(captured) in known or _HELM_RELEASE in (captured["metadata"].get("annotations") or {})

    def add(self, place: Surroundings, draft: _Draft, captured: Collection[tuple[str, str, str]]) -> None:
        """Put them into a draft; what a service holds only where it was not captured."""
        for key, (service, manifest) in self._objects.items():
            name = str(ObjectRef.of(manifest))
            if manifest["kind"] in _HELD and key in captured:
                _add_keys(manifest, (m for several in draft.made.values() for m in several))
                continue
            why = why_left_out(manifest, ())
            if why:
                draft.left_out[name] = why
            if why != "":
                continue
            made, changes = replaced(stripped(manifest), place)
            draft.changes += [change for change in changes if change.path != "(contents)"]
            if made is not None:
                draft.other[name] = self._replacements[service].line
                draft.made[service].append(made)


def _add_keys(rendered: Manifest, made: Iterable[Manifest]) -> None:
    """The keys of a Secret that the captured one does not have: a fix may bring one."""
    for secret in made:
        if _key(secret) == _key(rendered) and secret["kind"] == "Secret":
            texts = {k: base64.b64encode(v.encode()).decode() for k, v in (rendered.get("stringData") or {}).items()}
            secret["data"] = {**(rendered.get("data") or {}), **texts, **(secret.get("data") or {})}


# -- data -------------------------------------------------------------------------------------------------------------


def _stores(
    captured: Captured, values: Values, draft: _Draft, choices: Choices
) -> tuple[list[DataStore], dict[str, str]]:
    """What is filled, and why the others are not."""
    filled: list[DataStore] = []
    unfilled: dict[str, str] = {}
    by_name = {
        m["metadata"]["name"]: (service, m)
        for service, manifests in draft.made.items()
        for m in manifests
        if m["kind"] in _WORKLOADS
    }
    for fixture, root, note in _chosen_fixtures(captured, choices):
        if choices.before and not captured.before:
            unfilled[fixture.name] = "nothing was taken before the deployment: --state at-failure has what came after"
        elif fixture.status != "ok":
            unfilled[fixture.name] = f"the capture does not hold it: {fixture.status}: {fixture.why}"
        elif not choices.data:
            unfilled[fixture.name] = "--no-data"
        elif f"{root}/{fixture.name}" in captured.encrypted_fixtures and not choices.identity:
            unfilled[fixture.name] = "it is encrypted: --identity FILE reads it"
        elif fixture.workload not in by_name:
            unfilled[fixture.name] = f"its workload {fixture.workload} is not in the sandbox"
        else:
            # Names of roles may be what some Secret holds.
            named = fixture.model_copy(update={"facts": values.in_data(fixture.facts)})
            filled.append(DataStore(named, *by_name[fixture.workload], root=root, note=note))
    return filled, unfilled


def _chosen_fixtures(captured: Captured, choices: Choices) -> Iterator[tuple[Fixture, str, str]]:
    """The contents of each store that are meant, where the bundle has them, and how they differ from the others."""
    before = {fixture.name: fixture for fixture in captured.before} if choices.before else {}
    for fixture in captured.fixtures:
        if fixture.name in before:
            earlier = before.pop(fixture.name)
            yield earlier, BEFORE, f"as it was before the deployment ({earlier.started_at})"
        else:
            yield fixture, FIXTURES, "as at the failure: nothing of it was taken before" if choices.before else ""
    for earlier in before.values():
        yield earlier, BEFORE, f"as it was before the deployment ({earlier.started_at})"


def _with_filled_claims(draft: _Draft, stores: Iterable[DataStore]) -> list[Change]:
    """Volumes of databases that are filled from fixtures are not simply empty."""
    filled = {
        str(volume["persistentVolumeClaim"].get("claimName")): store.fixture.name
        for store in stores
        for volume in (pod_spec(store.workload) or {}).get("volumes") or ()
        if isinstance(volume.get("persistentVolumeClaim"), dict)
    }
    found = []
    for change in draft.changes:
        kind, _, name = change.object.partition("/")
        if kind == "persistentvolumeclaim" and change.path == "(contents)":
            fixture = filled.get(name) or next((s.fixture.name for s in stores if _claims(s.workload, name)), None)
            if fixture:
                change = Change(change.object, change.path, f"a new volume, filled from fixture/{fixture}")
        found.append(change)
    return found


def _claims(workload: Manifest, claim: str) -> bool:
    """Whether a claim is of a StatefulSet's templates."""
    templates = (workload.get("spec") or {}).get("volumeClaimTemplates") or ()
    name = workload["metadata"]["name"]
    return any(claim.startswith(f"{t['metadata']['name']}-{name}-") for t in templates)


# -- services ---------------------------------------------------------------------------------------------------------


def _plan(
    name: str,
    manifests: Sequence[Manifest],
    captured: Captured,
    draft: _Draft,
    replacement: Replacement | None = None,
) -> ServicePlan:
    marked = label(manifests, name)
    if replacement is not None:
        # Not a release: its objects are applied like all others.
        update = {"kind": "manifests", "chart": None, "input_digest": digest(marked), "manifest_digest": digest(marked)}
        lock = replacement.plan.lock.model_copy(update=update)
        return replace(replacement.plan, lock=lock, manifests=marked, chart_path=None)
    known = next((service for service in captured.document.services if service.name == name), None)
    entry = captured.record.services.get(name) if captured.record else None
    mine = {m["metadata"]["name"] for m in manifests if any(containers(pod_spec(m) or {}))}
    images = {image.name: image for pin in draft.pins if pin.workload in mine and (image := pin.lock)}
    lock = ServiceLock(
        kind="manifests",
        repo=entry.lock.repo if entry else known.repo if known else "",
        ref=entry.lock.ref if entry else known.ref if known else "",
        commit=entry.lock.commit if entry else known.commit if known else "",
        images=tuple(images.values()),
        input_digest=digest(marked),
        manifest_digest=digest(marked),
    )
    ports = dict(entry.ports) if entry else ports_of(marked)
    needs = entry.needs if entry else ()
    return ServicePlan(name=name, lock=lock, manifests=marked, needs=needs, ports=ports)

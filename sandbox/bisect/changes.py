"""What differs from one state to another, in pieces that can be put together in any way. Pure.

The unit of change is a service: its chart or manifests, commit, images and configuration together. Within a service
three parts can be told apart in its objects, whoever rendered them: the images that containers name, their
configuration (ConfigMaps, Secrets, variables, and annotations of pods, which carry checksums of the former), and all
the rest. An object that several services use is a unit of its own.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sandbox.bisect.search import Changes
from sandbox.model import labels
from sandbox.model.objects import Manifest, ObjectRef, canonical_json, containers, digest, pod_spec, pod_template
from sandbox.provision.plan import ServicePlan
from sandbox.render.references import find_references
from sandbox.render.transform import label
from sandbox.reproduce.plan import SHARED, Blueprint

Part = Literal["images", "configuration", "manifests", ""]
"""Of a service; empty: all of it, as it is only on one side (or an object that several services use)."""

# Says which configuration the pods of a workload were started with: they are not started again by themselves.
RESTARTED = f"{labels.DOMAIN}/bisect"
_CONFIGURATION = frozenset({"ConfigMap", "Secret"})
_OF_CONFIGURATION = ("env", "envFrom")

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Change:
    """One piece of what differs.

    Attributes:
        name: unique, such as ``web/images``, ``web`` or ``configmap/settings``.
        service: empty for an object that several use.
        objects: what it is seen on, as kubectl writes them.
    """

    name: str
    service: str
    part: Part
    objects: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """One of the two states, as it would be in a sandbox.

    Attributes:
        plain: each object as it was captured, Secrets with fingerprints.
        key_id: of the key that made these; empty: they are of no use.
    """

    services: Mapping[str, ServicePlan]
    plain: Mapping[str, Manifest] = field(default_factory=dict)
    key_id: str = ""

    @classmethod
    def of(cls, planned: Blueprint, key_id: str) -> State:
        return cls(planned.services, planned.expected, key_id)

    def objects(self) -> dict[Key, tuple[str, Manifest]]:
        """All objects and their services."""
        return {_key(m): (name, m) for name, service in self.services.items() for m in service.manifests}


@dataclass(frozen=True)
class _Pair:
    """An object on both sides; None where it is not there."""

    service: str
    good: Manifest | None
    bad: Manifest | None
    parts: frozenset[Part]

    @property
    def some(self) -> Manifest:
        found = self.bad if self.bad is not None else self.good
        assert found is not None
        return found


class Comparison:
    """Two states, what differs, and every state between them.

    Attributes:
        changes: by name.
        units: of the coarse search: the changes of each service, and of each object that several services use.
    """

    def __init__(self, good: State, bad: State) -> None:
        self._good, self._bad = good, bad
        before, after = good.objects(), bad.objects()
        self._only_one = set(good.services) ^ set(bad.services)
        self._pairs: dict[Key, _Pair] = {}
        for key in sorted({*before, *after}):
            service = (after.get(key) or before[key])[0]
            # Who uses an object may have changed; that is no change of the object.
            sides = [_labelled(side[key][1], service) if key in side else None for side in (before, after)]
            self._pairs[key] = self._pair(service, *sides)
        self.changes = {change.name: change for change in self._changes()}
        self.units = self._units()

    def _pair(self, service: str, good: Manifest | None, bad: Manifest | None) -> _Pair:
        if good is not None and bad is not None and good["kind"] == "Secret" and self._same_secret(good):
            # What is made up anew each time (a certificate) is no difference.
            return _Pair(service, bad, bad, frozenset())
        whole = service == SHARED or service in self._only_one
        parts: set[Part] = {"" if whole else part for part in _differing(good, bad)}
        return _Pair(service, good, bad, frozenset(parts))

    def _same_secret(self, secret: Manifest) -> bool:
        name = str(ObjectRef.of(secret))
        good, bad = self._good.plain.get(name), self._bad.plain.get(name)
        if good is None or bad is None:
            return False
        if self._good.key_id and self._good.key_id == self._bad.key_id:
            return _secret_data(good) == _secret_data(bad)
        return set(_secret_data(good)) == set(_secret_data(bad))

    def _changes(self) -> Iterator[Change]:
        found: dict[str, list[str]] = defaultdict(list)
        about: dict[str, tuple[str, Part]] = {}
        for pair in self._pairs.values():
            for part in pair.parts:
                name = _name(pair, part)
                found[name].append(str(ObjectRef.of(pair.some)))
                about[name] = ("" if pair.service == SHARED else pair.service, part)
        for name in sorted(found):
            yield Change(name, *about[name], tuple(found[name]))

    def _units(self) -> dict[str, Changes]:
        units: dict[str, set[str]] = defaultdict(set)
        for change in self.changes.values():
            units[change.service or change.name].add(change.name)
        return {name: frozenset(changes) for name, changes in units.items()}

    def digest(self) -> str:
        """Over both states, whatever values are made up for what is secret."""
        sides = []
        for state in (self._good, self._bad):
            plain = {name: {k: v for k, v in m.items() if k != "shapes"} for name, m in state.plain.items()}
            images = [i.model_dump() for s in state.services.values() for i in s.lock.images]
            sides.append([plain, images, sorted(state.services)])
        return digest(sides)

    def versions(self, change: Change) -> tuple[ServicePlan | None, ServicePlan | None]:
        """The service of a change on both sides; None where it is not there."""
        return self._good.services.get(change.service), self._bad.services.get(change.service)

    def mixed(self, made: Changes) -> dict[str, ServicePlan]:
        """The good state with some changes made."""
        manifests: dict[str, list[Manifest]] = defaultdict(list)
        for pair in self._pairs.values():
            parts = frozenset(part for part in pair.parts if _name(pair, part) in made)
            if (chosen := _chosen(pair, parts)) is not None:
                manifests[pair.service].append(chosen)
        started_with = self._marks(made)
        return {
            name: self._plan(name, [_marked(m, started_with) for m in several], made)
            for name, several in sorted(manifests.items())
        }

    def _marks(self, made: Changes) -> dict[tuple[str, str], str]:
        """On which side each object of configuration that differs is."""
        return {
            (pair.some["kind"], pair.some["metadata"]["name"]): "bad" if _name(pair, part) in made else "good"
            for pair in self._pairs.values()
            for part in pair.parts
            if pair.some["kind"] in _CONFIGURATION
        }

    def _plan(self, name: str, manifests: list[Manifest], made: Changes) -> ServicePlan:
        good, bad = self._good.services.get(name), self._bad.services.get(name)
        own = {part for part in ("images", "configuration", "manifests") if f"{name}/{part}" in made}
        base = bad if good is None or (bad is not None and ("manifests" in own or name in made)) else good
        assert base is not None
        imaged = base if good is None or bad is None else bad if "images" in own or name in made else good
        marked = label(manifests, name)
        update = {"images": imaged.lock.images, "input_digest": digest(marked), "manifest_digest": digest(marked)}
        return replace(base, manifests=marked, lock=base.lock.model_copy(update=update))


def _key(manifest: Manifest) -> Key:
    ref = ObjectRef.of(manifest)
    return ref.group, ref.kind, ref.name


def _name(pair: _Pair, part: Part) -> str:
    if part:
        return f"{pair.service}/{part}"
    return str(ObjectRef.of(pair.some)) if pair.service == SHARED else pair.service


def _labelled(manifest: Manifest, service: str) -> Manifest:
    return label([manifest], service)[0]


def _secret_data(plain: Manifest) -> dict[str, Any]:
    return {**(plain.get("data") or {}), **(plain.get("stringData") or {})}


# -- parts of an object -----------------------------------------------------------------------------------------------


def _differing(good: Manifest | None, bad: Manifest | None) -> set[Part]:
    """In which parts an object differs."""
    some = bad if bad is not None else good
    assert some is not None
    if good is None or bad is None or pod_spec(good) is None or pod_spec(bad) is None:
        whole: Part = "configuration" if some["kind"] in _CONFIGURATION else "manifests"
        return {whole} if canonical_json(good) != canonical_json(bad) else set()
    found: set[Part] = set()
    if _images(good) != _images(bad):
        found.add("images")
    if _configuration(good) != _configuration(bad):
        found.add("configuration")
    if _rest(good, bad) != _rest(bad, good):
        found.add("manifests")
    return found


def _by_name(manifest: Manifest) -> dict[str, Manifest]:
    return {str(c.get("name")): c for c in containers(pod_spec(manifest) or {})}


def _images(manifest: Manifest) -> dict[str, Any]:
    return {name: container.get("image") for name, container in _by_name(manifest).items()}


def _configuration(manifest: Manifest) -> bytes:
    own = {
        name: {key: container[key] for key in _OF_CONFIGURATION if container.get(key)}
        for name, container in _by_name(manifest).items()
    }
    return canonical_json([own, _annotations(manifest)])


def _annotations(manifest: Manifest) -> dict[str, str]:
    template = pod_template(manifest)
    if template is None or template is manifest:
        return {}
    return dict((template.get("metadata") or {}).get("annotations") or {})


def _rest(manifest: Manifest, other: Manifest) -> bytes:
    """A workload without the images and the configuration of containers that the other one has too."""
    made, known = copy.deepcopy(manifest), set(_by_name(other))
    for name, container in _by_name(made).items():
        if name in known:
            for key in ("image", *_OF_CONFIGURATION):
                container.pop(key, None)
    _set_annotations(made, {})
    return canonical_json(made)


def _chosen(pair: _Pair, made: frozenset[Part]) -> Manifest | None:
    """An object with some of its parts as they are on the bad side, the others as on the good one."""
    if made == pair.parts:
        return pair.bad
    if not made or pair.good is None or pair.bad is None:
        return pair.good
    base = copy.deepcopy(pair.bad if "manifests" in made else pair.good)
    images = _by_name(pair.bad if "images" in made else pair.good)
    configuration = pair.bad if "configuration" in made else pair.good
    configured = _by_name(configuration)
    for name, container in _by_name(base).items():
        if name in images:
            container["image"] = images[name].get("image")
        if name in configured:
            for key in _OF_CONFIGURATION:
                container.pop(key, None)
            container.update({key: configured[name][key] for key in _OF_CONFIGURATION if key in configured[name]})
    _set_annotations(base, _annotations(configuration))
    return base


def _set_annotations(manifest: Manifest, annotations: Mapping[str, str]) -> None:
    template = pod_template(manifest)
    if template is None or template is manifest:
        return
    metadata = {k: v for k, v in (template.get("metadata") or {}).items() if k != "annotations"}
    template["metadata"] = {**metadata, **({"annotations": dict(annotations)} if annotations else {})}


def _marked(manifest: Manifest, sides: Mapping[tuple[str, str], str]) -> Manifest:
    """A workload whose pods are started again when an object of configuration that they refer to changes."""
    template = pod_template(manifest)
    if template is None or template is manifest or manifest["kind"] in ("Job", "CronJob"):
        return manifest
    used = {(r.kind, r.name) for r in find_references([manifest])} & set(sides)
    if not used:
        return manifest
    made = copy.deepcopy(manifest)
    mark = digest(sorted((*one, sides[one]) for one in used)).removeprefix("sha256:")[:16]
    _set_annotations(made, {**_annotations(made), RESTARTED: mark})
    return made


def titles(names: Iterable[str]) -> str:
    """Changes in words, for progress."""
    return ", ".join(sorted(names)) or "nothing"


def ordered(units: Mapping[str, Changes]) -> Sequence[Changes]:
    """Units in an order that is the same each time."""
    return [units[name] for name in sorted(units)]

"""The fidelity report: what of a capture is there again, what stands for something else, and what is not to be had.

It is made of what the sandbox holds when it is read back, held against the capture; the plan only explains differences.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.capture.model import Document
from sandbox.model import labels
from sandbox.model.objects import Manifest, ObjectRef, containers, pod_spec
from sandbox.reproduce.captured import Captured
from sandbox.reproduce.images import Pin, ran
from sandbox.reproduce.plan import Blueprint
from sandbox.reproduce.portable import Change, Outcome, explained, stripped

# What of a capture is an observation, and no part of the environment: the verdict speaks of it.
_OBSERVATIONS = frozenset({"pods", "logs", "events", "versions", "images", "record"})
_MOST_PATHS = 6


@dataclass(frozen=True)
class Line:
    """One item of the capture, and what became of it."""

    area: str
    name: str
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True)
class Facts:
    """What was read back.

    Attributes:
        objects: of all kinds that are brought back, pods included.
        restored: fixture → notes of its restore, for those that were compared with the capture and are the same.
        failed: fixture → why it is not there.
        tools: versions by tool, and the server's as ``kubernetes``.
        profile: of the quota.
    """

    objects: Sequence[Manifest]
    restored: Mapping[str, str]
    failed: Mapping[str, str]
    tools: Mapping[str, str]
    profile: str


def fidelity(captured: Captured, plan: Blueprint, facts: Facts) -> list[Line]:
    """Say for every item of a capture what became of it."""
    return [
        *_services(plan),
        *_objects(plan, facts),
        *_images(captured, plan, facts),
        *_fixtures(captured, plan, facts),
        *_gaps(captured),
        *_releases(captured.document, plan),
        *_quota(captured.document, facts),
        *_versions(captured.document, facts),
    ]


def counts(lines: Iterable[Line]) -> dict[str, int]:
    """How many lines of each outcome."""
    found = Counter(line.outcome for line in lines)
    return {outcome: found[outcome] for outcome in ("reproduced", "substituted", "unavailable")}


def as_data(lines: Iterable[Line]) -> list[dict[str, str]]:
    return [{"area": x.area, "name": x.name, "outcome": x.outcome, "why": x.why} for x in lines]


# Whoever prunes and deletes goes by it: what Helm had applied is the sandbox's here.
_MANAGED_BY = f"metadata.labels.{labels.MANAGED_BY}"


# -- services ---------------------------------------------------------------------------------------------------------


def _services(plan: Blueprint) -> Iterable[Line]:
    """Those that are at another commit than the captured one."""
    for name, replacement in sorted(plan.replaced.items()):
        yield Line("source", f"source/{name}", "substituted", replacement.line)


# -- objects ----------------------------------------------------------------------------------------------------------


def _objects(plan: Blueprint, facts: Facts) -> Iterable[Line]:
    live = {str(ObjectRef.of(m)): m for m in facts.objects}
    changes: dict[str, list[Change]] = defaultdict(list)
    for change in plan.changes:
        changes[change.object].append(change)
    for name, expected in sorted(plan.expected.items()):
        if name in plan.left_out:
            continue
        found = live.get(name)
        if found is None:
            why = "; ".join(c.why for c in changes[name] if c.outcome == "unavailable")
            yield Line("object", name, "unavailable", why or "it was applied, and is not there")
        else:
            yield _object(name, expected, stripped(found), changes[name])
    for name, why in sorted(plan.left_out.items()):
        yield Line("object", name, "unavailable", why)
    made = {str(ObjectRef.of(m)): m for m in plan.manifests}
    for name, why in sorted(plan.other.items()):
        yield _other(name, why, made[name], live.get(name), changes[name])


def _other(name: str, why: str, made: Manifest, live: Manifest | None, changes: Sequence[Change]) -> Line:
    """An object of a service at another commit: whether it is there, with the images of that commit."""
    if live is None:
        return Line("object", name, "unavailable", f"{why}; it was applied, and is not there")
    meant = [f"{change.path}: {change.why}" for change in changes]
    wanted, found = ({str(c.get("name")): c.get("image") for c in containers(pod_spec(m) or {})} for m in (made, live))
    wrong = [f"image of {c}: {found.get(c)}, which was not meant" for c in wanted if wanted[c] != found.get(c)]
    return Line("object", name, "substituted", "; ".join([why, *meant, *wrong]))


def _object(name: str, expected: Manifest, live: Manifest, meant: Sequence[Change]) -> Line:
    found = differences(*_comparable(expected, live))
    images = [change for change in meant if change.path.startswith("image of ")]
    others = [change for change in meant if change not in images]
    # What is meant and cannot be seen in the object itself (what a volume holds, a Secret's values) counts too.
    reasons = [c for c in others if _is_unseen(name, c) or any(explained(path, [c]) for path in found)]
    unmeant = [path for path in found if explained(path, others) is None]
    # By its digest it is the same image: of that the images speak.
    unmeant = [
        path for path in unmeant if not (images and path.endswith(".image")) and not _comes_with_type(path, meant)
    ]
    why = list(dict.fromkeys(c.why if c.path in ("", "data") else f"{c.path}: {c.why}" for c in reasons))
    if limited := [path for path in unmeant if expected["kind"] == "Pod" and ".resources" in path]:
        why.append("requests and limits are those of the quota profile")
        unmeant = [path for path in unmeant if path not in limited]
    if _MANAGED_BY in unmeant:
        why.append(f"the label {labels.MANAGED_BY} names sandbox, which applied it")
        unmeant.remove(_MANAGED_BY)
    if unmeant:
        why.append("differs, which was not meant: " + ", ".join(_few(unmeant)))
    if any(c.outcome == "unavailable" for c in reasons):
        return Line("object", name, "unavailable", "; ".join(why))
    return Line("object", name, "substituted" if why else "reproduced", "; ".join(why))


def _comes_with_type(path: str, meant: Sequence[Change]) -> bool:
    """Defaults that a Service has for what leads in from outside."""
    of_type = path in ("spec.externalTrafficPolicy", "spec.allocateLoadBalancerNodePorts")
    return of_type and any(change.path in ("spec.type", "spec") for change in meant)


def _is_unseen(name: str, change: Change) -> bool:
    return change.path.startswith("(") or (name.startswith("secret/") and change.path == "data")


def _few(paths: Sequence[str]) -> list[str]:
    few = list(dict.fromkeys(paths))
    return few if len(few) <= _MOST_PATHS else [*few[:_MOST_PATHS], f"{len(few) - _MOST_PATHS} more"]


def _comparable(expected: Manifest, live: Manifest) -> tuple[Manifest, Manifest]:
    """Both without what cannot be compared: a Secret's keys count, its values are the Secrets' own matter."""
    if expected["kind"] != "Secret":
        return expected, live
    keys = [dict.fromkeys({**(m.get("data") or {}), **(m.get("stringData") or {})}, "") for m in (expected, live)]
    return (
        {k: v for k, v in expected.items() if k not in ("data", "stringData", "shapes")} | {"keys": keys[0]},
        {k: v for k, v in live.items() if k not in ("data", "stringData")} | {"keys": keys[1]},
    )


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """The paths at which two objects differ; nothing, an empty table and an empty list are the same."""
    if a in (None, {}, [], "") and b in (None, {}, [], ""):
        return []
    if isinstance(a, dict) and isinstance(b, dict):
        keys = dict.fromkeys((*a, *b))
        return [p for key in keys for p in differences(a.get(key), b.get(key), f"{path}.{key}".removeprefix("."))]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [p for n, (x, y) in enumerate(zip(a, b, strict=True)) for p in differences(x, y, f"{path}[{n}]")]
    return [] if a == b else [path]


# -- images -----------------------------------------------------------------------------------------------------------


def _images(captured: Captured, plan: Blueprint, facts: Facts) -> Iterable[Line]:
    """Each image by the digest that runs now, where it runs; by the one that is asked for where it does not (yet)."""
    pods = [m for m in facts.objects if m["kind"] == "Pod"]
    now = {(workload, container): one for (workload, container, _), one in ran(pods).items()}
    asked = _asked(facts.objects)
    for pin in plan.pins:
        name = f"image/{pin.workload}/{pin.container}"
        running = now.get((pin.workload, pin.container))
        digest = (running.digest if running else "") or asked.get((pin.workload, pin.container), "")
        yield _image(name, pin, digest)


def _image(name: str, pin: Pin, digest: str) -> Line:
    if not pin.reference:
        return Line("image", name, "unavailable", pin.why)
    if pin.digest and digest == pin.digest:
        return Line("image", name, "substituted" if pin.why else "reproduced", pin.why)
    if pin.why:
        return Line("image", name, "substituted", pin.why)
    return Line("image", name, "unavailable", f"{digest or 'nothing'} runs instead of {pin.digest}")


def _asked(objects: Iterable[Manifest]) -> dict[tuple[str, str], str]:
    return {
        (manifest["metadata"]["name"], str(container.get("name"))): str(container.get("image")).partition("@")[2]
        for manifest in objects
        for container in containers(pod_spec(manifest) or {})
    }


# -- data, gaps, releases, versions -----------------------------------------------------------------------------------


def _fixtures(captured: Captured, plan: Blueprint, facts: Facts) -> Iterable[Line]:
    noted = {store.fixture.name: store for store in plan.stores}
    known = {**{fixture.name: fixture for fixture in captured.fixtures}, **{n: s.fixture for n, s in noted.items()}}
    for fixture in known.values():
        name = f"fixture/{fixture.name}"
        if fixture.status == "absent":
            continue
        if fixture.name in facts.restored:
            notes = [noted[fixture.name].note] if fixture.name in noted and noted[fixture.name].note else []
            notes += [*([facts.restored[fixture.name]] if facts.restored[fixture.name] else [])]
            notes += [f"masked: {rule}" for rule in fixture.masked]
            yield Line("data", name, "substituted" if notes else "reproduced", "; ".join(notes))
        else:
            why = facts.failed.get(fixture.name) or plan.unfilled.get(fixture.name) or "it was not restored"
            yield Line("data", name, "unavailable", why)


def _gaps(captured: Captured) -> Iterable[Line]:
    """What the capture itself does not hold, or what cannot be read of it."""
    for item in captured.document.missing:
        if item.area not in (*_OBSERVATIONS, "fixtures"):
            yield Line("capture", item.name, "unavailable", f"the capture is {item.status} here: {item.why}")
    for name, why in sorted(captured.problems.items()):
        yield Line("capture", name, "unavailable", why)


def _releases(document: Document, plan: Blueprint) -> Iterable[Line]:
    for service in document.services:
        if service.release and service.name not in plan.replaced:
            why = "its objects are applied as they were, not by Helm; hooks are off"
            yield Line("release", f"release/{service.release}", "substituted", why)


def _quota(document: Document, facts: Facts) -> Iterable[Line]:
    for name in sorted({line.quota for line in document.quota}):
        yield Line("quota", f"resourcequota/{name}", "substituted", f"the sandbox has the profile {facts.profile}")


def _versions(document: Document, facts: Facts) -> Iterable[Line]:
    captured = {**document.tools, "kubernetes": document.server_version}
    for tool, version in sorted(captured.items()):
        if not version:
            continue
        here = facts.tools.get(tool, "")
        if here == version:
            yield Line("version", f"version/{tool}", "reproduced", version)
        else:
            yield Line("version", f"version/{tool}", "substituted", f"{here or 'none'} instead of {version}")

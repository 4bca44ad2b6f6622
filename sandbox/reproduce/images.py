"""Images by the digests that ran, and whether they are still to be had: origin, mirror, or not at all."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sandbox.capture.fixtures.find import workload_of
from sandbox.capture.services import image_of
from sandbox.cluster.readiness import container_statuses
from sandbox.images.reference import parse_reference
from sandbox.model.errors import InvalidInput, Unreachable
from sandbox.model.objects import Manifest, containers, pod_spec
from sandbox.model.record import ImageLock

# What kubelets say of a container whose image never came.
_PULLS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_AT_ONCE = 8

Ask = Callable[[str], Awaitable[str | None]]
"""The digest of a reference in its registry, None where that has no such image; raises Unreachable."""


@dataclass(frozen=True)
class Ran:
    """What one container ran.

    Attributes:
        named: as the pod's spec has it.
        repository, digest: empty where nobody says.
        never_pulled: its image could not be had then either: that is (part of) the failure.
    """

    named: str
    repository: str = ""
    digest: str = ""
    never_pulled: bool = False


@dataclass(frozen=True)
class Pin:
    """The image of one container of a workload, as it is going to be deployed.

    Attributes:
        reference: empty where it cannot be had.
        why: what a reader should know; empty: it is the captured one, by digest.
    """

    workload: str
    container: str
    named: str
    digest: str
    reference: str
    why: str = ""

    @property
    def lock(self) -> ImageLock | None:
        name, _, digest = self.reference.partition("@")
        return ImageLock(name=self.named.partition("@")[0], repository=name, digest=digest) if digest else None


def ran(pods: Iterable[Manifest]) -> dict[tuple[str, str, str], Ran]:
    """What ran, by workload, container and image as named; of several pods the newest counts."""
    found: dict[tuple[str, str, str], Ran] = {}
    for pod in sorted(pods, key=lambda p: str(p["metadata"].get("creationTimestamp"))):
        statuses = {s.get("name"): s for s in container_statuses(pod)}
        for container in containers(pod.get("spec") or {}):
            name, named = str(container.get("name")), str(container.get("image") or "")
            status = statuses.get(name) or {}
            image = image_of(name, named, str(status.get("imageID") or ""))
            reason = ((status.get("state") or {}).get("waiting") or {}).get("reason")
            one = Ran(named, image.repository, image.digest, never_pulled=reason in _PULLS and not image.digest)
            key = (workload_of(pod), name, named)
            # A newer pod that has not started yet knows less than an older one of the same image.
            if one.digest or one.never_pulled or key not in found:
                found[key] = one
    return found


def pins(workload: Manifest, known: Mapping[tuple[str, str, str], Ran], *, allow_tags: bool) -> list[Pin]:
    """The images of a workload's containers, by digest wherever one is known."""
    found = []
    name = workload["metadata"]["name"]
    for container in containers(pod_spec(workload) or {}):
        named = str(container.get("image") or "")
        one = known.get((name, str(container.get("name")), named)) or Ran(named)
        digest = one.digest or named.partition("@")[2]
        repository = one.repository or named.partition("@")[0] * ("@" in named)
        pin = Pin(name, str(container.get("name")), named, digest, f"{repository}@{digest}")
        if digest and repository:
            found.append(pin)
        elif one.never_pulled:
            found.append(replace(pin, reference=named, why="as it is named: it could not be pulled then either"))
        elif allow_tags:
            found.append(replace(pin, reference=named, why="by its tag (--allow-tags): its digest is not known"))
        else:
            why = "its digest is not known: it has not run, or only its node had it; --allow-tags takes the tag"
            found.append(replace(pin, reference="", why=why))
    return found


def pinned(workload: Manifest, images: Sequence[Pin]) -> Manifest:
    """A workload whose containers name these images."""
    made = copy.deepcopy(workload)
    references = {pin.container: pin.reference for pin in images if pin.reference}
    for container in containers(pod_spec(made) or {}):
        container["image"] = references.get(str(container.get("name")), container.get("image"))
    return made


async def found_in_registries(
    images: Iterable[Pin], ask: Ask, *, mirror: str | None, allow_tags: bool
) -> dict[Pin, Pin]:
    """The images as they can be had: from where they were, else from the mirror, by digest; else not at all.

    A registry that does not answer from here may answer the nodes: then the image is left as it is.

    Args:
        mirror: registry and path; None: there is none.
    """
    wanted = list(dict.fromkeys(pin for pin in images if "@" in pin.reference))
    turns = asyncio.Semaphore(_AT_ONCE)

    async def there(reference: str) -> bool | None:
        try:
            async with turns:
                return await ask(reference) is not None
        except Unreachable:
            return None
        except InvalidInput:
            return False

    async def one(pin: Pin) -> Pin:
        if await there(pin.reference) is not False:
            return pin
        if mirror:
            copied = f"{mirror}/{_path(pin.reference)}@{pin.digest}"
            if await there(copied):
                return replace(pin, reference=copied, why=f"from the mirror {mirror}: gone from where it was")
        gone = f"{pin.reference} is gone from its registry"
        if allow_tags and "@" not in pin.named and await there(pin.named):
            return replace(pin, reference=pin.named, why=f"by its tag (--allow-tags), whatever that is now: {gone}")
        return replace(pin, reference="", why=gone)

    answers = await asyncio.gather(*(one(pin) for pin in wanted))
    return dict(zip(wanted, answers, strict=True))


def _path(reference: str) -> str:
    return parse_reference(reference).path

"""Whether the registries still have the images that run, and which commit their labels name."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from sandbox.capture.collect.collection import Collection, gathered
from sandbox.capture.collect.running import Running
from sandbox.capture.model import Image, Service
from sandbox.capture.services import image_of
from sandbox.cluster.readiness import container_statuses
from sandbox.images.registry import image_labels
from sandbox.model.errors import SandboxError, Unreachable

# Nothing else waits for a registry, but whoever rolls back waits for the capture.
_LONGEST_S = 5.0
_REVISION = "org.opencontainers.image.revision"
_SOURCE = "org.opencontainers.image.source"


@dataclass
class Registries:
    """What registries said, by ``repository@digest``: labels, None where they have no such image."""

    answers: dict[str, dict[str, str] | None] = field(default_factory=dict)

    def told(self, service: Service) -> Service:
        """A service with what is known of its images; its commit too, where nobody else named one."""
        images = tuple(self._image(image) for image in service.images)
        service = service.model_copy(update={"images": images})
        named = next((image for image in images if image.commit), None)
        if service.commit or named is None:
            return service
        return service.model_copy(update={"commit": named.commit, "repo": named.source, "commit_from": "image"})

    def _image(self, image: Image) -> Image:
        reference = f"{image.repository}@{image.digest}"
        if reference not in self.answers:
            return image
        labels = self.answers[reference]
        if labels is None:
            return image.model_copy(update={"available": False})
        known = {"available": True, "commit": labels.get(_REVISION, ""), "source": labels.get(_SOURCE, "")}
        return image.model_copy(update=known)


async def collect_images(collection: Collection, running: Running, found: Registries) -> None:
    """Ask for each image once, and a registry that does not answer only once."""
    await running.pods_known.wait()
    references = _references(running)
    silent: dict[str, str] = {}
    until = min(collection.until, asyncio.get_running_loop().time() + _LONGEST_S)

    async def ask(registry: str, several: list[str]) -> None:
        for reference in several:
            try:
                found.answers[reference] = await image_labels(reference, insecure=False)
            except Unreachable as error:
                silent[registry] = str(error)
                return

    async with collection.looking_at("images", "images", until=until) as look:
        look.count = len(references)
        by_registry: dict[str, list[str]] = {}
        for reference in references:
            by_registry.setdefault(reference.partition("/")[0], []).append(reference)
        await gathered(ask(registry, several) for registry, several in by_registry.items())
        if not references:
            look.end("absent", "no image is known by its digest")
        elif silent:
            # That a registry is out of reach from here says nothing of the environment: it is no gap.
            look.end("absent", "not asked: " + "; ".join(silent.values()))


def _references(running: Running) -> list[str]:
    found: dict[str, None] = {}
    for pod in running.pods:
        named = {c["name"]: str(c.get("image") or "") for c in _containers(pod)}
        for status in container_statuses(pod):
            try:
                image = image_of(status["name"], named.get(status["name"], ""), str(status.get("imageID") or ""))
            except SandboxError:
                continue
            if image.repository and image.digest:
                found[f"{image.repository}@{image.digest}"] = None
    return list(found)


def _containers(pod: dict[str, object]) -> list[dict[str, str]]:
    spec = pod.get("spec")
    assert isinstance(spec, dict)
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]

"""From what a project says about its images to digests: built here, or waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sandbox.images.builders import Builder, BuildSpec, Detected, detect
from sandbox.images.containerfile import applicable_args, base_images, find_containerfile
from sandbox.images.contents import Content, content_key
from sandbox.images.process import Progress
from sandbox.images.reference import Reference, parse_reference
from sandbox.images.registry import digest_of, speaks_plain_http, wait_for_digest
from sandbox.model.durations import format_duration
from sandbox.model.errors import InvalidInput, OperationFailed, Refused, Unreachable
from sandbox.model.images import ResolvedImage
from sandbox.model.source import Commit
from sandbox.project.config import Build, Image

# More builds at once only make each slower; registries are asked and waited for without such a bound.
PARALLEL_BUILDS = 2
# A base's digest is part of the key where it is cheaply known; a registry that is slow to say is not asked on.
_BASE_ANSWER_SECONDS = 5.0

LABEL_REVISION = "org.opencontainers.image.revision"
LABEL_SOURCE = "org.opencontainers.image.source"


@dataclass(frozen=True)
class ImageRequest:
    """One image of one service.

    Attributes:
        tree: the exported tree of the commit.
        build_args: from the command line, the environment and the settings; those that the Containerfile declares
            apply, and win over the project's own.
    """

    service: str
    image: Image
    tree: Path
    commit: Commit
    build_args: Mapping[str, str]

    @property
    def label(self) -> str:
        return f"service {self.service}, image {self.image.name}"


async def resolve_images(
    requests: Sequence[ImageRequest],
    *,
    registry: str | None,
    builder: str,
    wait: timedelta,
    progress: Progress,
    insecure: bool = False,
    dry_run: bool = False,
) -> dict[tuple[str, str], ResolvedImage]:
    """Resolve every image to a digest: build and push those whose content the registry does not have yet.

    Args:
        registry: registry and path that built images go to: ``ghcr.io/acme/shop``.
        builder: ``auto``, ``docker``, ``buildah``, ``podman``, or ``none``: wait for ``repository:<commit>``.
        wait: how long images that CI pushes are waited for.
        insecure: ``registry`` may speak plain HTTP or have a certificate that nobody knows. One on this machine or at
            a private address that speaks no TLS is found out.
        dry_run: build, push and wait for nothing; images that are not there yet have no digest.

    Returns:
        (service, image name) → image.

    Raises:
        InvalidInput: no registry, no Containerfile, a name that is none.
        Refused: an image of a dirty tree that only CI could build; a context outside of the tree.
        OperationFailed: a build or test fails, or an image does not appear in time.
        Unreachable: a registry does not answer or refuses, or there is no builder that works.
    """
    if not requests:
        return {}
    needs_builder = builder != "none" and any(request.image.build for request in requests)
    detected = await detect(builder) if needs_builder else Detected(None, "")
    if needs_builder and detected.builder is None:
        raise Unreachable(
            "there is nothing to build images with",
            why=detected.reason,
            hint="install docker, buildah or podman, or set `images.builder: none` to wait for the images of CI",
        )
    if registry and needs_builder:
        host = _parsed(registry).registry
        insecure = insecure or await speaks_plain_http(host)
    resolver = _Resolver(registry, detected.builder, insecure, wait, progress, dry_run)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {(r.service, r.image.name): group.create_task(resolver.resolve(r)) for r in requests}
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    return {key: task.result() for key, task in tasks.items()}


def repository_for(name: str, registry: str) -> str:
    """Where a built image goes: the registry and the image's path, its own registry left out.

    ``shop/web`` and ``docker.io/shop/web`` in ``ghcr.io/acme`` give ``ghcr.io/acme/shop/web``; a name that lies
    in the registry already stays as it is.

    Raises:
        InvalidInput: not the name of an image, or not a registry.
    """
    base = registry.rstrip("/")
    if name.startswith(f"{base}/"):
        return str(parse_reference(name))
    image = parse_reference(name)
    path = image.path
    if image.registry == "docker.io" and path == f"library/{name}":
        path = name
    return str(parse_reference(f"{_as_host(base)}/{path}"))


class _Resolver:
    """What all images of one call have in common."""

    def __init__(
        self,
        registry: str | None,
        builder: Builder | None,
        insecure: bool,
        wait: timedelta,
        progress: Progress,
        dry_run: bool,
    ) -> None:
        self._registry = registry
        self._builder = builder
        self._insecure = insecure
        self._wait = wait
        self._progress = progress
        self._dry_run = dry_run
        self._slots = asyncio.Semaphore(PARALLEL_BUILDS)
        # Services that share an image build it once.
        self._building: dict[str, asyncio.Lock] = {}

    async def resolve(self, request: ImageRequest) -> ResolvedImage:
        image = request.image
        if image.build is None or self._builder is None:
            return await self._wait_for_ci(request)
        return await self._built(request, image.build, self._builder)

    async def _wait_for_ci(self, request: ImageRequest) -> ResolvedImage:
        image, commit = request.image, request.commit
        repository = image.repository or repository_for(image.name, self._need_registry(request))
        if commit.dirty:
            raise Refused(
                f"{request.label}: nobody but this machine can build what is not committed",
                why=f"{repository} is built by CI, and the tree is deployed as it is (--dirty)",
                hint="commit and push, or give the image a `build` and a builder",
            )
        reference = f"{repository}:{commit.sha}"
        insecure = self._insecure and _same_registry(repository, self._registry)
        digest = await digest_of(reference, insecure=insecure)
        if digest is None and self._dry_run:
            return ResolvedImage(image.name, repository, commit.sha, "", "planned")
        if digest is None and self._wait:
            self._progress(f"{request.label}: waiting up to {format_duration(self._wait)} for {reference}")
            digest = await wait_for_digest(reference, insecure=insecure, limit=self._wait)
        if digest is None:
            raise OperationFailed(
                f"{request.label}: {reference} did not appear within {format_duration(self._wait)}",
                why="the registry has no image of this commit",
                hint="the commit is not pushed: CI has not seen it"
                if commit.pushed is False
                else "has CI built this commit, with the commit's full SHA as tag?",
            )
        return ResolvedImage(image.name, repository, commit.sha, digest, "found")

    async def _built(self, request: ImageRequest, build: Build, builder: Builder) -> ResolvedImage:
        registry = self._need_registry(request)
        repository = repository_for(request.image.name, registry)
        context = _context(request, build)
        file = find_containerfile(context, build.containerfile)
        text = file.read_text(errors="replace")
        args = applicable_args(text, {**build.args, **request.build_args})
        bases = base_images(text, args)
        content = Content(
            context=context,
            containerfile=file,
            args=args,
            target=build.target or "",
            bases=await self._base_digests(bases, builder),
            test=build.test,
            builder=builder.name,
        )
        key = await asyncio.to_thread(content_key, content)
        reference = f"{repository}:{key}"
        async with self._building.setdefault(reference, asyncio.Lock()):
            digest = await digest_of(reference, insecure=self._insecure)
            if digest:
                self._progress(f"{request.label}: unchanged, {reference} is there")
                return ResolvedImage(request.image.name, repository, key, digest, "found")
            if self._dry_run:
                return ResolvedImage(request.image.name, repository, key, "", "planned")
            spec = BuildSpec(
                label=request.label,
                reference=reference,
                context=context,
                containerfile=file,
                shown_as=file.relative_to(request.tree.resolve()).as_posix(),
                args=args,
                target=build.target or "",
                labels=_labels(request.commit),
                made_at=request.commit.committed_at,
                bases=bases,
                insecure_registry=parse_reference(repository).registry if self._insecure else "",
            )
            async with self._slots:
                await builder.build(spec, self._progress)
                if build.test:
                    await builder.test(reference, build.test, request.label, self._progress)
                self._progress(f"{request.label}: pushing {reference}")
                digest = await builder.push(reference, insecure=self._insecure)
        return ResolvedImage(request.image.name, repository, key, digest, "built")

    async def _base_digests(self, bases: Sequence[str], builder: Builder) -> dict[str, str]:
        """What the bases are now: as the builder has them, else as their registries say; empty where unknown."""
        return dict(zip(bases, await asyncio.gather(*(self._base_digest(b, builder) for b in bases)), strict=True))

    async def _base_digest(self, base: str, builder: Builder) -> str:
        if known := await builder.image_digest(base):
            return known
        image = parse_reference(base)
        if image.registry == "localhost":
            return ""
        insecure = self._insecure and _same_registry(base, self._registry)
        try:
            async with asyncio.timeout(_BASE_ANSWER_SECONDS):
                return await digest_of(base, insecure=insecure) or ""
        except (Unreachable, TimeoutError):
            # The pull will say so, if the base is needed at all.
            return ""

    def _need_registry(self, request: ImageRequest) -> str:
        if not self._registry:
            raise InvalidInput(
                f"{request.label}: no registry to push it to",
                hint="set `images.registry` in sandbox.yaml or in the user settings",
            )
        return self._registry


def _context(request: ImageRequest, build: Build) -> Path:
    """The build context's real folder.

    Raises:
        Refused: it is outside of the tree.
        InvalidInput: it is no folder.
    """
    tree = request.tree.resolve()
    context = (tree / build.context).resolve()
    if not context.is_relative_to(tree):
        raise Refused(
            f"{request.label}: the build context {build.context} leads out of the repository",
            hint="a build sees the exported tree only",
        )
    if not context.is_dir():
        raise InvalidInput(f"{request.label}: the build context {build.context} is no folder of the commit")
    return context


def _labels(commit: Commit) -> dict[str, str]:
    return {LABEL_REVISION: commit.sha + ("-dirty" if commit.dirty else ""), LABEL_SOURCE: commit.repo}


def _same_registry(reference: str, registry: str | None) -> bool:
    return registry is not None and parse_reference(reference).registry == _parsed(registry).registry


def _parsed(registry: str) -> Reference:
    return parse_reference(f"{_as_host(registry)}/x")


def _as_host(registry: str) -> str:
    """The first part of a registry is a host, whatever it looks like; ``acme`` alone is a user of Docker Hub."""
    host = registry.partition("/")[0]
    return registry if "." in host or ":" in host or host == "localhost" else f"docker.io/{registry}"


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure of a group; the others were cancelled, or are as good a reason."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first

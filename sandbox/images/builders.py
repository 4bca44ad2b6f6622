"""Docker, buildah and podman behind one protocol.

A Containerfile is untrusted. What every build gets: the exported tree, and no more; an environment of a
short, documented list of names; no secrets, no agent, no volumes, no credentials for registries. Base images
are pulled beforehand, by a process of its own that has the credentials and runs nothing of the build.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

from packaging.version import InvalidVersion, Version

from sandbox.images import confinement, containerfile
from sandbox.images.confinement import DROPPED_CAPABILITIES, Confinement
from sandbox.images.process import Ended, Progress, run
from sandbox.images.reference import is_loopback, parse_reference
from sandbox.images.registry import auth_file
from sandbox.model.errors import OperationFailed, Unreachable

BuilderName = Literal["docker", "buildah", "podman"]
ORDER: tuple[BuilderName, ...] = ("docker", "buildah", "podman")

# The whole environment of a build, documented in docs/images.md. HOME and TMPDIR are temporary folders.
PASSED_VARIABLES = (
    "PATH",
    "LANG",
    "LC_ALL",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
# What the docker command line needs to find its daemon; the build runs in the daemon and sees none of it.
_DOCKER_VARIABLES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "XDG_RUNTIME_DIR")
# Where rootless podman and buildah keep images.
_ROOTLESS_VARIABLES = (
    "HOME",
    "XDG_RUNTIME_DIR",
    "XDG_DATA_HOME",
    "XDG_CONFIG_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "USER",
)

# First versions whose `RUN --mount` stays inside of the build.
_CONTAINED_SINCE = {"buildah": Version("1.38.1"), "podman": Version("5.3.2")}

BUILD_LIMIT = timedelta(minutes=30)
TEST_LIMIT = timedelta(minutes=10)
_PULL_LIMIT = timedelta(minutes=15)
_PUSH_LIMIT = timedelta(minutes=15)
_ASK_LIMIT = timedelta(seconds=20)

# Podman raises the numbers of open files and processes, which is not allowed everywhere (CAP_SYS_RESOURCE).
_MODEST_LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")

_UNREACHABLE_WORDS = re.compile(
    r"connection refused|no such host|i/o timeout|no route to host|network is unreachable|connection reset"
    r"|server misbehaving|name resolution|context deadline exceeded|TLS handshake timeout|dial tcp"
    r"|http: server gave HTTP response to HTTPS client|certificate signed by unknown authority|bad gateway"
    r"|service unavailable|x509:",
    re.IGNORECASE,
)
_DENIED_WORDS = re.compile(
    r"denied|unauthorized|authentication required|403 forbidden|401|no basic auth credentials", re.IGNORECASE
)
_FULL_WORDS = re.compile(r"no space left on device|disk quota exceeded|ENOSPC", re.IGNORECASE)


@dataclass(frozen=True)
class BuildSpec:
    """One image to build.

    Attributes:
        label: what it is called in messages: ``service web, image shop/web``.
        reference: ``repository:tag`` that it is built as.
        containerfile: inside the context.
        shown_as: the Containerfile's path as the user knows it.
        args: build arguments; they stay readable in the image's history, so they are no place for secrets.
        target: stage to build; empty: the last.
        labels: labels of the image.
        made_at: creation time that the image bears: the commit's.
        bases: images that it starts or copies from.
        insecure_registry: the registry that base images may be pulled from without TLS.
    """

    label: str
    reference: str
    context: Path
    containerfile: Path
    shown_as: str
    args: Mapping[str, str]
    target: str
    labels: Mapping[str, str]
    made_at: datetime
    bases: Sequence[str] = ()
    insecure_registry: str = ""


class Builder(Protocol):
    """A program that builds, runs and pushes images."""

    @property
    def name(self) -> str: ...

    async def version(self) -> str:
        """Its version, as ``1.38.1``."""
        ...

    async def image_digest(self, reference: str) -> str | None:
        """What identifies an image in the builder's own storage; None where it is not there."""
        ...

    async def build(self, spec: BuildSpec, progress: Progress) -> None:
        """Build an image into the builder's storage.

        Raises:
            OperationFailed: the build fails; with the builder's last 20 lines.
            Refused: the Containerfile asks for what this builder cannot contain.
            Unreachable: a base image's registry does not answer.
        """
        ...

    async def test(self, reference: str, command: Sequence[str], label: str, progress: Progress) -> None:
        """Run a command in a built image, without network.

        Raises:
            OperationFailed: it fails; with its last 20 lines.
        """
        ...

    async def push(self, reference: str, *, insecure: bool) -> str:
        """Push an image to the registry that its name says, and return the digest of its manifest there.

        Raises:
            Unreachable: the registry does not answer, or refuses.
            OperationFailed: anything else.
        """
        ...


@dataclass(frozen=True)
class Detected:
    """Which builder there is, and why this one or none."""

    builder: Builder | None
    reason: str


async def detect(preferred: str = "auto") -> Detected:
    """Find the builder to use.

    Args:
        preferred: ``auto`` (the first of docker, buildah, podman that works), one of those, or ``none``.
    """
    if preferred == "none":
        return Detected(None, "builder is none: images are waited for, not built")
    if preferred != "auto" and preferred not in ORDER:
        return Detected(None, f"there is no builder named {preferred!r} (docker, buildah, podman, none)")
    names = [name for name in ORDER if preferred in ("auto", name)]
    reasons: list[str] = []
    for name in names:
        builder, reason = await _look_for(name)
        if builder:
            return Detected(builder, "; ".join([*reasons, reason]))
        reasons.append(reason)
    return Detected(None, "; ".join(reasons))


async def _look_for(name: BuilderName) -> tuple[Builder | None, str]:
    executable = shutil.which(name)
    if executable is None:
        return None, f"{name} is not installed"
    builder: Builder
    if name == "docker":
        builder = Docker(executable)
        ended = await run(
            [executable, "version", "--format", "{{.Server.Version}}"], env=_docker_environment(), limit=_ASK_LIMIT
        )
        if ended.code != 0:
            return None, f"docker is installed and has no daemon: {_last(ended)}"
        return builder, f"docker, daemon {ended.output.strip()}"
    builder = Buildah(executable) if name == "buildah" else Podman(executable)
    try:
        return builder, f"{name} {await builder.version()}"
    except OperationFailed as error:
        return None, f"{name} is installed and does not work: {error}"


def build_environment(work: Path, extra: Sequence[str] = ()) -> dict[str, str]:
    """The environment of a build: the passed names, ``extra`` ones, and a temporary HOME."""
    home = work / "home"
    home.mkdir(exist_ok=True)
    passed = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    passed |= {"HOME": str(home), "TMPDIR": str(work)}
    return passed | {name: os.environ[name] for name in extra if name in os.environ}


def push_environment() -> dict[str, str]:
    """The environment of pulls and pushes: the user's HOME (credential helpers need it) and the file of logins."""
    names = (*PASSED_VARIABLES, *_ROOTLESS_VARIABLES, *_DOCKER_VARIABLES, "DOCKER_CONFIG", "TMPDIR")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    if logins := auth_file():
        environment["REGISTRY_AUTH_FILE"] = str(logins)
    return environment


class _Containers:
    """What buildah and podman, made of the same parts, have in common."""

    name: str

    def __init__(self, executable: str) -> None:
        self._executable = executable
        self._version = ""
        self._storage: tuple[Path, ...] | None = None

    async def version(self) -> str:
        if not self._version:
            ended = await self._ask("--version")
            found = re.search(r"version (\d+\S*)", ended.output)
            if ended.code != 0 or not found:
                raise OperationFailed(f"{self.name} does not tell its version", why=ended.last_lines())
            self._version = found[1]
        return self._version

    async def image_digest(self, reference: str) -> str | None:
        ended = await self._ask("inspect", "--type", "image", "--format", self._digest_format, reference)
        digest = ended.output.strip().splitlines()[-1:] if ended.code == 0 else []
        return digest[0] if digest else None

    async def build(self, spec: BuildSpec, progress: Progress) -> None:
        if not await self._contains_mounts():
            text = spec.containerfile.read_text(errors="replace")
            containerfile.refuse_unsafe_mounts(text, spec.shown_as, f"{self.name} {await self.version()}")
        await self._pull_bases(spec, progress)
        with tempfile.TemporaryDirectory(prefix="sandbox-build-") as folder:
            work = Path(folder)
            argv = [self._executable, "build", *self._isolation(), *_common_options(spec)]
            argv += ["--layers", "--force-rm", "--format", "docker", "--pull=false"]
            argv += ["--timestamp", str(int(spec.made_at.timestamp()))]
            argv += ["--", str(spec.context)]
            command = await self._confined(argv, work, reads=[spec.context])
            await _run_build(command, self._build_environment(work), spec, progress)

    async def push(self, reference: str, *, insecure: bool) -> str:
        plain = insecure or is_loopback(parse_reference(reference).registry)
        with tempfile.TemporaryDirectory(prefix="sandbox-push-") as folder:
            digest_file = Path(folder) / "digest"
            argv = [self._executable, "push", "--quiet", "--digestfile", str(digest_file)]
            argv += ["--tls-verify=false"] if plain else []
            ended = await run([*argv, reference, f"docker://{reference}"], env=push_environment(), limit=_PUSH_LIMIT)
            if ended.code != 0:
                raise _transfer_failed("push", reference, ended)
            return digest_file.read_text().strip()

    async def _pull_bases(self, spec: BuildSpec, progress: Progress) -> None:
        """Pull what is missing, with the user's logins, so that the build itself needs none."""
        for base in spec.bases:
            if await self.image_digest(base) is not None:
                continue
            image = parse_reference(base)
            if image.registry == "localhost":  # no registry: what the builder calls its own images
                continue
            progress(f"{spec.label}: pulling {base}")
            plain = is_loopback(image.registry) or image.registry == spec.insecure_registry
            options = ["--tls-verify=false"] if plain else []
            argv = [self._executable, "pull", "--quiet", *options, str(image)]
            ended = await run(argv, env=push_environment(), limit=_PULL_LIMIT)
            if ended.code != 0:
                raise _base_failed(spec, base, ended)

    def _build_environment(self, work: Path) -> dict[str, str]:
        if confinement.is_possible():
            # In the confined root the work folder is /tmp.
            return build_environment(work) | {"HOME": "/tmp/home", "TMPDIR": "/tmp"}
        return build_environment(work, () if os.geteuid() == 0 else _ROOTLESS_VARIABLES)

    async def _confined(
        self, argv: list[str], work: Path, *, reads: Sequence[Path] = (), network: bool = True
    ) -> list[str]:
        if not confinement.is_possible():
            return argv
        visible = [*reads, Path(self._executable).resolve()]
        visible = [path for path in visible if not path.is_relative_to("/usr")]
        return Confinement(await self._storage_folders(), work).wrap(argv, reads=visible, network=network)

    def _isolation(self) -> list[str]:
        """Root builds in a chroot, which works where nested containers do not; others as the builder does it."""
        if not confinement.is_possible():
            return []
        return ["--isolation", "chroot", *(word for name in DROPPED_CAPABILITIES for word in ("--cap-drop", name))]

    async def _storage_folders(self) -> tuple[Path, ...]:
        if self._storage is None:
            ended = await self._ask("info", *self._info_format)
            try:
                said = json.loads(ended.output)
                self._storage = tuple(Path(said[self._store_key][name]) for name in self._store_names)
            except (ValueError, KeyError, TypeError):
                raise OperationFailed(
                    f"{self.name} does not tell where its storage is", why=ended.last_lines()
                ) from None
        return self._storage

    async def _contains_mounts(self) -> bool:
        try:
            return Version(await self.version()) >= _CONTAINED_SINCE[self.name]
        except InvalidVersion:
            return False

    async def _ask(self, *words: str) -> Ended:
        return await run([self._executable, *words], env=push_environment(), limit=_ASK_LIMIT)

    _digest_format: str
    _info_format: tuple[str, ...]
    _store_key: str
    _store_names: tuple[str, ...]


class Buildah(_Containers):
    """Buildah: no daemon; works as root in places where containers do not nest."""

    name = "buildah"
    _digest_format = "{{.FromImageDigest}}"
    _info_format = ()
    _store_key = "store"
    _store_names = ("GraphRoot", "RunRoot")

    async def test(self, reference: str, command: Sequence[str], label: str, progress: Progress) -> None:
        container = f"sandbox-test-{secrets.token_hex(6)}"
        made = await self._ask("from", "--pull-never", "--name", container, reference)
        if made.code != 0:
            raise OperationFailed(f"{label}: no container can be made to test it", why=made.last_lines())
        try:
            with tempfile.TemporaryDirectory(prefix="sandbox-test-") as folder:
                work = Path(folder)
                isolation = self._isolation() or ["--network", "none"]
                argv = [self._executable, "run", *isolation, container, "--", *command]
                wrapped = await self._confined(argv, work, network=False)
                await _run_test(wrapped, self._build_environment(work), command, label, progress)
        finally:
            await asyncio.shield(self._ask("rm", container))


class Podman(_Containers):
    """Podman: builds with buildah's code; runs tests as containers."""

    name = "podman"
    _digest_format = "{{.Digest}}"
    _info_format = ("--format", "json")
    _store_key = "store"
    _store_names = ("graphRoot", "runRoot")

    async def test(self, reference: str, command: Sequence[str], label: str, progress: Progress) -> None:
        argv = [self._executable, *_test_in_container(reference, command, *_MODEST_LIMITS)]
        await _run_test(argv, push_environment(), command, label, progress)


class Docker:
    """Docker: the build runs in its daemon, which gets the context and nothing else."""

    name = "docker"

    def __init__(self, executable: str) -> None:
        self._executable = executable

    async def version(self) -> str:
        ended = await self._ask("version", "--format", "{{.Server.Version}}")
        if ended.code != 0:
            raise OperationFailed("docker has no daemon that answers", why=_last(ended))
        return ended.output.strip()

    async def image_digest(self, reference: str) -> str | None:
        ended = await self._ask("image", "inspect", "--format", "{{.Id}}", reference)
        return ended.output.strip() if ended.code == 0 else None

    async def build(self, spec: BuildSpec, progress: Progress) -> None:
        with tempfile.TemporaryDirectory(prefix="sandbox-build-") as folder:
            environment = _docker_environment(Path(folder))
            environment["SOURCE_DATE_EPOCH"] = str(int(spec.made_at.timestamp()))
            argv = [self._executable, "build", "--progress", "plain", *_common_options(spec), "--", str(spec.context)]
            await _run_build(argv, environment, spec, progress)

    async def test(self, reference: str, command: Sequence[str], label: str, progress: Progress) -> None:
        argv = [self._executable, *_test_in_container(reference, command)]
        await _run_test(argv, _docker_environment(), command, label, progress)

    async def push(self, reference: str, *, insecure: bool) -> str:
        # Whether plain HTTP may be used is the daemon's own setting (`insecure-registries`).
        ended = await run([self._executable, "push", reference], env=push_environment(), limit=_PUSH_LIMIT)
        found = re.findall(r"digest: (sha256:[0-9a-f]{64})", ended.output)
        if ended.code != 0:
            raise _transfer_failed("push", reference, ended)
        if not found:
            raise OperationFailed(f"docker does not tell the digest of {reference}", why=ended.last_lines())
        return str(found[-1])

    async def _ask(self, *words: str) -> Ended:
        return await run([self._executable, *words], env=_docker_environment(), limit=_ASK_LIMIT)


def _docker_environment(work: Path | None = None) -> dict[str, str]:
    """Docker's command line pulls private base images with the user's logins; the build does not see them."""
    folder = os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    if work is None:
        return push_environment() | {"DOCKER_CONFIG": folder}
    return build_environment(work, _DOCKER_VARIABLES) | {"DOCKER_CONFIG": folder}


def _common_options(spec: BuildSpec) -> list[str]:
    words = ["--file", str(spec.containerfile), "--tag", spec.reference]
    for name, value in sorted(spec.args.items()):
        words += ["--build-arg", f"{name}={value}"]
    for name, value in sorted(spec.labels.items()):
        words += ["--label", f"{name}={value}"]
    return [*words, "--target", spec.target] if spec.target else words


def _test_in_container(reference: str, command: Sequence[str], *options: str) -> list[str]:
    """The test is the container's command, not an argument of the image's own entry point."""
    program, *arguments = command
    return [
        "run", "--rm", "--pull", "never", "--network", "none", "--cap-drop", "ALL", *options,
        "--security-opt", "no-new-privileges", "--entrypoint", program, reference, *arguments,
    ]  # fmt: skip


async def _run_build(argv: Sequence[str], environment: dict[str, str], spec: BuildSpec, progress: Progress) -> None:
    ended = await run(argv, env=environment, limit=BUILD_LIMIT, on_line=lambda line: progress(f"{spec.label}: {line}"))
    if ended.code != 0:
        raise OperationFailed(
            f"{spec.label} does not build ({spec.shown_as})", why=ended.last_lines(), hint=_hint(ended)
        )


async def _run_test(
    argv: Sequence[str], environment: dict[str, str], command: Sequence[str], label: str, progress: Progress
) -> None:
    progress(f"{label}: testing with `{' '.join(command)}`")
    ended = await run(argv, env=environment, limit=TEST_LIMIT, on_line=lambda line: progress(f"{label}: {line}"))
    if ended.code != 0:
        raise OperationFailed(
            f"{label}: its test `{' '.join(command)}` fails (exit code {ended.code})",
            why=ended.last_lines(),
            hint="it runs in the built image without network; the image was not pushed",
        )


def _transfer_failed(verb: str, reference: str, ended: Ended) -> OperationFailed | Unreachable:
    registry = parse_reference(reference).registry
    why = ended.last_lines()
    if _FULL_WORDS.search(why):
        return OperationFailed(f"{reference} cannot be {verb}ed", why=why, hint=_hint(ended))
    if _DENIED_WORDS.search(why):
        return Unreachable(
            f"the registry {registry} refuses to have {reference} {verb}ed",
            why=why,
            hint=f"log in with `docker login {registry}` (or podman, buildah), or set another `images.registry`",
        )
    if _UNREACHABLE_WORDS.search(why):
        return Unreachable(
            f"the registry {registry} does not answer",
            why=why,
            hint="is it running, and is its name right (`images.registry`)? One without TLS must be declared insecure",
        )
    return OperationFailed(f"{reference} cannot be {verb}ed", why=why)


def _base_failed(spec: BuildSpec, base: str, ended: Ended) -> OperationFailed | Unreachable:
    kind = Unreachable if _UNREACHABLE_WORDS.search(ended.output) else OperationFailed
    return kind(
        f"{spec.label}: the base image {base} cannot be pulled ({spec.shown_as})",
        why=ended.last_lines(),
        hint=_hint(ended) or "where the Containerfile declares it as ARG, --build-arg NAME=IMAGE names another one",
    )


def _hint(ended: Ended) -> str:
    if _FULL_WORDS.search(ended.output):
        return "the disk is full: remove unused images (`buildah rmi --prune`, `docker system prune`) or free space"
    return ""


def _last(ended: Ended) -> str:
    return (ended.output.strip().splitlines() or ["it says nothing"])[-1]

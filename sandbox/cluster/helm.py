"""Helm: render charts, install and upgrade releases, read back what is released.

Through pyhelm3's command (:mod:`sandbox.cluster.helm_command`); releases are read from their Secrets, which says
more than Helm's commands do (chart files, hooks) and starts no process. Works with Helm 3 and 4.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from sandbox.cluster import errors as api
from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.tools import find_tool, versions_of
from sandbox.cluster.yamlstream import json_for_yaml, manifests_of
from sandbox.model.errors import Busy, InvalidInput, OperationFailed, Refused, SandboxError, Unreachable
from sandbox.model.objects import Manifest
from sandbox.model.yamlguard import check_depth

if TYPE_CHECKING:
    from sandbox.cluster.helm_command import HelmCommand

_HOOK = "helm.sh/hook"
# For commands that only render or read.
_QUICK_TIMEOUT_S = 60.0
# Downloading charts that others are made of.
_DEPENDENCY_TIMEOUT_S = 300.0
# Beyond the time that Helm itself is given.
_MARGIN_S = 30.0
# etcd takes 1.5 MiB; a release is gzipped JSON of text, which does not shrink a hundredfold unless it was made to.
_LARGEST_RELEASE = 100 * 1024 * 1024


@dataclass(frozen=True)
class HelmRelease:
    """One revision of a release, as Helm stored it.

    Attributes:
        status: ``deployed``, ``failed``, ``superseded``, ``pending-upgrade``, …
        values: what it was installed with, the chart's defaults not included.
        manifests: as Helm applied them.
        hooks: those of deploying; tests left out.
        description: Helm's own word on how it ended.
        chart: the chart as stored: metadata, templates, values, files.
    """

    name: str
    namespace: str
    revision: int
    status: str
    values: dict[str, Any]
    manifests: list[Manifest] = field(repr=False)
    hooks: list[Manifest] = field(repr=False)
    chart: Mapping[str, Any] = field(repr=False)
    description: str = ""
    updated: str = ""
    sub_charts: bool = False

    @property
    def chart_name(self) -> str:
        return str(self._metadata.get("name") or "")

    @property
    def chart_version(self) -> str:
        return str(self._metadata.get("version") or "")

    @property
    def app_version(self) -> str:
        return str(self._metadata.get("appVersion") or "")

    @property
    def _metadata(self) -> Mapping[str, Any]:
        metadata = self.chart.get("metadata")
        return metadata if isinstance(metadata, dict) else {}


class Helm:
    """Helm against one cluster.

    Args:
        executable: a name to look up, or a path.
        cluster: a connection to use for reading releases; else each reading makes one of its own.
    """

    def __init__(
        self, kubeconfig: Path, context: str, executable: str = "helm", *, cluster: Cluster | None = None
    ) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._executable = executable
        self._cluster = cluster
        self._version: str | None = None
        self._asking = asyncio.Lock()
        self._building: dict[Path, asyncio.Lock] = {}

    async def version(self) -> str:
        """Helm's version, such as ``v4.3.1``.

        Raises:
            OperationFailed: there is no Helm.
        """
        async with self._asking:
            if self._version is None:
                path = self._path()
                found = (await asyncio.to_thread(versions_of, {"helm": path})).get("helm", "unknown")
                if found == "unknown":
                    raise OperationFailed(
                        "helm does not say its version", why=f"`{path} version` failed or gave no answer in time"
                    )
                self._version = found
        return self._version

    async def template(
        self,
        release: str,
        chart: Path,
        values: Mapping[str, Any],
        namespace: str,
        *,
        kube_version: str = "",
        api_versions: Sequence[str] = (),
    ) -> tuple[list[Manifest], list[Manifest]]:
        """Render a chart without a cluster; CRDs of the chart included, tests not.

        Args:
            kube_version: what the chart sees as ``.Capabilities.KubeVersion``.
            api_versions: what it sees as ``.Capabilities.APIVersions``.

        Returns:
            Manifests, and hooks.

        Raises:
            InvalidInput: it does not render; in Helm's words, with file and line.
        """
        await self.build_dependencies(chart)
        command = ["template", release, str(chart), "--namespace", namespace, "--values", "-", "--include-crds"]
        command += ["--skip-tests"]
        if kube_version:
            command += ["--kube-version", kube_version]
        for version in api_versions:
            command += ["--api-versions", version]
        what = f"the chart of release {release} does not render"
        output = await _run(
            self._command(force_conflicts=False),
            command,
            what,
            json_for_yaml(dict(values)).encode(),
            error=InvalidInput,
        )
        rendered = await asyncio.to_thread(manifests_of, output.decode(), shown_as=f"what the chart {release} renders")
        hooks = [manifest for manifest in rendered if is_hook(manifest)]
        return [manifest for manifest in rendered if not is_hook(manifest)], hooks

    async def install_or_upgrade(
        self, release: str, chart: Path, values: Mapping[str, Any], namespace: str, timeout: float
    ) -> int:
        """Install a release or upgrade it, run its hooks, and return the revision; does not wait for workloads.

        A release that a killed Helm left locked is unlocked first: the caller makes sure that none is at work.
        Fields changed by hand are taken over.

        Args:
            timeout: seconds for each hook.

        Raises:
            OperationFailed: it failed; in Helm's words.
            Refused: it may not, or the objects belong to another release.
        """
        await asyncio.gather(self.build_dependencies(chart), self.unlock(release, namespace))
        command = await self._forcing_command()
        with _told(f"the release {release} could not be installed"):
            async with asyncio.timeout(timeout + _MARGIN_S):
                result = await command.install_or_upgrade(
                    release,
                    chart,
                    dict(values),
                    namespace=namespace,
                    create_namespace=False,
                    timeout=_seconds(timeout),
                )
        return int(result["version"])

    async def rollback(self, release: str, revision: int, namespace: str, *, timeout: float = 300.0) -> int:
        """Go back to an earlier revision, as a new one, whose number is returned.

        Raises:
            OperationFailed: it failed; in Helm's words.
        """
        await self.unlock(release, namespace)
        await self._rollback(release, revision, namespace, timeout=timeout)
        return max((found.revision for found in await self._stored(release, namespace)), default=revision)

    async def uninstall(self, release: str, namespace: str, *, timeout: float = 300.0) -> None:
        """Remove a release and what it made; harmless when there is none.

        Raises:
            OperationFailed: it failed; in Helm's words.
        """
        await self._uninstall(release, namespace, timeout=timeout)

    async def unlock(self, release: str, namespace: str) -> None:
        """Make a release usable that a killed Helm left in the middle of something.

        An install is taken back, an upgrade or rollback returns to the last revision that was deployed.
        """
        stored = await self._stored(release, namespace)
        if not stored or not stored[-1].pending:
            return
        good = [found.revision for found in stored if found.status == "deployed"] or [
            found.revision for found in stored if found.status == "superseded"
        ]
        # Hooks belong to what the next upgrade does, not to picking up the pieces.
        if good and stored[-1].status != "uninstalling":
            await self._rollback(release, good[-1], namespace, no_hooks=True)
        else:
            await self._uninstall(release, namespace, no_hooks=True)

    async def release(self, release: str, namespace: str, revision: int | None = None) -> HelmRelease | None:
        """A release as Helm stored it, its newest revision by default; None where there is none."""
        selector = f"owner=helm,name={release}" + (f",version={revision}" if revision is not None else "")
        found = await self._decoded(namespace, selector)
        return max(found, key=lambda item: item.revision, default=None)

    async def releases(self, namespace: str) -> list[HelmRelease]:
        """All releases of a namespace by name: of each the revision that is deployed, else the newest."""
        by_name: dict[str, HelmRelease] = {}
        for found in await self._decoded(namespace, "owner=helm,status!=superseded"):
            known = by_name.get(found.name)
            rank = (found.status == "deployed", found.revision)
            if known is None or rank > (known.status == "deployed", known.revision):
                by_name[found.name] = found
        return [by_name[name] for name in sorted(by_name)]

    async def history(self, release: str, namespace: str) -> list[HelmRelease]:
        """All stored revisions of a release, oldest first."""
        found = await self._decoded(namespace, f"owner=helm,name={release}")
        return sorted(found, key=lambda item: item.revision)

    async def revisions(self, release: str, namespace: str) -> list[tuple[int, str]]:
        """Number and status of all stored revisions of a release, oldest first."""
        return [(found.revision, found.status) for found in await self._stored(release, namespace)]

    async def unpack_chart(self, release: HelmRelease, destination: Path) -> Path:
        """Write the chart of a release as a folder that can be installed again; returns that folder.

        Helm does not store sub-charts. A release that has them (``sub_charts``) comes back as a chart of its rendered
        manifests: the same objects, that no value changes any more.

        Raises:
            OperationFailed: the stored chart is not one.
        """
        files = _frozen_files(release) if release.sub_charts else _chart_files(release)
        return await asyncio.to_thread(_write_chart, files, destination)

    async def build_dependencies(self, chart: Path) -> None:
        """Fetch the sub-charts that a chart names and does not hold; nothing to do for most.

        Raises:
            InvalidInput: they cannot be had; in Helm's words.
        """
        async with self._building.setdefault(chart.resolve(), asyncio.Lock()):
            missing = await asyncio.to_thread(_missing_dependencies, chart)
            if not missing:
                return
            local = [str(entry.get("repository") or "").removeprefix("file://") for entry in missing]
            for entry, path in zip(missing, local, strict=True):
                if (
                    str(entry.get("repository") or "").startswith("file://")
                    and (chart / path).resolve() != chart.resolve()
                ):
                    await self.build_dependencies(chart / path)
            locked = (chart / "Chart.lock").is_file() or (chart / "requirements.lock").is_file()
            command = ["dependency", "build" if locked else "update", str(chart)]
            if all(str(entry.get("repository") or "").startswith(("file://", "oci://")) for entry in missing):
                # No list of a repository is needed, so none is asked for.
                command.append("--skip-refresh")
            await _run(
                self._command(force_conflicts=False),
                command,
                f"the sub-charts of {chart.name} cannot be fetched",
                error=InvalidInput,
                timeout=_DEPENDENCY_TIMEOUT_S,
            )

    # -- running Helm

    def _command(self, *, force_conflicts: bool) -> HelmCommand:
        from sandbox.cluster.helm_command import HelmCommand

        return HelmCommand(
            executable=self._path(),
            kubeconfig=self._kubeconfig,
            context=self._context,
            force_conflicts=force_conflicts,
        )

    def _path(self) -> Path:
        path = Path(self._executable) if "/" in self._executable else find_tool(self._executable)
        if path is None or not path.is_file():
            raise OperationFailed(
                "there is no helm",
                why=f"{self._executable} is not in PATH",
                hint="install Helm 3.14 or later (https://helm.sh/docs/intro/install/)",
            )
        return path

    async def _forcing_command(self) -> HelmCommand:
        """A command that takes fields over; Helm 3 does so by itself and knows no such flag."""
        return self._command(force_conflicts=not (await self.version()).startswith("v3."))

    async def _rollback(
        self, release: str, revision: int, namespace: str, *, timeout: float = 300.0, no_hooks: bool = False
    ) -> None:
        command = await self._forcing_command()
        with _told(f"the release {release} could not be rolled back to revision {revision}"):
            async with asyncio.timeout(timeout + _MARGIN_S):
                await command.rollback(
                    release, revision, namespace=namespace, no_hooks=no_hooks, timeout=_seconds(timeout)
                )

    async def _uninstall(self, release: str, namespace: str, *, timeout: float = 300.0, no_hooks: bool = False) -> None:
        with _told(f"the release {release} could not be uninstalled", missing_ok=True):
            async with asyncio.timeout(timeout + _MARGIN_S):
                await self._command(force_conflicts=False).uninstall(
                    release, namespace=namespace, no_hooks=no_hooks, timeout=_seconds(timeout)
                )

    # -- reading releases

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Cluster]:
        if self._cluster is not None:
            yield self._cluster
            return
        async with Cluster.connect(self._context, self._kubeconfig) as cluster:
            yield cluster

    async def _decoded(self, namespace: str, selector: str) -> list[HelmRelease]:
        async with self._connection() as cluster:
            secrets = [
                secret
                async for secret in objects.list_(cluster, "v1", "Secret", namespace, selector, limit=50)
                if secret.get("type") == "helm.sh/release.v1"
            ]
        return await asyncio.to_thread(lambda: [decode_release(secret) for secret in secrets])

    async def _stored(self, release: str, namespace: str) -> list[_Stored]:
        """Revisions and their states, oldest first, without what they hold."""
        async with self._connection() as cluster:
            found = [
                _Stored(int(labels.get("version") or 0), str(labels.get("status") or ""))
                async for secret in objects.list_(
                    cluster, "v1", "Secret", namespace, f"owner=helm,name={release}", metadata_only=True
                )
                if (labels := secret["metadata"].get("labels") or {})
            ]
        return sorted(found, key=lambda item: item.revision)


@dataclass(frozen=True)
class _Stored:
    revision: int
    status: str

    @property
    def pending(self) -> bool:
        return self.status.startswith("pending-") or self.status == "uninstalling"


def is_hook(manifest: Manifest) -> bool:
    """Whether Helm runs an object as a hook instead of applying it."""
    metadata = manifest.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    return bool(isinstance(annotations, dict) and annotations.get(_HOOK))


# -- stored releases --------------------------------------------------------------------------------------------


def decode_release(secret: Manifest) -> HelmRelease:
    """Read a release from its Secret: base64 (Kubernetes'), base64 (Helm's), gzip, JSON.

    Raises:
        OperationFailed: it is not one.
    """
    name = secret["metadata"]["name"]
    try:
        data = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        if data[:2] == b"\x1f\x8b":
            data = _gunzip(data)
        release = json.loads(data)
        return _release(release)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error, zlib.error, EOFError, OSError) as error:
        raise OperationFailed(
            f"the Secret {name} does not hold a Helm release", why=f"{type(error).__name__}: {error}"[:200]
        ) from None


def _gunzip(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    unpacked = unpacker.decompress(data, _LARGEST_RELEASE)
    if unpacker.unconsumed_tail:
        raise ValueError("it unpacks to more than any release holds")
    return unpacked


def _release(release: Mapping[str, Any]) -> HelmRelease:
    info = release.get("info") or {}
    manifest = str(release.get("manifest") or "")
    hooks = [hook for hook in release.get("hooks") or () if not _is_test(hook)]
    chart = release["chart"]
    shown_as = f"the stored release {release['name']}"
    nested = re.compile(r"^(?:# Source: )?[^/\n]+/charts/", re.MULTILINE)
    return HelmRelease(
        name=str(release["name"]),
        namespace=str(release.get("namespace") or ""),
        revision=int(release["version"]),
        status=str(info.get("status") or "unknown"),
        values=dict(release.get("config") or {}),
        manifests=manifests_of(manifest, shown_as=shown_as),
        hooks=[m for hook in hooks for m in manifests_of(str(hook.get("manifest") or ""), shown_as=shown_as)],
        chart=chart,
        description=str(info.get("description") or ""),
        updated=str(info.get("last_deployed") or ""),
        sub_charts=bool((chart.get("metadata") or {}).get("dependencies"))
        or nested.search(manifest) is not None
        or any(nested.match(str(hook.get("path") or "")) for hook in hooks),
    )


def _is_test(hook: Mapping[str, Any]) -> bool:
    events = hook.get("events") or ()
    return bool(events) and all(str(event).startswith("test") for event in events)


def _chart_files(release: HelmRelease) -> dict[str, bytes]:
    """The files of a stored chart by their path in it."""
    chart = release.chart
    files = {
        str(entry["name"]): base64.b64decode(entry.get("data") or "")
        for key in ("templates", "files")
        for entry in chart.get(key) or ()
    }
    files["Chart.yaml"] = _as_yaml({k: v for k, v in (chart.get("metadata") or {}).items() if v is not None})
    files["values.yaml"] = _as_yaml(chart.get("values") or {})
    if chart.get("schema"):
        files["values.schema.json"] = base64.b64decode(chart["schema"])
    return files


def _frozen_files(release: HelmRelease) -> dict[str, bytes]:
    """A chart that renders to exactly what the release holds."""
    metadata = {k: v for k, v in (release.chart.get("metadata") or {}).items() if v is not None and k != "dependencies"}
    files = {"Chart.yaml": _as_yaml(metadata), "values.yaml": b"{}\n"}
    for number, manifest in enumerate([*release.manifests, *release.hooks]):
        text = json_for_yaml(_without_namespace(manifest, release.namespace), indent=1)
        # JSON is YAML; braces of its own would be taken for template actions.
        files[f"templates/{number:04}.yaml"] = text.replace("{{", '{{ "{{" }}').encode()
    return files


def _without_namespace(manifest: Manifest, namespace: str) -> Manifest:
    metadata = manifest.get("metadata") or {}
    if metadata.get("namespace") != namespace:
        return manifest
    return {**manifest, "metadata": {key: value for key, value in metadata.items() if key != "namespace"}}


def _as_yaml(data: Any) -> bytes:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode()


def _write_chart(files: Mapping[str, bytes], destination: Path) -> Path:
    for name, data in files.items():
        path = PurePosixPath(name)
        # It is read from a cluster: whoever may write Secrets there must not write files here.
        if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
            raise OperationFailed("the stored chart names a file outside of itself", why=repr(name))
        target = destination / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return destination


def _missing_dependencies(chart: Path) -> list[Mapping[str, Any]]:
    """The sub-charts that a chart names and that are not in its ``charts/``."""
    wanted = []
    for name in ("Chart.yaml", "requirements.yaml"):
        try:
            text = (chart / name).read_text()
            check_depth(text)
            document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (OSError, ValueError, yaml.YAMLError):
            # Helm itself says best what is wrong with it.
            continue
        entries = document.get("dependencies") if isinstance(document, dict) else None
        wanted += [entry for entry in entries or () if isinstance(entry, dict) and entry.get("name")]
    held = {path.name for path in (chart / "charts").glob("*")}
    return [entry for entry in wanted if not any(_holds(name, str(entry["name"])) for name in held)]


def _holds(file: str, name: str) -> bool:
    return file == name or re.fullmatch(rf"{re.escape(name)}-v?\d.*\.tgz", file) is not None


# -- Helm's errors ----------------------------------------------------------------------------------------------


async def _run(
    command: HelmCommand,
    arguments: list[str],
    what: str,
    stdin: bytes | None = None,
    *,
    error: type[SandboxError] = OperationFailed,
    timeout: float = _QUICK_TIMEOUT_S,
) -> bytes:
    with _told(what, error=error):
        async with asyncio.timeout(timeout):
            return await command.run(arguments, stdin)


@contextmanager
def _told(what: str, *, error: type[SandboxError] = OperationFailed, missing_ok: bool = False) -> Iterator[None]:
    """Turn Helm's failures into errors in its own words."""
    try:
        yield
    except TimeoutError:
        raise OperationFailed(what, why="helm did not end in time", hint="give it more with --timeout") from None
    # By its attribute: naming pyhelm3's class would import it.
    except Exception as failure:
        stderr = getattr(failure, "stderr", None)
        if not isinstance(stderr, bytes):
            raise
        text = stderr.decode(errors="replace")
        if missing_ok and "release: not found" in text:
            return
        raise helm_error(what, text, error) from None


def helm_error(what: str, stderr: str, kind: type[SandboxError] = OperationFailed) -> SandboxError:
    """The error that Helm's standard error stands for, without its log lines and the value of any Secret."""
    why = _reason(stderr)
    if "Secret" in why:
        why = api.hide_values(why)
    if re.search(r"another operation \(install/upgrade/rollback\) is in progress", why):
        return Busy(what, why=why, hint="another helm is at work on this release: wait for it")
    if re.search(r"cluster unreachable|connection refused|no such host|i/o timeout|TLS handshake", why):
        return Unreachable(what, why=why, hint="is the cluster running?")
    if "invalid ownership metadata" in why:
        return Refused(
            what, why=why, hint="another release, or nobody, owns that object: delete it or rename one of them"
        )
    if re.search(r"exceeded quota|is forbidden|denied (the )?request", why):
        return Refused(what, why=why)
    hint = "mend the chart or its values; `helm template` shows the same" if kind is InvalidInput else ""
    return kind(what, why=why, hint=hint)


def _reason(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("Error: ")), None)
    if start is None:
        return "\n".join(lines[-20:]) or "helm said nothing"
    kept = [line for line in lines[start:] if not re.match(r"(level=|time=|WARNING:|coalesce\.go)", line)]
    return "\n".join(kept).removeprefix("Error: ").strip()


def _seconds(timeout: float) -> str:
    return f"{max(1, round(timeout))}s"

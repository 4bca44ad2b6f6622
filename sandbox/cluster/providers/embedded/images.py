"""Bringing images from the machine's own storage into a cluster's registry."""

from __future__ import annotations

import asyncio
import shutil
import tarfile
import tempfile
from pathlib import Path

from sandbox.cluster.providers.images import is_path, repository_of
from sandbox.cluster.providers.model import RUNNING, ClusterInfo, Progress
from sandbox.cluster.providers.subprocesses import direct_environment, run, run_checked
from sandbox.model.errors import InvalidInput, Unreachable

_COPY_TIMEOUT = 900.0  # seconds


async def load(cluster: ClusterInfo, image: str, progress: Progress) -> str:
    """Copy an image into the registry of a cluster.

    Args:
        image: a reference in the storage of docker or buildah/podman, or the path of an archive.

    Returns:
        The reference by digest.

    Raises:
        InvalidInput: no storage holds the image, or the file is no image archive.
        Unreachable: the cluster is not running.
        OperationFailed: the copy fails.
    """
    if cluster.state != RUNNING or cluster.registry is None:
        why = f"it is {cluster.state}" if cluster.registry else "a control plane alone has no registry"
        raise Unreachable(f"cluster {cluster.name} takes no images", why=why)
    source = await asyncio.to_thread(archive_source, image) or await _stored_source(image)
    repository, tag = repository_of(image)
    target = f"{cluster.registry}/{repository}"
    progress(f"copying {image} to {target}:{tag}")
    with tempfile.TemporaryDirectory() as work:
        digest = Path(work) / "digest"
        argv = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"--digestfile={digest}"]
        await run_checked(
            [*argv, source, f"docker://{target}:{tag}"],
            f"{image} cannot be copied into the registry of cluster {cluster.name}",
            timeout=_COPY_TIMEOUT,
            env=direct_environment(),
        )
        return f"{target}@{digest.read_text().strip()}"


def archive_source(image: str) -> str | None:
    """How skopeo names an archive on disk, or None when the image is not a path.

    Raises:
        InvalidInput: it is a path, and no docker or OCI archive is there.
    """
    if not is_path(image):
        return None
    path = Path(image).expanduser().absolute()
    if (path / "index.json").is_file():
        return f"oci:{path}"
    try:
        with tarfile.open(path) as tar:
            names = set(tar.getnames())
    except (OSError, tarfile.TarError) as error:
        raise InvalidInput(f"{image} is not an image archive", why=str(error)) from error
    if "manifest.json" in names:
        return f"docker-archive:{path}"
    if "index.json" in names:
        return f"oci-archive:{path}"
    raise InvalidInput(f"{image} is not an image archive", why="neither manifest.json nor index.json is in it")


async def _stored_source(image: str) -> str:
    """Which local storage holds the image: that of buildah and podman, or a Docker daemon."""
    tried = []
    for program, storage in (("buildah", "containers-storage"), ("docker", "docker-daemon")):
        if shutil.which(program) is None:
            continue
        finished = await run([program, "inspect", "--type=image", image], timeout=60)
        if finished.code == 0:
            named = image if storage != "docker-daemon" or ":" in image.rpartition("/")[2] else f"{image}:latest"
            return f"{storage}:{named}"
        tried.append(f"{program}: {finished.last_lines()}")
    raise InvalidInput(
        f"there is no image {image} on this machine",
        why="\n".join(tried) or "neither buildah nor docker is installed",
        hint="build it, or give the path of an archive made by `docker save` or `buildah push`",
    )

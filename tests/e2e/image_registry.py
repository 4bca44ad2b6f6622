"""A registry of its own for a test, and a base system for Containerfiles that needs no network."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.cluster.providers import embedded_bin_dir

_START_SECONDS = 15
_MANIFEST_TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


@contextmanager
def running_registry(folder: Path) -> Iterator[str]:
    """The distribution project's registry on a free port of this machine; yields ``127.0.0.1:<port>``."""
    program = _program()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = folder / "registry.yml"
    storage = {"filesystem": {"rootdirectory": str(folder / "registry")}, "delete": {"enabled": True}}
    config.write_text(
        json.dumps({"version": "0.1", "log": {"level": "error"}, "storage": storage, "http": {"addr": address}})
    )
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", config], stdout=log, stderr=log)
    try:
        _wait_until_it_answers(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=10)


def read(address: str, repository: str, version: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and configuration of an image, as the registry has them."""
    request = urllib.request.Request(
        f"http://{address}/v2/{repository}/manifests/{version}", headers={"Accept": _MANIFEST_TYPES}
    )
    manifest = json.loads(_open(request))
    config = json.loads(_open(f"http://{address}/v2/{repository}/blobs/{manifest['config']['digest']}"))
    return manifest, config


def copy_system(context: Path) -> None:
    """Put a shell and perl (every Debian has them), with their libraries, into ``rootfs/`` of a build context."""
    root = context / "rootfs"
    for program, place in (("/bin/dash", "bin/sh"), ("/usr/bin/perl", "usr/bin/perl")):
        _copy(Path(program), root / place)
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True, timeout=10).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            _copy(Path(library), root / library.lstrip("/"))


def _program() -> str:
    """The registry among the embedded cluster's programs, or the machine's own."""
    directory = embedded_bin_dir()
    found = str(directory / "registry") if directory else shutil.which("registry")
    assert found, "the embedded cluster's programs are built (`make binaries`)"
    return found


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source.resolve(), target)


def _wait_until_it_answers(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            _open(f"http://{address}/v2/")
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"the registry did not answer within {_START_SECONDS} s")


def _open(request: urllib.request.Request | str) -> bytes:
    # No proxy: the registry is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as response:
        return bytes(response.read())

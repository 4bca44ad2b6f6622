"""A real server that speaks S3: Versity's gateway over a folder, built from its Go module once a machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from sandbox.cluster.providers.embedded import build
from sandbox.cluster.providers.places import cache_dir
from tests.e2e.bounded import until

MODULE = "github.com/versity/versitygw/cmd/versitygw"
VERSION = "v1.8.0"


@dataclass(frozen=True)
class S3Server:
    """A server that runs.

    Attributes:
        bucket: that is there.
        environment: what leads Amazon's tools to it.
    """

    bucket: str
    environment: dict[str, str]


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """A gateway over an empty folder, on a port of loopback."""
    data = folder / "data"
    (data / "captures").mkdir(parents=True)
    keys = {"ROOT_ACCESS_KEY": "tester", "ROOT_SECRET_KEY": "not-secret-at-all"}
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(_program()), "--port", "127.0.0.1:0", "--quiet", "posix", str(data)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **keys},
        )
    try:
        port = until(lambda: _port(process), f"the gateway listens: {log}", 60)
        yield S3Server(
            "captures",
            {
                "AWS_ACCESS_KEY_ID": keys["ROOT_ACCESS_KEY"],
                "AWS_SECRET_ACCESS_KEY": keys["ROOT_SECRET_KEY"],
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_REGION": "us-east-1",
            },
        )
    finally:
        process.terminate()
        process.wait(timeout=30)


def _port(process: subprocess.Popen[bytes]) -> int | None:
    """The port that a process listens on; None: it does not yet."""
    assert process.poll() is None, "the gateway ended"
    sockets = set()
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            sockets.add(str(descriptor.readlink()))
        except OSError:
            continue
    for line in Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            return int(fields[1].partition(":")[2], 16)
    return None


def _program() -> Path:
    """The gateway's program; it takes a minute or two to build."""
    folder = cache_dir() / "test-programs" / f"versitygw-{VERSION}"
    program = folder / "versitygw"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not program.exists():
            sources = build.sources()
            assert sources is not None
            go = asyncio.run(build.toolchain((sources / "go.mod").read_text(), print))
            environment = {**os.environ, "GOBIN": str(folder / "new"), "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
            command = [str(go), "install", f"{MODULE}@{VERSION}"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=550, check=False)
            assert done.returncode == 0, done.stderr
            (folder / "new" / "versitygw").replace(program)
    return program

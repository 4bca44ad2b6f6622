"""Build the embedded cluster's programs, if that has not been done: `make test` does it while other checks run."""

from __future__ import annotations

import asyncio
import sys

from sandbox.cluster.providers.embedded.build import ensure
from sandbox.model.errors import SandboxError


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> int:
    try:
        asyncio.run(ensure(_say))
    except SandboxError as error:
        _say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

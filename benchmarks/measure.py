"""What the benchmarks share: timing commands, and a cluster to time them on.

Peer and product run in turns in the same process, so that a busy machine slows both; the ratio of their
medians is what counts, absolute times are noise.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SANDBOX = str(Path(sys.executable).parent / "sandbox")
_TIMEOUT = 600


@dataclass(frozen=True)
class Claim:
    """One line of the result: ``product`` may take ``limit`` times what ``peer`` takes."""

    name: str
    product: float
    peer: float
    limit: float
    unit: str = "s"

    @property
    def ratio(self) -> float:
        return self.product / self.peer

    def line(self) -> str:
        verdict = "ok" if self.ratio <= self.limit else "MISSED"
        return (
            f"{self.name}: {self.ratio:.2f}x (at most {self.limit:.3g}x: {verdict}; "
            f"sandbox {self.product:.2f} {self.unit}, peer {self.peer:.2f} {self.unit})"
        )


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", help="context of the kubeconfig; default: the current one")
    parser.add_argument("--kubeconfig", type=Path, default=os.environ.get("KUBECONFIG"))
    parser.add_argument("--rounds", type=int, default=5)
    return parser


class Target:
    """The cluster that both sides work on, as each program takes it.

    Attributes:
        options: of sandbox and kubectl.
        helm: the same for helm.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        file = ["--kubeconfig", str(given.kubeconfig)] if given.kubeconfig else []
        self.options = [*file, *(["--context", given.context] if given.context else [])]
        self.helm = [*file, *(["--kube-context", given.context] if given.context else [])]

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        """Run kubectl there; its output."""
        return run([tool("kubectl"), *self.options, *argv], stdin=stdin)


def run(argv: Sequence[str], *, cwd: Path | None = None, stdin: str | None = None) -> str:
    """Run a command; its output. Ends the benchmark with the command's own words when it fails."""
    done = subprocess.run(
        argv, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=_TIMEOUT, check=False, env=environment()
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, argv))} failed ({done.returncode}):\n{done.stderr or done.stdout}")
    return done.stdout


def environment() -> dict[str, str]:
    """The environment, with the embedded cluster's helm and kubectl where there are no others.

    Where Python is told not to keep compiled modules, each run of a checkout would compile all of them anew;
    what pip installs is compiled, and so is the checkout before the first round (:func:`medians`).
    """
    from sandbox.cluster.providers import embedded_bin_dir

    folder = embedded_bin_dir()
    path = os.environ["PATH"] + (f"{os.pathsep}{folder}" if folder else "")
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PATH": path}


def peak_mb(argv: Sequence[str]) -> float:
    """Largest resident size of a command, in MB."""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, env=environment()) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} failed ({process.returncode})")
    # Linux counts in KiB.
    return usage.ru_maxrss / 1024


def cpu_seconds_below(pid: int) -> float:
    """CPU time of a process and all below it that run now (s)."""
    parents: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The command's name in parentheses may hold spaces; proc(5) counts from 1: ppid is 4, utime 14, stime 15.
            fields = entry.read_bytes().rpartition(b")")[2].split()
            parents[int(entry.parent.name)] = int(fields[1]), int(fields[11]) + int(fields[12])

    def is_below(child: int) -> bool:
        while child in parents and child != pid:
            child = parents[child][0]
        return child == pid

    return sum(ticks for child, (_, ticks) in parents.items() if is_below(child)) / os.sysconf("SC_CLK_TCK")


def tool(name: str) -> str:
    """Path of helm or kubectl, as sandbox itself would choose it."""
    from sandbox.cluster.tools import find_tool

    found = find_tool(name)
    if found is None:
        raise SystemExit(f"{name} is not installed")
    return str(found)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def medians(
    rounds: int,
    product: Callable[[int], object],
    peer: Callable[[int], object],
    *,
    after: Callable[[], object] = lambda: None,
) -> tuple[float, float]:
    """Median seconds of product and peer, run in turns; both get the number of the round.

    Args:
        after: takes away what one of them left behind; not timed.
    """
    _compile_checkout()
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for work, found in zip((product, peer), times, strict=True):
            found.append(seconds(lambda work=work, number=number: work(number)))  # type: ignore[misc]
            after()
    return statistics.median(times[0]), statistics.median(times[1])


@functools.cache
def _compile_checkout() -> None:
    """What pip does for an installed package: else the first round would pay for it."""
    import sandbox

    for folder in sandbox.__path__:
        compileall.compile_dir(folder, quiet=2)


def report(*claims: Claim) -> None:
    """Print the claims; exit code 3 when one is missed."""
    for claim in claims:
        print(claim.line(), flush=True)
    sys.exit(0 if all(claim.ratio <= claim.limit for claim in claims) else 3)

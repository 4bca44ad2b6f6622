"""Whether the failure that was captured shows again: the sandbox is looked at until it does, or is sure not to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sandbox.capture.collect.releases import Deployed
from sandbox.capture.collect.running import Running
from sandbox.capture.model import Document, Signature
from sandbox.capture.services import judge
from sandbox.capture.signature import normalised, same_failure, signature, telling_lines
from sandbox.cluster import pods
from sandbox.cluster.client import Cluster
from sandbox.cluster.readiness import container_statuses, time_of
from sandbox.model.failure import Finding
from sandbox.model.objects import Manifest
from sandbox.model.record import Record
from sandbox.provision.contents import contents_of, list_all

Kind = Literal["same failure", "different failure", "no failure", "nothing to compare", "not known"]

_PAUSE_S = 1.0
_LOG_LINES = 20
# How long all must run well, or fail otherwise, before that is the verdict; more where the captured one ran longer.
_QUIET_S = 15.0
_OTHERWISE_S = 45.0
# The same before a test runs again, which is what tells: as long as a container has to stay up to count as ready.
_SETTLED_S = 3.0
# What a deployment or a test says; nobody sees it by looking at a namespace.
_UNSEEN = frozenset({"TestFailed", "SmokeTestFailed", "DeploymentFailed"})


@dataclass(frozen=True)
class Verdict:
    """What became of the captured failure.

    Attributes:
        captured, found: one line each; ``found`` is empty where nothing fails.
        evidence: the log lines or words that tell.
        after: seconds from the start of the services until it was sure.
    """

    verdict: Kind
    captured: str
    found: str = ""
    evidence: tuple[str, ...] = ()
    after: float = 0.0
    why: str = ""

    @property
    def is_same(self) -> bool:
        return self.verdict == "same failure"


@dataclass(frozen=True)
class Wanted:
    """The captured failure, as far as a namespace shows it.

    Attributes:
        of_command: it is that of a test, which has to run again.
        smoke_of: the service whose smoke test it is, which has to run again too.
        patience: seconds that its container ran before it ended.
    """

    signature: Signature | None
    line: str
    of_command: bool = False
    smoke_of: str = ""
    patience: float = 0.0

    @property
    def unseen(self) -> Wanted:
        """What can be seen of it in a namespace before its test has run again."""
        return replace(self, signature=None) if self.of_command or self.smoke_of else self


def wanted(document: Document, captured_pods: Iterable[Manifest] = ()) -> Wanted:
    """What to look for: the most telling finding that can be seen."""
    findings = [why.finding for why in document.findings]
    first = findings[0] if findings else None
    if first is not None and first.reason in ("TestFailed", "SmokeTestFailed"):
        smoke_of = first.service if first.reason == "SmokeTestFailed" else ""
        own = document.signature or signature(findings)
        return Wanted(own, first.lines()[0], of_command=not smoke_of, smoke_of=smoke_of)
    seen = [f for f in findings if f.reason not in _UNSEEN and not f.reason.startswith("release ")]
    if not seen:
        return Wanted(None, first.lines()[0] if first else "")
    own = document.signature if seen[0] is first else None
    return Wanted(own or signature([seen[0]]), seen[0].lines()[0], patience=_ran_for(seen[0], captured_pods))


def _ran_for(finding: Finding, captured_pods: Iterable[Manifest]) -> float:
    """How long the container that failed had run before it ended."""
    longest = 0.0
    for pod in captured_pods:
        if pod["metadata"]["name"] != finding.pod:
            continue
        for status in container_statuses(pod):
            for state in (status.get("state") or {}, status.get("lastState") or {}):
                ended = state.get("terminated") or {}
                begun, over = time_of(ended.get("startedAt")), time_of(ended.get("finishedAt"))
                if status.get("name") == finding.container and begun and over:
                    longest = max(longest, (over - begun).total_seconds())
    return longest


class Watch:
    """Looks at a sandbox as the capture looked at what it captured."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        record: Record,
        clean: Callable[[str], str],
    ) -> None:
        """
        Args:
            record: of what was deployed: it says which object is of which service.
            clean: makes a text one of the captured place: without new values and names.
        """
        self._cluster = cluster
        self._namespace = namespace
        self._record = record
        self._clean = clean

    async def look(self) -> tuple[list[Finding], bool]:
        """What fails now, most telling first, and whether everything runs."""
        contents, events, now = await asyncio.gather(
            contents_of(self._cluster, self._namespace),
            list_all(self._cluster, "v1", "Event", self._namespace),
            self._cluster.server_time(),
        )
        running = Running(
            pods=[m for m in contents if m["kind"] == "Pod"],
            events=events,
        )
        await self._read_logs(running)
        others = [m for m in contents if m["kind"] != "Pod"]
        judged = judge(others, running, Deployed(record=self._record), now)
        findings = [_cleaned(finding, self._clean) for finding in judged.findings]
        all_run = not findings and all(service.state == "ready" for service in judged.services)
        return findings, all_run

    async def _read_logs(self, running: Running) -> None:
        """The ends of the logs of containers that do not run, or did not."""

        async def read(pod: str, container: str, run: str) -> None:
            lines = await pods.log_tail(
                self._cluster, self._namespace, pod, container, previous=bool(run), lines=_LOG_LINES
            )
            running.tails[(pod, container, run)] = "\n".join(lines)

        await asyncio.gather(
            *(
                read(pod["metadata"]["name"], str(status["name"]), run)
                for pod in running.pods
                for status in container_statuses(pod)
                if not status.get("ready") or status.get("restartCount")
                for run in (("previous", "") if status.get("restartCount") else ("",))
            )
        )


def _cleaned(finding: Finding, clean: Callable[[str], str]) -> Finding:
    return replace(finding, message=clean(finding.message), log_tail=tuple(clean(line) for line in finding.log_tail))


async def judged(
    watch: Watch, target: Wanted, *, bound: float, on_look: Callable[[str], None] = lambda _text: None
) -> Verdict:
    """Look until the captured failure shows, all runs well for long enough, or the time is up.

    Args:
        bound: seconds.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    tested = target.of_command or bool(target.smoke_of)
    quiet = min(bound, _SETTLED_S if tested else max(_QUIET_S, 2 * target.patience + 10))
    otherwise = max(_OTHERWISE_S, 2 * target.patience + 10)
    well_since: float | None = None
    other_since: dict[str, float] = {}
    findings: list[Finding] = []
    while True:
        findings, all_run = await watch.look()
        now = loop.time()
        verdict = _same(findings, target)
        if verdict is not None:
            return replace(verdict, after=round(now - begun, 1))
        well_since = (well_since or now) if all_run else None
        other_since = {f.reason + f.service: other_since.get(f.reason + f.service, now) for f in findings}
        on_look(findings[0].lines()[0] if findings else "all services run" if all_run else "services are starting")
        if well_since is not None and now - well_since >= quiet:
            break
        if target.signature is None and findings:
            break
        if other_since and now - min(other_since.values()) >= otherwise:
            break
        if now - begun >= bound:
            break
        await asyncio.sleep(_PAUSE_S)
    return replace(_other(findings, target, all_run=well_since is not None), after=round(loop.time() - begun, 1))


def _same(findings: Sequence[Finding], target: Wanted) -> Verdict | None:
    for finding in findings:
        found = signature([finding])
        if target.signature is not None and same_failure(target.signature, found) and _tells(target.signature, found):
            return Verdict("same failure", target.line, finding.lines()[0], finding.log_tail or (finding.message,))
    return None


def _tells(captured: Signature, found: Signature | None) -> bool:
    """Whether there is something to compare: a log that is only not there yet would be equal to any."""
    return found is not None and (not captured.log or bool(found.log))


def _other(findings: Sequence[Finding], target: Wanted, *, all_run: bool) -> Verdict:
    if findings:
        first = findings[0]
        evidence = first.log_tail or (first.message,)
        kind: Kind = "different failure" if target.signature is not None else "nothing to compare"
        return Verdict(kind, target.line, first.lines()[0], evidence, why=_why(target))
    if target.signature is None:
        return Verdict("nothing to compare", target.line, why=_why(target))
    if not all_run:
        return Verdict(
            "no failure", target.line, why="not everything was ready when the time was up, and nothing failed"
        )
    return Verdict("no failure", target.line)


def _why(target: Wanted) -> str:
    if target.signature is not None:
        return ""
    return "what failed cannot be seen in a namespace" if target.line else "nothing was failing when it was captured"


def of_findings(findings: Sequence[Finding], target: Wanted, clean: Callable[[str], str]) -> Verdict:
    """The verdict where something has said itself that it fails: a hook, or a smoke test."""
    cleaned = [_cleaned(finding, clean) for finding in findings]
    return _same(cleaned, target) or _other(cleaned, target, all_run=False)


def of_command(
    failed: Finding | None, target: Wanted, clean: Callable[[str], str], *, command: Sequence[str]
) -> Verdict:
    """The verdict where the failure is that of a test which has run again."""
    if failed is None:
        return Verdict("no failure", target.line, evidence=(" ".join(command),), why="the command passed")
    again = _cleaned(failed, clean)
    found = signature([again])
    lines = set(telling_lines(again.log_tail))
    captured = target.signature
    is_same = captured is not None and (same_failure(captured, found) or bool(lines & {*map(normalised, captured.log)}))
    kind: Kind = "same failure" if is_same else "different failure"
    return Verdict(kind, target.line, again.lines()[0], again.log_tail)


def cleaner(values: Collection[tuple[str, str]], namespaces: tuple[str, str]) -> Callable[[str], str]:
    """What takes new values and the new namespace's name out of a text.

    Args:
        values: (value, fingerprint) of what was made up.
        namespaces: the captured one and the sandbox's.
    """
    ordered = sorted(((v, f) for v, f in values if len(v) >= 8), key=lambda one: len(one[0]), reverse=True)
    before, after = namespaces

    def clean(text: str) -> str:
        for value, fingerprint in ordered:
            text = text.replace(value, f"redacted-{fingerprint}")
        return text.replace(after, before)

    return clean


def as_data(verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict": verdict.verdict,
        "captured": verdict.captured,
        "found": verdict.found,
        "evidence": list(verdict.evidence),
        "after": verdict.after,
        "why": verdict.why,
    }

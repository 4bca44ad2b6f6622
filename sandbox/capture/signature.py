"""The signature of a failure: equal for the same failure at another time, in another pod, on another node.

What changes from run to run is taken out of log lines: times, addresses, ids, numbers. What is left of the telling
lines (those with an error in them, else the last ones) is compared as a set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sandbox.capture.model import Signature
from sandbox.model.failure import Finding

_LINES = 8
_LONGEST_LINE = 300
_TELLING = re.compile(
    r"error|exception|fatal|panic|fail|refused|denied|cannot|can't|unable|not found|missing|invalid|timed? ?out|abort"
    r"|traceback|killed|unhandled|segmentation|undefined|no such",
    re.IGNORECASE,
)
# In this order: a time has numbers in it, and an id may look like one.
_CHANGING: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\x1b\[[0-9;]*[A-Za-z]"), ""),
    (
        re.compile(r"\b\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?"),
        "<time>",
    ),
    (re.compile(r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b"), "<time>"),
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), "<id>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "<address>"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b"), "<ip>"),
    (re.compile(r"\bredacted-[0-9a-f]{16}\b"), "<secret>"),
    # Of a pod: the ReplicaSet's hash and the pod's own.
    (re.compile(r"-[bcdf-hj-np-tv-xz2-9]{8,10}-[bcdf-hj-np-tv-xz2-9]{5}\b"), "-<pod>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,64}\b"), "<id>"),
    (re.compile(r"\b\d+(?:\.\d+)?(?=(?:ns|us|µs|ms|s|m|h|KB|MB|GB|Ki|Mi|Gi)\b)"), "<n>"),
    (re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?![\w.-])"), "<n>"),
)


def signature(findings: Sequence[Finding]) -> Signature | None:
    """The signature of the most telling finding; None where nothing is wrong."""
    if not findings:
        return None
    first = findings[0]
    return Signature(
        service=first.service,
        reason=first.reason,
        container=first.container,
        exit_code=first.exit_code,
        log=tuple(telling_lines(first.log_tail or (first.message,))),
    )


def telling_lines(lines: Iterable[str]) -> list[str]:
    """The lines that say what went wrong, normalised, each once; where none does, the last ones."""
    normal = list(dict.fromkeys(text for text in map(normalised, lines) if text))
    return [text for text in normal if _TELLING.search(text)][-_LINES:] or normal[-_LINES:]


def normalised(line: str) -> str:
    """A log line without what changes from run to run; of a line that is normalised already, nothing changes."""
    text = line[: 4 * _LONGEST_LINE]
    for pattern, word in _CHANGING:
        text = pattern.sub(word, text)
    # Whether a line begins with its time depends on who read it: the kubelet can add one, and readers take that away.
    return " ".join(text.split()).removeprefix("<time> ")[:_LONGEST_LINE]


def same_failure(a: Signature | None, b: Signature | None) -> bool:
    """Whether two signatures are of one failure: same service, container, exit code, kind of reason, and a telling
    line in common where both have some."""
    if a is None or b is None:
        return False
    if (a.service, a.container, a.exit_code) != (b.service, b.container, b.exit_code):
        return False
    if _kind(a.reason) != _kind(b.reason):
        return False
    return not a.log or not b.log or not {*map(normalised, a.log)}.isdisjoint(map(normalised, b.log))


def _kind(reason: str) -> str:
    """Reasons that follow one another while the same thing goes wrong."""
    crashes = {"CrashLoopBackOff", "Error", "Completed", "BackoffLimitExceeded"}
    pulls = {"ErrImagePull", "ImagePullBackOff"}
    return "crash" if reason in crashes else "pull" if reason in pulls else reason

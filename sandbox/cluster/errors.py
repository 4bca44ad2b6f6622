"""What the API server answers when it refuses, as named errors.

One error class a kind of refusal, so that callers write ``except NotFound``; each has the exit code of its
base in :mod:`sandbox.model.errors`. The server's own message is always ``why``.

Source of the rules: the API conventions for ``Status``
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#response-status-kind).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from sandbox.model.errors import InvalidInput, OperationFailed, Refused, SandboxError, Unreachable


class FromServer(SandboxError):
    """The API server answered with a refusal.

    Attributes:
        status: HTTP status code.
        reason: ``Status.reason``, such as ``NotFound``; empty where the body was no Status.
        causes: ``Status.details.causes``.
        retry_after: seconds that the server asks to wait, where it does.
    """

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        hint: str = "",
        status: int = 0,
        reason: str = "",
        causes: tuple[Mapping[str, Any], ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.status = status
        self.reason = reason
        self.causes = causes
        self.retry_after = retry_after


class RequestFailed(FromServer, OperationFailed):
    """Any other refusal (400, 405, 406, 413, 415, 500 …)."""


class NotFound(FromServer, OperationFailed):
    """404: no such object, or no such kind of object."""


class Conflict(FromServer, OperationFailed):
    """409: somebody else changed the object meanwhile, or a precondition (uid, resourceVersion) does not hold."""


class FieldConflict(Conflict):
    """409 of a server-side apply without force: other managers own some of the fields."""


class AlreadyExists(FromServer, OperationFailed):
    """409: an object of this name exists."""


class NamespaceTerminating(FromServer, OperationFailed):
    """403: the namespace is being deleted and takes nothing new."""


class Gone(FromServer, OperationFailed):
    """410: the resourceVersion or continue token is too old."""


class Invalid(FromServer, InvalidInput):
    """422: the object does not say what its kind demands."""


class Forbidden(FromServer, Refused):
    """403, or a denial by an admission policy or webhook."""

    @property
    def is_about_rights(self) -> bool:
        """Whether it is the authorizer that refuses, not an admission policy or webhook."""
        return self.status == 403 and not _ADMISSION_DENIAL.search(self.why)


class QuotaExceeded(FromServer, Refused):
    """403: a ResourceQuota or LimitRange of the namespace does not allow it."""


class Unauthorized(FromServer, Unreachable):
    """401: the credentials are missing, wrong or expired."""


class ServerUnavailable(FromServer, Unreachable):
    """The API server does not answer, or says that it cannot now (429, 5xx)."""


class TlsFailure(Unreachable):
    """The server's certificate does not fit, or it refuses ours."""


_HINTS: Mapping[type[SandboxError], str] = {
    Unauthorized: "log in to the cluster again; `kubectl get namespaces` with the same context should work",
    Forbidden: "ask for the right to do this, or see what you may do: `kubectl auth can-i --list`",
    QuotaExceeded: "ask for less (requests, limits, replicas), or choose a larger quota profile",
    NamespaceTerminating: "wait until it is gone, then try again",
    ServerUnavailable: "try again; if it stays so, look after the cluster",
    Conflict: "try again: it is read anew",
}

_ADMISSION_DENIAL = re.compile(r"ValidatingAdmissionPolicy '|admission webhook .* denied the request")
_RULE = "that is a rule of this cluster and no missing right: ask for something else, or whoever runs the cluster"
# As the chart's policy says it (charts/sandbox/templates/admission/namespaces.yaml).
_PREFIX = re.compile(r"namespace must be called ([a-z0-9-]+), followed by")
_SECRET_PATH = re.compile(r"/secrets(?:/|$|\?)")
# Field errors repeat the value that they refuse: `data[x]: Invalid value: "hunter2": …`.
_QUOTED_VALUE = re.compile(r'((?:Invalid|Unsupported|Duplicate) value:\s*)(?:"(?:[^"\\]|\\.)*"|\S+)')


def from_response(status: int, body: bytes, *, method: str, path: str, retry_after: str | None = None) -> FromServer:
    """Make the error that a refusing answer (status ≥ 400) stands for.

    Args:
        status: HTTP status code.
        body: as received; a ``Status`` object in JSON, or any text of a proxy.
        method: HTTP method of the request.
        path: path of the request, without the server.
        retry_after: the header of that name.
    """
    answer = _status_object(body)
    reason = str(answer.get("reason") or "")
    message = str(answer.get("message") or "") or body.decode(errors="replace").strip()[:500] or f"HTTP {status}"
    if _SECRET_PATH.search(path):
        message = hide_values(message)
    details = answer.get("details")
    causes = tuple(c for c in (details.get("causes") or ()) if isinstance(c, Mapping)) if details else ()
    kind = _kind(status, reason, message, causes)
    return kind(
        f"cannot {describe(method, path)}",
        why=message,
        hint=_rule(message) if _ADMISSION_DENIAL.search(message) else _hint(kind),
        status=status,
        reason=reason,
        causes=causes,
        retry_after=_seconds(retry_after, details or {}),
    )


def _rule(message: str) -> str:
    """What to do about a rule of the cluster."""
    if prefix := _PREFIX.search(message):
        return f"give --namespace-prefix {prefix[1]}, or have the chart upgraded: it then says so to everybody's client"
    return _RULE


def _hint(kind: type[FromServer]) -> str:
    return next((_HINTS[base] for base in kind.__mro__ if base in _HINTS), "")


def hide_values(message: str) -> str:
    """A message of field errors, without the values that they refuse."""
    return _QUOTED_VALUE.sub(r"\1(hidden)", message)


def _kind(status: int, reason: str, message: str, causes: tuple[Mapping[str, Any], ...]) -> type[FromServer]:
    cause_reasons = {cause.get("reason") for cause in causes}
    if _ADMISSION_DENIAL.search(message):
        return Forbidden
    if status == 403:
        if "NamespaceTerminating" in cause_reasons or "because it is being terminated" in message:
            return NamespaceTerminating
        if re.search(r"(exceeded|failed) quota:|(maximum|minimum) \S+ usage per ", message):
            return QuotaExceeded
        return Forbidden
    if status == 409:
        if reason == "AlreadyExists":
            return AlreadyExists
        return FieldConflict if "FieldManagerConflict" in cause_reasons else Conflict
    if status in (429, 502, 503, 504) or (status == 500 and reason in ("ServerTimeout", "Timeout")):
        return ServerUnavailable
    return {401: Unauthorized, 404: NotFound, 410: Gone, 422: Invalid}.get(status, RequestFailed)


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _seconds(header: str | None, details: Mapping[str, Any]) -> float | None:
    """How long the server asks to wait; the header may be a date too, which nobody sends here."""
    if header and header.isdecimal():
        return float(header)
    seconds = details.get("retryAfterSeconds")
    return float(seconds) if isinstance(seconds, int) and seconds > 0 else None


_VERBS = {"POST": "create", "PUT": "replace", "PATCH": "change", "DELETE": "delete"}


def describe(method: str, path: str) -> str:
    """Say a request in words: ``create deployments in namespace shop``, ``get pod web-1 …``, ``get /version``."""
    parts = [unquote(part) for part in path.split("?")[0].strip("/").split("/")]
    if parts[:1] == ["api"] and len(parts) > 2:
        rest = parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 3:
        rest = parts[3:]
    else:
        return f"{_VERBS.get(method, 'get')} {path.split('?')[0]}"
    where = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        where, rest = f" in namespace {rest[1]}", rest[2:]
    resource, name, sub = rest[0], "".join(rest[1:2]), "/".join(rest[2:])
    verb = _VERBS.get(method, "get" if name else "list")
    if sub:
        return f"{verb} {sub} of {resource}/{name}{where}"
    return f"{verb} {resource}{'/' + name if name else ''}{where}"

"""Answers of the API server become the right errors, in the server's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox.cluster import errors
from sandbox.model.errors import InvalidInput, Refused, SandboxError, Unreachable

PODS = "/api/v1/namespaces/shop/pods/web-1"


def answer(code: int, reason: str, message: str, **details: Any) -> bytes:
    return json.dumps(
        {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    ).encode()


TERMINATING = 'pods "a" is forbidden: unable to create new content in namespace x because it is being terminated'
QUOTA = 'pods "a" is forbidden: exceeded quota: sandbox, requested: pods=1, used: pods=2, limited: pods=2'
LIMITS = 'pods "a" is forbidden: maximum cpu usage per Container is 1, but limit is 2'
MUST_SPECIFY = 'pods "a" is forbidden: failed quota: sandbox: must specify limits.cpu for: web'
POLICY = "ValidatingAdmissionPolicy 'sandbox' with binding 'b' denied request: a sandbox needs an expiry"


@pytest.mark.parametrize(
    ("code", "reason", "message", "details", "expected", "exit_code"),
    [
        (404, "NotFound", "gone", {}, errors.NotFound, 1),
        (401, "Unauthorized", "Unauthorized", {}, errors.Unauthorized, 5),
        (403, "Forbidden", "no", {}, errors.Forbidden, 4),
        (403, "Forbidden", QUOTA, {}, errors.QuotaExceeded, 4),
        (403, "Forbidden", LIMITS, {}, errors.QuotaExceeded, 4),
        (403, "Forbidden", MUST_SPECIFY, {}, errors.QuotaExceeded, 4),
        (403, "Forbidden", TERMINATING, {}, errors.NamespaceTerminating, 1),
        (403, "Forbidden", "x", {"causes": [{"reason": "NamespaceTerminating"}]}, errors.NamespaceTerminating, 1),
        (409, "AlreadyExists", "exists", {}, errors.AlreadyExists, 1),
        (409, "Conflict", "modified", {}, errors.Conflict, 1),
        (409, "Conflict", "a", {"causes": [{"reason": "FieldManagerConflict"}]}, errors.FieldConflict, 1),
        (410, "Expired", "too old", {}, errors.Gone, 1),
        (422, "Invalid", "spec: Required value", {}, errors.Invalid, 2),
        (422, "Invalid", POLICY, {}, errors.Forbidden, 4),
        (400, "BadRequest", 'admission webhook "a.b" denied the request: no', {}, errors.Forbidden, 4),
        (400, "BadRequest", "bad", {}, errors.RequestFailed, 1),
        (429, "TooManyRequests", "slow down", {}, errors.ServerUnavailable, 5),
        (503, "ServiceUnavailable", "starting", {}, errors.ServerUnavailable, 5),
        (500, "ServerTimeout", "etcd", {}, errors.ServerUnavailable, 5),
        (500, "InternalError", "boom", {}, errors.RequestFailed, 1),
    ],
)
def test_the_kind_of_error_follows_status_reason_and_message(
    code: int, reason: str, message: str, details: dict[str, Any], expected: type[SandboxError], exit_code: int
) -> None:
    error = errors.from_response(code, answer(code, reason, message, **details), method="POST", path=PODS)
    assert type(error) is expected
    assert error.why == message
    assert error.exit_code == exit_code
    assert error.status == code


def test_a_rule_of_the_cluster_is_not_told_as_a_missing_right() -> None:
    denied, rightless = (
        errors.from_response(403, answer(403, "Forbidden", text), method="POST", path="/api/v1/namespaces")
        for text in (POLICY, 'User "dana" cannot create resource "namespaces"')
    )
    assert "rule of this cluster" in denied.hint
    assert "ask for the right" in rightless.hint
    assert isinstance(denied, errors.Forbidden)
    assert isinstance(rightless, errors.Forbidden)
    assert (denied.is_about_rights, rightless.is_about_rights) == (False, True)


def test_bases_let_callers_catch_by_meaning() -> None:
    assert issubclass(errors.QuotaExceeded, Refused)
    assert issubclass(errors.ServerUnavailable, Unreachable)
    assert issubclass(errors.Invalid, InvalidInput)


@pytest.mark.parametrize("body", [b"", b"<html>502 Bad Gateway</html>", b"[1]", b'"x"', b"\xff\xfe"])
def test_an_answer_that_is_no_status_is_said_as_it_is(body: bytes) -> None:
    error = errors.from_response(502, body, method="GET", path="/version")
    assert isinstance(error, errors.ServerUnavailable)
    assert error.why


def test_values_of_secrets_are_hidden_in_refusals() -> None:
    message = 'Secret "a" is invalid: data[x]: Invalid value: "hunter2": no, type: Unsupported value: "hunter2"'
    path = "/api/v1/namespaces/shop/secrets/a"
    error = errors.from_response(422, answer(422, "Invalid", message), method="PATCH", path=path)
    assert "hunter2" not in str(error)
    assert 'Secret "a" is invalid: data[x]' in error.why


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/version", "get /version"),
        ("GET", "/api/v1/namespaces", "list namespaces"),
        ("GET", "/api/v1/namespaces/shop", "get namespaces/shop"),
        ("POST", "/api/v1/namespaces", "create namespaces"),
        ("PATCH", "/apis/apps/v1/namespaces/shop/deployments/web", "change deployments/web in namespace shop"),
        ("GET", "/api/v1/namespaces/shop/pods/web-1/log?tail=1", "get log of pods/web-1 in namespace shop"),
        ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
        ("DELETE", "/apis/a.b/v1/namespaces/shop/things/x%2Fy", "delete things/x/y in namespace shop"),
    ],
)
def test_requests_are_said_in_words(method: str, path: str, expected: str) -> None:
    assert errors.describe(method, path) == expected


@pytest.mark.parametrize(("header", "details", "expected"), [("3", {}, 3.0), (None, {"retryAfterSeconds": 7}, 7.0)])
def test_the_time_to_wait_is_read(header: str | None, details: dict[str, Any], expected: float) -> None:
    body = answer(429, "TooManyRequests", "slow", **details)
    assert errors.from_response(429, body, method="GET", path=PODS, retry_after=header).retry_after == expected


def test_a_prefix_that_the_cluster_wants_is_told_as_a_setting() -> None:
    said = (
        "namespaces \"dana-shop\" is forbidden: ValidatingAdmissionPolicy 'sandbox-namespaces' with binding 'x' denied "
        "request: a sandbox's namespace must be called sbx-, followed by what its label sandbox.dev/name says"
    )
    body = json.dumps({"kind": "Status", "reason": "Forbidden", "message": said}).encode()
    error = errors.from_response(403, body, method="POST", path="/api/v1/namespaces")
    assert error.hint.startswith("give --namespace-prefix sbx-, or have the chart upgraded")

"""Failures are told from one another, and known again."""

from __future__ import annotations

import pytest

from sandbox.capture.signature import normalised, same_failure, signature, telling_lines
from sandbox.model.failure import Finding

RUNS = [
    "2026-11-22T15:43:13.123Z ERROR [worker-3] order 4711 failed: connect 10.0.3.17:5432 refused (0x7f3a) after 30s",
    "2026-11-23 09:01:59,001 ERROR [worker-3] order 12 failed: connect 10.0.9.2:5432 refused (0x1) after 31s",
]


def test_the_same_line_at_another_time_is_the_same() -> None:
    assert normalised(RUNS[0]) == normalised(RUNS[1])
    assert "failed: connect <ip> refused" in normalised(RUNS[0])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("pod orders-5fcb548959-kzpw5 gone", "pod orders-7d8f9c6b54-x2x4z gone"),
        ("request 550e8400-e29b-41d4-a716-446655440000 failed", "request 123e4567-e89b-12d3-a456-426614174000 failed"),
        ("commit 3c2dd8f35b3a", "commit 9f86d081884c"),
        ("password redacted-5ee7e4768db5560b", "password redacted-0123456789abcdef"),
        ("\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_what_changes_from_run_to_run_is_left_out(a: str, b: str) -> None:
    assert normalised(a) == normalised(b)


@pytest.mark.parametrize(("a", "b"), [("no table orders", "no table carts"), ("KeyError: 'a'", "KeyError: 'b'")])
def test_what_differs_stays_different(a: str, b: str) -> None:
    assert normalised(a) != normalised(b)


def test_the_telling_lines_are_those_with_an_error() -> None:
    lines = ["starting", "listening on 8080", "Traceback (most recent call last):", "KeyError: 'DATABASE_URL'", "bye"]
    assert telling_lines(lines) == ["Traceback (most recent call last):", "KeyError: 'DATABASE_URL'"]
    assert telling_lines(["one", "two"]) == ["one", "two"]


def crash(log: str, reason: str = "CrashLoopBackOff", service: str = "web", code: int = 1) -> Finding:
    return Finding(reason, "", "pod/web-1", service, "web-1", "main", code, (log,))


def test_a_failure_is_known_again() -> None:
    first = signature([crash(RUNS[0])])
    assert same_failure(first, signature([crash(RUNS[1], reason="Error")]))
    assert not same_failure(first, signature([crash("KeyError: 'x'")]))
    assert not same_failure(first, signature([crash(RUNS[0], service="orders")]))
    assert not same_failure(first, signature([crash(RUNS[0], code=137)]))
    assert not same_failure(first, signature([crash(RUNS[0], reason="OOMKilled")]))
    assert signature([]) is None
    assert not same_failure(first, None)


def test_a_time_before_a_line_makes_no_difference() -> None:
    said = 'migrate FATAL column "customer_mail" does not exist'

    def found(line: str) -> Finding:
        return Finding("Error", "", "pod/x", service="orders", container="migrate", exit_code=1, log_tail=(line,))

    plain = signature([found(said)])
    assert plain is not None
    assert same_failure(signature([found(f"2026-11-22T20:40:11Z {said}")]), plain)
    # As captures of before have it.
    assert same_failure(plain.model_copy(update={"log": (f"<time> {said}",)}), plain)


@pytest.mark.parametrize("line", RUNS)
def test_what_is_normalised_stays_as_it_is(line: str) -> None:
    assert normalised(normalised(line)) == normalised(line)

"""What sandboxes use of their quotas: together, and which are idle; and how it is shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from sandbox.cli.commands.quota import _bar
from sandbox.model.quantities import parse_quantity, plain_quantity
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.provision.usage import ResourceUse, SandboxUse, grouped, idleness

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
NAMESPACE = {
    "metadata": {
        "name": "dana-shop-main",
        "labels": {"sandbox.dev/project": "shop"},
        "annotations": {"sandbox.dev/owner-user": "dana@example.com", "sandbox.dev/phase": "Ready"},
    }
}
SANDBOX = Sandbox.of(NAMESPACE, "here")


def use(owner: str, idle: str = "", **used: tuple[int, int]) -> SandboxUse:
    resources = tuple(ResourceUse(name, Decimal(a), Decimal(b)) for name, (a, b) in used.items())
    return SandboxUse(replace(SANDBOX, owner=owner), resources, idle)


def test_usage_is_added_up_by_owner() -> None:
    uses = [use("sam", pods=(1, 5)), use("dana", "asleep", pods=(2, 5), secrets=(3, 9))]
    uses += [use("dana", pods=(4, 20)), use("x")]
    dana, sam, nobody = grouped(uses, "owner")
    assert (dana.name, dana.sandboxes, dana.idle) == ("dana", 2, 1)
    assert [(r.resource, r.used, r.hard) for r in dana.resources] == [
        ("pods", Decimal(6), Decimal(25)),
        ("secrets", Decimal(3), Decimal(9)),
    ]
    assert (sam.name, sam.resources[0].share) == ("sam", 0.2)
    assert nobody.resources == ()
    assert [group.name for group in grouped(uses, "project")] == ["shop"]


@pytest.mark.parametrize(
    ("phase", "age", "said"),
    [
        (Phase.READY, timedelta(hours=23), ""),
        (Phase.READY, timedelta(days=1, hours=2), "no deployment for 1d2h"),
        (Phase.SLEEPING, timedelta(0), "asleep"),
    ],
)
def test_idle_is_who_sleeps_and_who_is_left_alone(phase: Phase, age: timedelta, said: str) -> None:
    assert idleness(replace(SANDBOX, phase=phase), NOW - age, NOW, timedelta(days=1)) == said


def test_when_nobody_knows_of_a_deployment_nothing_is_called_idle() -> None:
    assert idleness(SANDBOX, None, NOW, timedelta(days=1)) == ""


def test_the_fullest_resource_is_the_one_with_the_largest_share() -> None:
    found = use("dana", pods=(9, 10), memory=(1, 100), services=(0, 0)).fullest
    assert found is not None
    assert found.resource == "pods"
    assert use("dana").fullest is None


@pytest.mark.parametrize(
    ("used", "hard", "shown"),
    [(0, 10, "░" * 10 + " 0%"), (4, 10, "████░░░░░░ 40%"), (30, 10, "█" * 10 + " 300%"), (0, 0, "░" * 10 + " 0%")],
)
def test_bars(monkeypatch: pytest.MonkeyPatch, used: int, hard: int, shown: str) -> None:
    monkeypatch.setattr("sandbox.cli.output.can_show", lambda _text: True)
    assert _bar(ResourceUse("pods", Decimal(used), Decimal(hard))) == shown
    monkeypatch.setattr("sandbox.cli.output.can_show", lambda _text: False)
    assert _bar(ResourceUse("pods", Decimal(used), Decimal(hard))) == shown.replace("█", "#").replace("░", "-")


@pytest.mark.parametrize(("text", "plain"), [("1.5", "1500m"), ("2", "2"), ("32Mi", str(32 * 2**20)), ("0", "0")])
def test_quantities_in_data_are_exact(text: str, plain: str) -> None:
    assert plain_quantity(parse_quantity(text)) == plain
    assert parse_quantity(plain) == parse_quantity(text)

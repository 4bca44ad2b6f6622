"""`sandbox extend`, `pin`, `unpin` and `list --expiring`, on a real API server."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from sandbox.cli.reporter import PlainReporter
from sandbox.cluster.client import Cluster
from sandbox.cluster.providers import ClusterInfo
from sandbox.lifecycle import expiry as expiry_module
from sandbox.model import labels
from sandbox.model.durations import from_rfc3339, to_rfc3339
from sandbox.model.errors import Refused
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.provision import down as down_module
from sandbox.provision import namespace as namespaces
from sandbox.provision.down import DownResult
from sandbox.provision.target import Target
from tests.conftest import kubectl
from tests.e2e.handmade import Group, group_on
from tests.e2e.preloaded import Preloaded
from tests.e2e.projects import Tool

HOUR = timedelta(hours=1)
# A command takes seconds; times are whole ones.
NEAR = timedelta(seconds=60)


@pytest.fixture(scope="module")
def tool(control_plane: ClusterInfo, preloaded: Preloaded, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """The command, on the cluster without nodes."""
    return Tool(control_plane, tmp_path_factory.mktemp("home"), preloaded)


@pytest.fixture(scope="module")
def group(control_plane: ClusterInfo) -> Iterator[Group]:
    with group_on(control_plane) as made:
        yield made


def expiry(group: Group, name: str) -> datetime:
    return from_rfc3339(group.annotations(name)[labels.EXPIRES_AT])


def from_now(when: datetime) -> timedelta:
    return when - datetime.now(UTC)


def test_an_extension_counts_from_now(tool: Tool, group: Group) -> None:
    name = group.name("extended")
    group.make(name, HOUR)

    ended = tool.run("extend", name, "4h", "-o", "json").ok()

    assert abs(from_now(expiry(group, name)) - 4 * HOUR) < NEAR
    assert group.annotations(name)[labels.TTL] == "4h"
    (said,) = ended.data
    assert said["changed"] is True
    assert said["expires_at"] == to_rfc3339(expiry(group, name))


def test_an_extension_never_shortens(tool: Tool, group: Group) -> None:
    name = group.name("longer")
    group.make(name, 8 * HOUR)
    before = expiry(group, name)

    ended = tool.run("extend", name, "10m").ok()

    assert expiry(group, name) == before
    assert "needed no change" in ended.err
    assert f"it lives until {to_rfc3339(before)} anyway" in ended.err


def test_an_expired_sandbox_that_is_still_there_can_be_extended(tool: Tool, group: Group) -> None:
    name = group.name("late")
    group.make(name, -HOUR)

    tool.run("extend", name, "2h").ok()

    assert abs(from_now(expiry(group, name)) - 2 * HOUR) < NEAR


def test_a_broken_expiry_is_mended(tool: Tool, group: Group) -> None:
    for number, text in enumerate(("soon", None)):
        name = group.name(f"broken-{number}")
        group.make(name, annotations={labels.EXPIRES_AT: text})
        tool.run("extend", name, "2h").ok()
        assert abs(from_now(expiry(group, name)) - 2 * HOUR) < NEAR


def test_nobody_gets_past_the_latest_end(tool: Tool, group: Group) -> None:
    name = group.name("bounded")
    latest = to_rfc3339(datetime.now(UTC) + 6 * HOUR)
    group.make(name, HOUR, annotations={labels.MAX_EXPIRES_AT: latest, labels.QUOTA_PROFILE: "small"})
    before = group.annotations(name)

    tool.run("extend", name, "7h").failed(4, latest, "small")
    tomorrow = to_rfc3339(datetime.now(UTC) + 24 * HOUR)
    tool.run("pin", name, "--until", tomorrow, "--reason", "demo").failed(
        4, f"pin it with --until {latest} at the latest"
    )
    assert group.annotations(name) == before
    tool.run("extend", name, "5h").ok()


@pytest.mark.parametrize("text", ["0", "0h", "100y", "4", "-4h", "forever"])
def test_what_is_no_duration_is_refused(tool: Tool, group: Group, text: str) -> None:
    tool.run("extend", "--", group.name("none"), text).failed(2, "duration")
    tool.run("extend", group.name("none"), "10s").failed(2, "too short", "5m")


def test_a_dry_run_changes_nothing(tool: Tool, group: Group) -> None:
    name = group.name("dry")
    group.make(name, HOUR)
    before = group.get(name)

    (said,) = tool.run("extend", name, "4h", "--dry-run", "-o", "json").ok().data
    assert abs(from_now(from_rfc3339(said["expires_at"])) - 4 * HOUR) < NEAR
    tool.run("pin", name, "--until", "2099-01-01", "--reason", "x", "--dry-run").failed(2, "year")

    assert group.get(name) == before


def test_one_that_is_being_deleted_is_not_extended(tool: Tool, group: Group) -> None:
    name = group.name("ending")
    group.make(name, HOUR)
    held = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": name, "finalizers": ["example.com/hold"]},
    }
    kubectl(group.cluster, "create", "-f", "-", stdin=json.dumps(held))
    kubectl(group.cluster, "delete", "namespace", name, "--wait=false")
    try:
        tool.run("extend", name, "4h").failed(1, "too late", "being deleted")
        day = to_rfc3339(datetime.now(UTC) + 24 * HOUR)
        tool.run("pin", name, "--until", day, "--reason", "demo").failed(1, "too late")
        tool.run("unpin", name).failed(1, "too late")
    finally:
        patch = '{"metadata":{"finalizers":null}}'
        kubectl(group.cluster, "-n", name, "patch", "configmap", "held", "--type=merge", "-p", patch)


def test_one_that_cannot_be_extended_stops_no_other(tool: Tool, group: Group) -> None:
    fine, bounded = group.name("fine"), group.name("stuck")
    group.make(fine, HOUR)
    latest = to_rfc3339(datetime.now(UTC) + 2 * HOUR)
    group.make(bounded, HOUR, annotations={labels.MAX_EXPIRES_AT: latest})

    ended = tool.run("extend", bounded, fine, "4h", "-o", "name").failed(4, latest)

    assert ended.out.split() == [fine]
    assert abs(from_now(expiry(group, fine)) - 4 * HOUR) < NEAR


def test_without_a_platform_the_profile_of_the_last_deployment_bounds_an_extension(tool: Tool, group: Group) -> None:
    name = group.name("bounded-at-once")
    group.make(name, HOUR, annotations={labels.MAX_TTL: "3h", labels.QUOTA_PROFILE: "small"})
    before = group.annotations(name)

    tool.run("extend", name, "4h").failed(4, "small allows 3h (maxTTL)", "sandbox pin")
    assert group.annotations(name) == before
    tool.run("extend", name, "3h").ok()


@pytest.mark.parametrize("command", ["sleep", "wake"])
def test_one_that_cannot_sleep_or_wake_stops_no_other(tool: Tool, group: Group, command: str) -> None:
    fine, busy = group.name(f"fine-{command}"), group.name(f"busy-{command}")
    for name in (fine, busy):
        group.make(name, HOUR, annotations={labels.PHASE: "Ready" if command == "sleep" else "Sleeping"})
    held = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": labels.LEASE_NAME, "namespace": busy},
        "spec": {
            "holderIdentity": "elsewhere_1_1",
            "leaseDurationSeconds": 30,
            "renewTime": (datetime.now(UTC) + HOUR).strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
        },
    }
    kubectl(group.cluster, "create", "-f", "-", stdin=json.dumps(held))

    ended = tool.run(command, busy, fine, "-o", "name").failed(7, "elsewhere_1_1")

    assert ended.out.split() == [fine]
    assert group.annotations(fine)[labels.PHASE] == ("Sleeping" if command == "sleep" else "Ready")


def test_a_pin_keeps_a_sandbox_until_it_ends(tool: Tool, group: Group) -> None:
    name = group.name("pinned")
    group.make(name, -HOUR)
    until = to_rfc3339(datetime.now(UTC) + 72 * HOUR)

    tool.run("pin", name, "--until", until, "--reason", "demo on Friday").ok()

    note = group.annotations(name)
    assert note[labels.PINNED_UNTIL] == until
    assert note[labels.PINNED_BY]
    (listed,) = tool.run("list", "-l", f"{labels.NAME}={name}", "-o", "json").ok().data
    assert (listed["expires_at"], listed["pin_reason"]) == (until, "demo on Friday")
    assert "demo on Friday" in tool.run("status", name).ok().out

    ended = tool.run("unpin", name, "-o", "json").ok()
    assert labels.PINNED_UNTIL not in group.annotations(name)
    assert labels.PIN_REASON not in group.annotations(name)
    # It had expired an hour ago; its owner gets the time to say otherwise.
    left = from_now(from_rfc3339(ended.data[0]["expires_at"]))
    assert timedelta(minutes=28) < left <= timedelta(minutes=31)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--until", "2020-01-01", "--reason", "x"), "has passed"),
        (("--until", "soon", "--reason", "x"), "a duration (3d, 2w)"),
        (("--until", "2099-01-01", "--reason", "x"), "year"),
        (("--until", "2030-01-01", "--reason", " "), "reason"),
        (("--until", "2030-01-01"), "--reason"),
        (("--reason", "x"), "--until"),
    ],
)
def test_a_pin_says_until_when_and_why(tool: Tool, group: Group, arguments: tuple[str, ...], says: str) -> None:
    name = group.name("unpinned")
    if group.get(name) is None:
        group.make(name, HOUR)

    tool.run("pin", name, *arguments).failed(2, says)

    assert labels.PINNED_UNTIL not in group.annotations(name)


def test_a_pin_that_adds_nothing_says_so(tool: Tool, group: Group) -> None:
    name = group.name("long")
    group.make(name, 8 * HOUR)

    ended = tool.run("pin", name, "--until", "2h", "--reason", "demo").ok()

    assert "adds nothing" in ended.err
    assert to_rfc3339(expiry(group, name)) in ended.err
    assert "adds nothing" not in tool.run("pin", name, "--until", "2d", "--reason", "demo").ok().err


@pytest.mark.parametrize(
    ("left", "latest", "ends_in"),
    [(HOUR, None, 8 * HOUR), (HOUR, 3 * HOUR, 3 * HOUR), (20 * HOUR, None, 20 * HOUR), (HOUR, -HOUR, HOUR)],
)
async def test_the_time_to_live_counts_from_the_end_of_a_deployment(
    group: Group, left: timedelta, latest: timedelta | None, ends_in: timedelta
) -> None:
    begun = {labels.PHASE: "Provisioning", labels.AWAKE: "Ready"}
    if latest is not None:
        begun[labels.MAX_EXPIRES_AT] = to_rfc3339(datetime.now(UTC) + latest)
    name = group.name(f"deployed-{ends_in.seconds}-{latest is not None}".lower())
    await asyncio.to_thread(group.make, name, left, annotations=begun)

    async with Cluster.connect(group.cluster.context, group.cluster.kubeconfig) as connection:
        await namespaces.finish(connection, name, Phase.READY)

    note = await asyncio.to_thread(group.annotations, name)
    assert (note[labels.PHASE], labels.AWAKE in note) == ("Ready", False)
    assert abs(from_now(from_rfc3339(note[labels.EXPIRES_AT])) - ends_in) < NEAR


def test_what_dies_next(tool: Tool, group: Group) -> None:
    tomorrow = to_rfc3339(datetime.now(UTC) + 24 * HOUR)
    group.make(group.name("next-hour"), HOUR, label={"next": "yes"})
    group.make(group.name("next-day"), 24 * HOUR, label={"next": "yes"})
    group.make(group.name("overdue"), -HOUR, label={"next": "yes"})
    group.make(group.name("kept"), HOUR, label={"next": "yes"}, annotations={labels.PINNED_UNTIL: tomorrow})

    selector = f"{group.selector},next=yes"
    listed = tool.run("list", "-l", selector, "--expiring", "2h", "--sort-by", "expires", "-o", "name").ok().out

    assert listed.split() == [group.name("overdue"), group.name("next-hour")]


def test_all_of_one_owner_go(tool: Tool, group: Group) -> None:
    mine, other = f"{group.project}-owner@example.com", f"{group.project}-owner@example.org"
    provisioning = {labels.PHASE: "Provisioning"}
    short = mine.partition("@")[0]
    for number in (1, 2):
        group.make(group.name(f"mine-{number}"), owner=mine, annotations=provisioning, record=False)
    # The label is the same slug; the annotation says that it is somebody else.
    group.make(group.name("other"), owner=other, annotations=provisioning, record=False)
    before = group.alive()

    tool.run("down", "--all", "--yes").failed(2, "whose")
    tool.run("down", "--all", "--owner", mine).failed(2, "--yes", group.name("mine-1"), group.name("mine-2"))
    tool.run("down", "--all", "--owner", mine, "--dry-run").ok()
    assert group.alive() == before
    tool.run("down", "--all", "--owner", mine, "--yes", "--no-wait").ok()

    assert before - group.alive() == {group.name("mine-1"), group.name("mine-2")}
    assert f"no sandboxes of {short}-x" in tool.run("down", "--all", "--owner", f"{short}-x", "--yes").ok().err


async def test_the_volumes_that_stay_are_listed_once_for_all_that_goes(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [group.name(f"once-{number}") for number in range(3)]
    for name in names:
        note = {labels.PHASE: "Provisioning"}
        await asyncio.to_thread(group.make, name, annotations=note, record=False)
    lists = 0

    async def listed(cluster: Cluster) -> dict[str, list[str]]:
        nonlocal lists
        lists += 1
        return {names[1]: ["pv-7 (of its data)"]}

    monkeypatch.setattr(down_module, "retained", listed)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        where = Target(group.cluster.context, group.cluster.kubeconfig)
        ended = await down_module.down(where, names, reporter=PlainReporter(), wait=False)

    assert [isinstance(one, DownResult) and one.deleted for one in ended] == [True] * 3
    assert lists == 1
    assert said.getvalue().count("pv-7 (of its data)") == 1


PLATFORM = """\
profiles:
  tiny: {resourceQuota: {pods: "5"}, maxTTL: 8h}
"""


@pytest.mark.parametrize(("hours", "profile", "allowed"), [(8, "tiny", True), (9, "tiny", False), (9, "other", True)])
async def test_an_extension_is_no_longer_than_the_platforms_profile_allows_at_once(
    group: Group, monkeypatch: pytest.MonkeyPatch, hours: int, profile: str, allowed: bool
) -> None:
    # The configuration is one for the whole cluster, which other tests share.
    async def configured(_: Cluster) -> str:
        return PLATFORM

    monkeypatch.setattr(expiry_module, "read_platform", configured)
    made = await asyncio.to_thread(
        group.make, group.name(f"ttl-{profile}-{hours}"), HOUR, annotations={labels.QUOTA_PROFILE: profile}
    )
    async with Cluster.connect(group.cluster.context, group.cluster.kubeconfig) as connection:
        wanted = expiry_module.extend(connection, Sandbox.of(made, connection.context), hours * HOUR)
        if allowed:
            assert (await wanted).changed
        else:
            with pytest.raises(Refused, match="8h"):
                await wanted

"""``sandbox extend``, ``pin`` and ``unpin``: moving the end of a sandbox.

Each change is made on the version of the namespace that was looked at, so that it and the clean-up cannot both
win: whoever comes second sees what the first one did, decides anew, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Conflict, NotFound
from sandbox.cluster.platform import read_platform
from sandbox.model import labels
from sandbox.model.deadline import deadline, pin_end
from sandbox.model.durations import format_duration, from_rfc3339, parse_duration, relative, to_rfc3339
from sandbox.model.errors import Busy, InvalidInput, OperationFailed, Refused
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.project.platform import parse_platform

# How much time is left, at the least, to somebody who takes a pin off.
UNPIN_GRACE = timedelta(minutes=30)
# Namespaces change rarely; more changes than this under our hands are a fight.
_TRIES = 8

Annotations = Mapping[str, str]
# From the annotations and the server's time: what to change (None removes); empty: nothing.
Change = Callable[[Annotations, datetime], Mapping[str, str | None]]


@dataclass(frozen=True)
class Moved:
    """What became of a sandbox's end. ``sandbox`` is as the server has it now (as it would be, in a dry run).

    Attributes:
        changed: False where it ended as late, or later, already.
        now: the server's time.
        note: what its owner might not expect of it.
    """

    sandbox: Sandbox
    changed: bool
    now: datetime
    note: str = ""


async def extend(cluster: Cluster, sandbox: Sandbox, ttl: timedelta, *, dry_run: bool = False) -> Moved:
    """Let a sandbox live for ``ttl`` from now on; one that lives longer already stays as it is.

    Raises:
        OperationFailed: it is gone or being deleted; the extension came too late.
        Refused: that is after the latest end that its quota profile allows, or longer than that allows at once.
        Busy: others change the namespace all the time.
    """
    decided = parse_platform(await read_platform(cluster)).profiles.get(sandbox.quota_profile)

    def change(annotations: Annotations, now: datetime) -> Mapping[str, str | None]:
        _check_ttl(sandbox, ttl, decided.max_ttl if decided else annotations.get(labels.MAX_TTL))
        end, before = now + ttl, deadline(annotations)
        _check_allowed(sandbox, annotations, end, "extend it by less; {again}")
        if before.at is not None and before.at >= end:
            return {}
        return {labels.EXPIRES_AT: to_rfc3339(end), labels.TTL: format_duration(ttl)}

    moved = await _move(cluster, sandbox, change, dry_run=dry_run)
    end = moved.sandbox.expires_at
    if moved.changed or end is None:
        return moved
    why = "by its pin" if moved.sandbox.pinned_until else "by its last deployment or extension"
    return replace(moved, note=f"it lives until {to_rfc3339(end)} anyway ({relative(end, moved.now)}), {why}")


async def pin(cluster: Cluster, sandbox: Sandbox, until: str, reason: str, by: str, *, dry_run: bool = False) -> Moved:
    """Keep a sandbox until a time, whatever its expiry says.

    Args:
        until: a date, a duration or RFC 3339 (:func:`sandbox.model.deadline.pin_end`).
        reason: why; it is shown to everybody.
        by: the user who does it.

    Raises:
        InvalidInput: ``until`` is no time to come within a year.
        as :func:`extend`.
    """

    def change(annotations: Annotations, now: datetime) -> Mapping[str, str | None]:
        end = pin_end(until, now)
        _check_allowed(sandbox, annotations, end, "pin it with --until {latest} at the latest; {again}")
        return {labels.PINNED_UNTIL: to_rfc3339(end), labels.PIN_REASON: reason, labels.PINNED_BY: by}

    moved = await _move(cluster, sandbox, change, dry_run=dry_run)
    if moved.sandbox.pinned_until is None and moved.sandbox.expires_at is not None:
        end = pin_end(until, moved.now)
        note = (
            f"it lives until {to_rfc3339(moved.sandbox.expires_at)} anyway; a pin until {to_rfc3339(end)} adds nothing"
        )
        return replace(moved, note=note)
    return moved


async def unpin(cluster: Cluster, sandbox: Sandbox, *, dry_run: bool = False) -> Moved:
    """Take the pin off. Its expiry counts again, but is at least half an hour away: time to extend it.

    Raises:
        as :func:`extend`.
    """

    def change(annotations: Annotations, now: datetime) -> Mapping[str, str | None]:
        if labels.PINNED_UNTIL not in annotations:
            return {}
        pins = (labels.PINNED_UNTIL, labels.PIN_REASON, labels.PINNED_BY)
        without = {name: text for name, text in annotations.items() if name not in pins}
        gone: dict[str, str | None] = {name: None for name in pins if name in annotations}
        left = deadline(without).at
        if left is not None and left < now + UNPIN_GRACE:
            latest = _latest(annotations)
            end = now + UNPIN_GRACE if latest is None else min(now + UNPIN_GRACE, latest)
            gone[labels.EXPIRES_AT] = to_rfc3339(end)
        return gone

    return await _move(cluster, sandbox, change, dry_run=dry_run)


def _check_ttl(sandbox: Sandbox, ttl: timedelta, most: str | None) -> None:
    """Hold an extension against its quota profile, which nobody else does: admission sees the end only.

    Args:
        most: as the platform's profile says it now, else as its last deployment wrote it down.
    """
    try:
        longest = parse_duration(most) if most else None
    except InvalidInput:
        # Somebody wrote it by hand; it is for them that it is there.
        longest = None
    if longest is not None and ttl > longest:
        raise Refused(
            f"{sandbox.name} may not be extended by {format_duration(ttl)} at once",
            why=f"its quota profile {sandbox.quota_profile} allows {most} (maxTTL)",
            hint="extend it by less, and again when that has passed; `sandbox pin` keeps it until a date",
        )


def _check_allowed(sandbox: Sandbox, annotations: Annotations, end: datetime, hint: str) -> None:
    """Refuse an end after the latest one.

    Args:
        hint: what to do instead; may name ``{latest}`` and ``{again}``, how to begin anew.
    """
    latest = _latest(annotations)
    if latest is not None and end > latest:
        raise Refused(
            f"{sandbox.name} may not live until {to_rfc3339(end)}",
            why=f"its quota profile {annotations.get(labels.QUOTA_PROFILE, '')} lets it live until "
            f"{to_rfc3339(latest)} at the latest ({labels.MAX_EXPIRES_AT})",
            hint=hint.format(
                latest=to_rfc3339(latest), again="a new sandbox (`sandbox down`, then `sandbox up`) starts anew"
            ),
        )


def _latest(annotations: Annotations) -> datetime | None:
    text = annotations.get(labels.MAX_EXPIRES_AT)
    try:
        return from_rfc3339(text) if text is not None else None
    except InvalidInput as error:
        raise Refused(
            "nobody can say how long this sandbox may live", why=f"{labels.MAX_EXPIRES_AT}: {error.what}"
        ) from None


async def _move(cluster: Cluster, sandbox: Sandbox, change: Change, *, dry_run: bool) -> Moved:
    ref = ObjectRef("", "v1", "Namespace", sandbox.namespace)
    for _ in range(_TRIES):
        found = await objects.get(cluster, ref)
        now = await cluster.server_time()
        _check_alive(sandbox, found)
        assert found is not None
        annotations = found["metadata"].get("annotations") or {}
        wanted = change(annotations, now)
        if not wanted:
            return Moved(Sandbox.of(found, cluster.context), changed=False, now=now)
        try:
            answer = await objects.patch_merge(
                cluster,
                ref,
                {"metadata": {"annotations": dict(wanted)}},
                resource_version=found["metadata"]["resourceVersion"],
                dry_run=dry_run,
            )
        except Conflict:
            # Somebody was faster; what they did decides, so look again.
            continue
        except NotFound:
            answer = None
        # A PATCH on a namespace that is being deleted succeeds: only the answer tells.
        _check_alive(sandbox, answer)
        assert answer is not None
        return Moved(Sandbox.of(answer, cluster.context), changed=True, now=now)
    raise Busy(f"{sandbox.name} is changed by others all the time", hint="try again")


def _check_alive(sandbox: Sandbox, namespace: Manifest | None) -> None:
    """Refuse what is gone, is another one by now, or is being deleted."""
    if namespace is None or namespace["metadata"]["uid"] != sandbox.uid:
        raise OperationFailed(f"too late: {sandbox.name} is gone", hint="`sandbox up` makes it anew")
    if "deletionTimestamp" in namespace["metadata"]:
        raise OperationFailed(
            f"too late: {sandbox.name} is being deleted",
            why=f"since {namespace['metadata']['deletionTimestamp']}",
            hint="`sandbox up` makes it anew when it is gone",
        )
    if (namespace["metadata"].get("annotations") or {}).get(labels.PHASE) == Phase.EXPIRING:
        raise OperationFailed(
            f"too late: {sandbox.name} is being ended",
            why="the clean-up has begun to delete what belongs to it",
            hint="`sandbox up` makes it whole again",
        )

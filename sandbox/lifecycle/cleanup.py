"""One pass of the clean-up over one cluster: look once, then warn, delete and say what is wrong.

Everything is decided on the metadata of one paged LIST and on the server's clock. A deletion holds only for the
version of the namespace that was judged: whoever extends it meanwhile wins, and two clean-ups at once are harmless.
Whoever owns a sandbox may write in it and into its annotations; none of that may keep it for ever.
Nothing is remembered that the cluster does not know, so one that is killed is simply run again.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.ending import what_holds
from sandbox.cluster.errors import Conflict, Forbidden, NamespaceTerminating, NotFound, QuotaExceeded
from sandbox.cluster.events import on_namespace
from sandbox.cluster.keptlocks import TooLarge
from sandbox.cluster.lease import is_deploying
from sandbox.cluster.volumes import retained
from sandbox.lifecycle import customresources
from sandbox.lifecycle.alert import post
from sandbox.lifecycle.janitor import EXPIRES as JANITOR_EXPIRES
from sandbox.lifecycle.janitor import TTL as JANITOR_TTL
from sandbox.lifecycle.locks import Keeper
from sandbox.lifecycle.report import Action, Line, Pass, Tell
from sandbox.lifecycle.verdict import Fate, Rules, Verdict, judge, over_limit
from sandbox.model import labels
from sandbox.model.deadline import is_final
from sandbox.model.deletion import check_ours, restore_command
from sandbox.model.durations import relative, short_duration, to_rfc3339
from sandbox.model.errors import InvalidInput, OperationFailed, Refused, SandboxError, Unreachable
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.owner import Owner
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.model.summary import Outside, Summary, read_summary
from sandbox.project.platform import Limits
from sandbox.project.quotas import QuotaProfile

_AT_ONCE: Final = 16
# Namespaces change rarely; one that changed this often while it was to be deleted waits for the next pass.
_TRIES: Final = 5
# A store that is away must not keep sandboxes alive; but for this long, their locks are worth the wait.
_LOCK_PATIENCE: Final = timedelta(hours=1)
# No deployment takes longer than this; whoever renews a lease by hand keeps nothing by it.
_DEPLOYMENT_PATIENCE: Final = timedelta(hours=1)
# What a pass gives the operators of a sandbox to finish its custom resources; then the others wait for it too.
_OPERATORS_S: Final = 5.0
# How long they have over several passes. Late by more, a sandbox has the time of one pass left.
_OPERATOR_PATIENCE: Final = timedelta(minutes=10)
_OPERATORS_LATEST: Final = timedelta(hours=1)
_FORGET_EVERY: Final = timedelta(hours=1)
# Our clock decides nothing. That it is off is worth a word; a whole day off, one of the two is nonsense.
_SKEW_SAID: Final = timedelta(minutes=5)
_SKEW_REFUSED: Final = timedelta(hours=24)
_KEPT_METADATA: Final = (
    "name",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
)
# All that is read of a sandbox here. Annotations may take 256 KiB a namespace, and there may be thousands.
_KEPT_ANNOTATIONS: Final = (
    labels.NAMESPACE,
    labels.CREATED_AT,
    labels.EXPIRES_AT,
    labels.MAX_EXPIRES_AT,
    labels.PINNED_UNTIL,
    labels.TTL,
    labels.PHASE,
    labels.QUOTA_PROFILE,
    labels.OWNER_USER,
    labels.OWNER_GROUP,
    JANITOR_TTL,
    JANITOR_EXPIRES,
)
_LONGEST_ANNOTATION: Final = 1024
_PAGE: Final = 100
# How many objects of many are named.
_NAMED: Final = 3
_MOST_VOLUMES: Final = 20
# What every clean-up does to sandboxes: verb, API group, resource, name.
_RIGHTS: Final = (
    ("get", "", "configmaps", labels.RECORD_NAME),
    ("create", "", "events", ""),
    ("delete", "", "namespaces", ""),
)


@dataclass(frozen=True)
class Policy:
    """What a clean-up goes by; see :class:`sandbox.lifecycle.verdict.Rules` for the rest.

    Attributes:
        selector: only namespaces with these labels.
        cluster_scoped: ``Kind.group`` of what may be deleted outside of namespaces.
        custom_resources: ``resource.group`` of what is deleted before the namespace that it is in.
        limits: what is allowed and only counting can hold; ``profiles``: the same of each quota profile.
        locks: where locks are kept; None: nowhere. ``retention``: for how long.
        alert_url: told of every sandbox that ends soon.
        needs_record: whether only what has a record, or never got that far, is deleted; not where the platform's
            admission says what a sandbox is.
    """

    rules: Rules
    selector: str = ""
    dry_run: bool = False
    cluster_scoped: frozenset[str] = frozenset()
    custom_resources: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    profiles: Mapping[str, QuotaProfile] = field(default_factory=dict)
    locks: Keeper | None = None
    retention: timedelta = timedelta(days=7)
    alert_url: str | None = None
    needs_record: bool = True


@dataclass
class Memory:
    """What a clean-up that runs for long need not ask again; losing it costs requests and nothing else."""

    warned: dict[str, datetime] = field(default_factory=dict)
    forgot: datetime | None = None


def _lists() -> dict[str, list[str]]:
    return defaultdict(list)


@dataclass
class Found:
    """What a look at the cluster gave. The namespaces are cut down to what is needed of them.

    Attributes:
        retained: of each namespace that is due, the volumes that stay, as far as one may see them.
    """

    now: datetime
    judged: dict[Fate, list[tuple[Manifest, Verdict]]] = field(default_factory=lambda: defaultdict(list))
    owners: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    projects: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    # Of each quota profile.
    profile_owners: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(_lists))
    profile_projects: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(_lists))
    retained: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def due(self) -> list[str]:
        return [namespace["metadata"]["name"] for namespace, _ in self.judged[Fate.DUE]]


class Sweep:
    """One pass over one cluster: :meth:`look`, then :meth:`act`."""

    def __init__(self, cluster: Cluster, policy: Policy, tell: Tell, memory: Memory | None = None) -> None:
        self._cluster = cluster
        self._policy = policy
        self._tell = tell
        self._memory = memory or Memory()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._gone: Unreachable | None = None
        self._lacks_rights = False
        self._deleted: set[str] = set()
        self._began = time.monotonic()
        self.done = Pass(cluster.context)

    async def look(self) -> Found:
        """List the namespaces and judge each.

        Raises:
            Refused: no permission to list them.
            OperationFailed: the clocks are too far apart to delete anything.
            Unreachable: the cluster does not answer.
        """
        found: Found | None = None
        async for namespace in objects.list_(
            self._cluster, "v1", "Namespace", label_selector=self._selector() or None, limit=_PAGE, metadata_only=True
        ):
            if found is None:
                found = Found(await self._checked_time())
            self._note(found, namespace)
        if found is not None and (due := found.due()):
            with suppress(SandboxError):
                found.retained = await retained(self._cluster, frozenset(due))
        return found or Found(await self._checked_time())

    async def act(self, found: Found) -> Pass:
        """Do what is to be done. What goes wrong with one sandbox is told, and stops no other.

        Raises:
            Unreachable: the cluster is gone; what was done until then has been told.
        """
        for namespace, verdict in found.judged[Fate.FLAG]:
            self._say(Action.FLAGGED, verdict.why, namespace, verdict)
        self._say_limits(found)
        if found.judged[Fate.DUE] and self._policy.locks is None:
            self._say(Action.NOTICE, "the locks of what is deleted are not kept: there is no place for them")
        await self._each(self._end(*each) for each in found.judged[Fate.DUE])
        await self._each(self._warn(*each) for each in found.judged[Fate.WARN])
        await self._each(self._explain(*each) for each in found.judged[Fate.STUCK])
        self._forget_warnings(found)
        if self._gone is not None:
            raise self._gone
        if self._lacks_rights:
            await self._say_missing_rights()
        self._say_retained(found)
        await self._forget_locks(found.now)
        self.done.seconds = time.monotonic() - self._began
        return self.done

    # -- looking ------------------------------------------------------------------------------------------------

    def _selector(self) -> str:
        # Namespaces of kube-janitor's users do not carry our label.
        ours = "" if self._policy.rules.janitor else labels.SELECTOR
        return ",".join(filter(None, (ours, self._policy.selector)))

    async def _checked_time(self) -> datetime:
        """The server's time."""
        now = await self._cluster.server_time()
        skew = own_time() - now
        if abs(skew) > _SKEW_REFUSED:
            raise OperationFailed(
                f"the clocks of this machine and of {self._cluster.context} are {short_duration(skew)} apart",
                why=f"here it is {to_rfc3339(own_time())}, there {to_rfc3339(now)}; one of them is wrong, "
                "and if it is the cluster's, sandboxes would be deleted that are not due",
                hint="set the clock that is wrong (NTP), then run the clean-up again",
            )
        if abs(skew) > _SKEW_SAID:
            self._say(
                Action.NOTICE,
                f"this machine's clock is {short_duration(skew)} {'ahead' if skew > timedelta() else 'behind'}; "
                "the server's counts",
                now=now,
            )
        return now

    def _note(self, found: Found, namespace: Manifest) -> None:
        verdict = judge(namespace, found.now, self._policy.rules)
        if verdict.fate is Fate.IGNORE:
            return
        namespace = _cut(namespace)
        sandbox = Sandbox.of(namespace, self._cluster.context)
        if verdict.managed:
            self.done.phases[sandbox.phase] += 1
        if verdict.managed and verdict.fate in (Fate.KEEP, Fate.WARN, Fate.FLAG):
            found.owners[sandbox.owner].append(sandbox.name)
            found.projects[sandbox.project].append(sandbox.name)
            if sandbox.quota_profile in self._policy.profiles:
                found.profile_owners[sandbox.quota_profile][sandbox.owner].append(sandbox.name)
                found.profile_projects[sandbox.quota_profile][sandbox.project].append(sandbox.name)
        if verdict.fate not in (Fate.KEEP, Fate.ENDING):
            found.judged[verdict.fate].append((namespace, verdict))

    # -- acting -------------------------------------------------------------------------------------------------

    async def _each(self, tasks: Iterable[Awaitable[None]]) -> None:
        async def bounded(task: Awaitable[None]) -> None:
            async with self._at_once:
                await task

        await asyncio.gather(*(bounded(task) for task in tasks))

    async def _end(self, namespace: Manifest, verdict: Verdict) -> None:
        """Delete what is due, unless it changed since it was looked at."""
        told: set[str] = set()
        for _ in range(_TRIES):
            if self._gone is not None:
                return
            try:
                await self._attempt(namespace, verdict, told)
                return
            except (Conflict, NamespaceTerminating):
                pass
            except Exception as error:
                await self._failed(error, namespace, verdict)
                return
            try:
                fresh = await objects.get(self._cluster, _reference(namespace))
                again = self._judged_again(namespace, fresh)
            except SandboxError as error:
                await self._failed(error, namespace, verdict)
                return
            if again is None or fresh is None:
                return
            namespace, verdict = fresh, again
        self._say(Action.FAILED, "others change it all the time; the next pass tries again", namespace, verdict)

    def _judged_again(self, before: Manifest, fresh: Manifest | None) -> Verdict | None:
        """The verdict on a namespace that changed under our hands; None where it is not due any more."""
        if fresh is None or fresh["metadata"]["uid"] != before["metadata"]["uid"]:
            self._say(Action.SPARED, "it is gone already", before)
            return None
        verdict = judge(fresh, self._now(), self._policy.rules)
        if verdict.fate is Fate.DUE:
            return verdict
        if verdict.fate in (Fate.ENDING, Fate.STUCK):
            self._say(
                Action.SPARED,
                "it is being deleted already: by another, or by a request of ours whose answer was lost",
                fresh,
                verdict,
            )
        else:
            until = f"; it lives until {to_rfc3339(verdict.deadline)}" if verdict.deadline else ""
            self._say(Action.SPARED, f"it changed before it was deleted{until}", fresh, verdict)
        return None

    async def _attempt(self, namespace: Manifest, verdict: Verdict, told: set[str]) -> None:
        """Delete a namespace and what belongs to it, in this order: lock kept, custom resources, outside, event,
        namespace.

        Args:
            told: what earlier attempts said of what stays.

        Raises:
            Conflict: it is not as it was judged.
        """
        summary = await self._summary(namespace) if verdict.managed else None
        if verdict.managed:
            try:
                check_ours(
                    namespace, summary.namespace_uid if summary else None, needs_record=self._policy.needs_record
                )
            except Refused as refused:
                self._flag_overdue(namespace, verdict, f"{refused.what}: {refused.why}")
                return
        if await self._is_deploying(namespace, verdict):
            self._say(Action.SPARED, f"{verdict.why}, and something is being deployed into it now", namespace, verdict)
            self._late(verdict)
            return
        if self._policy.dry_run:
            self._say(Action.WOULD_DELETE, verdict.why, namespace, verdict)
            return
        lock = await self._keep_lock(namespace, verdict, summary)
        if verdict.managed and self._policy.custom_resources:
            namespace, have_ended = await self._end_custom_resources(namespace, verdict, told)
            if not have_ended:
                return
        if summary and summary.outside:
            namespace = await self._delete_outside(namespace, verdict, summary.outside, told)
        await self._tell_namespace(
            namespace, f"sandbox-expired-{namespace['metadata']['uid']}", "Expired", f"Deleted: {verdict.why}"
        )
        metadata = namespace["metadata"]
        # While it can be extended, only the version that was judged; later, changing it all the time must not keep it.
        version = None if self._is_final(namespace, verdict) else metadata["resourceVersion"]
        await objects.delete(self._cluster, _reference(namespace), uid=metadata["uid"], resource_version=version)
        self._deleted.add(metadata["name"])
        self._say(Action.DELETED, verdict.why, namespace, verdict, lock=lock)

    async def _is_deploying(self, namespace: Manifest, verdict: Verdict) -> bool:
        """Whether an `up` is under way in it, at whose end it lives on; but not for ever.

        Its phase says that there may be one, so that others cost no request.
        """
        phase = (namespace["metadata"].get("annotations") or {}).get(labels.PHASE)
        late = self._now() - verdict.deadline if verdict.deadline else timedelta()
        if phase != Phase.PROVISIONING or late > _DEPLOYMENT_PATIENCE or self._is_final(namespace, verdict):
            return False
        return await is_deploying(self._cluster, namespace["metadata"]["name"])

    async def _summary(self, namespace: Manifest) -> Summary | None:
        ref = ObjectRef("", "v1", "ConfigMap", labels.RECORD_NAME, namespace["metadata"]["name"])
        found = await objects.get(self._cluster, ref)
        return read_summary(found) if found is not None else None

    async def _keep_lock(self, namespace: Manifest, verdict: Verdict, summary: Summary | None) -> str:
        """Save the lock; where it is now.

        Raises:
            SandboxError: the store cannot, and the sandbox is not so late that this could not wait.
        """
        keeper, metadata = self._policy.locks, namespace["metadata"]
        if keeper is None or summary is None or not summary.lock:
            return ""
        try:
            return await keeper.keep(metadata["name"], metadata["uid"], summary.lock, Owner.of(namespace))
        except SandboxError as error:
            late = self._now() - verdict.deadline if verdict.deadline else timedelta()
            # A lock is what its owner wrote: one that cannot be kept must not be the way to live on.
            is_hopeless = isinstance(error, TooLarge) or self._is_final(namespace, verdict)
            if late < _LOCK_PATIENCE and not is_hopeless:
                error.what = f"not deleted yet, for its lock cannot be kept: {error.what}"
                raise
            self._say(Action.FAILED, f"deleted without keeping its lock: {error}", namespace, verdict)
            return ""

    def _is_final(self, namespace: Manifest, verdict: Verdict) -> bool:
        """Whether nothing can keep it any more, so that nobody's extension is lost."""
        return verdict.managed and is_final(namespace["metadata"].get("annotations") or {}, self._now())

    async def _claim(self, namespace: Manifest, verdict: Verdict) -> Manifest:
        """Say on the namespace that it is being ended, before anything of it is: `extend` comes too late from now on.

        Raises:
            Conflict: it changed since it was judged.
            SandboxError: that is refused; not where no extension could come any more.
        """
        if (namespace["metadata"].get("annotations") or {}).get(labels.PHASE) == Phase.EXPIRING:
            return namespace
        try:
            return await objects.patch_merge(
                self._cluster,
                _reference(namespace),
                {"metadata": {"annotations": {labels.PHASE: Phase.EXPIRING}}},
                resource_version=namespace["metadata"]["resourceVersion"],
            )
        except SandboxError as error:
            if isinstance(error, Unreachable) or not self._is_final(namespace, verdict):
                raise
            return namespace

    async def _end_custom_resources(
        self, namespace: Manifest, verdict: Verdict, told: set[str]
    ) -> tuple[Manifest, bool]:
        """Delete the listed custom resources and wait for their operators, which may need what is in the namespace.

        Returns:
            The namespace as it is now (claimed, where there were some), and whether it is its turn.

        Raises:
            Conflict: it changed since it was judged.
            SandboxError: the cluster does not say what there is.
        """
        custom = await customresources.find(self._cluster, namespace["metadata"]["name"], self._policy.custom_resources)
        if custom.found:
            namespace = await self._claim(namespace, verdict)
            await custom.delete()
            await custom.wait(_OPERATORS_S)
        for line in custom.refused:
            self._say_once(told, Action.FAILED, line, namespace, verdict)
        if not custom.found:
            return namespace, True
        since, late = custom.ending_since(), self._now() - verdict.deadline if verdict.deadline else timedelta()
        if late < _OPERATORS_LATEST and (since is None or self._now() - since < _OPERATOR_PATIENCE):
            self._say(Action.SPARED, f"its custom resources end first: {custom.names()}", namespace, verdict)
            self._late(verdict)
            return namespace, False
        why = f"deleted before its custom resources have ended, which will hold it: {custom.names()}"
        self._say_once(told, Action.STUCK, why, namespace, verdict)
        return namespace, True

    async def _delete_outside(
        self, namespace: Manifest, verdict: Verdict, items: Iterable[Outside], told: set[str]
    ) -> Manifest:
        """Delete what the sandbox put outside of its namespace: only what is surely its own, and of a kind allowed.

        What stays is told and stops nothing: the record that names it is the owner's to write.

        Returns:
            The namespace as it is now: claimed, where there was something to delete.

        Raises:
            Conflict: it changed since it was judged.
            Unreachable: the cluster does not answer.
        """
        stays: dict[str, _Staying] = {}
        own: list[Outside] = []
        for item in items:
            kind = f"{item.kind}.{item.group}".rstrip(".")
            if kind not in self._policy.cluster_scoped:
                _stay(stays, "", str(item.ref), "not of a listed kind")
                continue
            try:
                found = await objects.get(self._cluster, item.ref)
            except Exception as error:
                _stay_for(stays, item, error)
                continue
            if found is None:
                continue
            if why := _not_its_own(found, item, namespace["metadata"]["name"]):
                _stay(stays, why, str(item.ref), why)
            else:
                own.append(item)
        if own:
            namespace = await self._claim(namespace, verdict)
        for item in own:
            try:
                await objects.delete(self._cluster, item.ref, uid=item.uid)
            except Exception as error:
                _stay_for(stays, item, error)
        for line in map(str, stays.values()):
            self._say_once(told, Action.FAILED, line, namespace, verdict)
        return namespace

    async def _warn(self, namespace: Manifest, verdict: Verdict) -> None:
        """Tell the owner of a sandbox, once, that it ends soon."""
        metadata, end = namespace["metadata"], verdict.deadline
        assert end is not None, "what is warned about has a deadline"
        if self._gone is not None or self._memory.warned.get(metadata["uid"]) == end:
            return
        sandbox = Sandbox.of(namespace, self._cluster.context)
        message = f"It will be deleted at {to_rfc3339(end)} ({relative(end, self._now())})."
        if verdict.managed:
            message += f" To keep it: sandbox extend {sandbox.name} 4h"
        name = f"sandbox-expiring-{metadata['uid']}-{int(end.timestamp())}"
        try:
            is_new = await self._tell_namespace(namespace, name, "Expiring", message, warning=True)
            if is_new and self._policy.dry_run:
                self._say(Action.WOULD_WARN, verdict.why, namespace, verdict)
            elif is_new:
                self._say(Action.WARNED, verdict.why, namespace, verdict)
                await self._alert(sandbox, end, message)
            self._memory.warned[metadata["uid"]] = end
        except Exception as error:
            await self._failed(error, namespace, verdict)

    async def _alert(self, sandbox: Sandbox, end: datetime, message: str) -> None:
        if self._policy.alert_url is None:
            return
        await post(
            self._policy.alert_url,
            {
                "event": "expiring",
                "context": sandbox.context,
                "sandbox": sandbox.name,
                "namespace": sandbox.namespace,
                "owner": sandbox.owner,
                "project": sandbox.project,
                "expires_at": to_rfc3339(end),
                "message": message,
            },
        )

    async def _tell_namespace(
        self, namespace: Manifest, name: str, reason: str, message: str, *, warning: bool = False
    ) -> bool:
        """Write an event into the namespace; False where it is there already, or the namespace ends or is full."""
        try:
            return await on_namespace(
                self._cluster,
                namespace,
                name=name,
                reason=reason,
                message=message,
                now=self._now(),
                kind="Warning" if warning else "Normal",
                dry_run=self._policy.dry_run,
            )
        except (NotFound, NamespaceTerminating, QuotaExceeded):
            return False

    async def _explain(self, namespace: Manifest, verdict: Verdict) -> None:
        """Say what holds a namespace that does not end."""
        if self._gone is not None:
            return
        try:
            found = await objects.get(self._cluster, _reference(namespace))
            if found is None or found["metadata"]["uid"] != namespace["metadata"]["uid"]:
                return
            reasons = await what_holds(self._cluster, found)
        except Exception as error:
            await self._failed(error, namespace, verdict)
            return
        self._say(Action.STUCK, "; ".join([verdict.why, *reasons]), namespace, verdict)

    async def _failed(self, error: Exception, namespace: Manifest, verdict: Verdict) -> None:
        """Tell what went wrong with one sandbox; find out whether it is the whole cluster."""
        # Also what nobody thought of must not stop the others.
        self._say(Action.FAILED, _in_words(error), namespace, verdict)
        self._late(verdict)
        self._lacks_rights |= isinstance(error, Forbidden) and error.is_about_rights
        if isinstance(error, Unreachable) and self._gone is None:
            try:
                await self._cluster.request("GET", "/version", retry=False, timeout=5.0)
            except Unreachable as gone:
                self._gone = gone
            except SandboxError:
                # It answers.
                return

    # -- saying -------------------------------------------------------------------------------------------------

    def _flag_overdue(self, namespace: Manifest, verdict: Verdict, why: str) -> None:
        self._say(Action.FLAGGED, why, namespace, verdict)
        self._late(verdict)

    def _say_once(self, told: set[str], action: Action, why: str, namespace: Manifest, verdict: Verdict) -> None:
        if why not in told:
            told.add(why)
            self._say(action, why, namespace, verdict)

    def _late(self, verdict: Verdict) -> None:
        if verdict.deadline is not None:
            self.done.overdue = max(self.done.overdue, (self._now() - verdict.deadline).total_seconds())

    def _say_limits(self, found: Found) -> None:
        limits = self._policy.limits
        for counts, limit, what in (
            (found.owners, limits.sandboxes_per_owner, "owner"),
            (found.projects, limits.sandboxes_per_project, "project"),
        ):
            for _, text in over_limit(counts, limit, what):
                self._say(Action.FLAGGED, text)
        for name, profile in self._policy.profiles.items():
            for counts, limit, what in (
                (found.profile_owners[name], profile.max_per_owner, "owner"),
                (found.profile_projects[name], profile.max_per_project, "project"),
            ):
                for _, text in over_limit(counts, limit, what):
                    self._say(Action.FLAGGED, f"quota profile {name}: {text}")

    def _say(
        self,
        action: Action,
        why: str,
        namespace: Manifest | None = None,
        verdict: Verdict | None = None,
        *,
        lock: str = "",
        now: datetime | None = None,
    ) -> None:
        self.done.actions[action] += 1
        sandbox = Sandbox.of(namespace, self._cluster.context) if namespace else None
        self._tell(
            Line(
                time=now or self._now(),
                context=self._cluster.context,
                action=action,
                why=why,
                namespace=sandbox.namespace if sandbox else "",
                uid=sandbox.uid if sandbox else "",
                sandbox=sandbox.name if sandbox else "",
                owner=sandbox.owner if sandbox else "",
                project=sandbox.project if sandbox else "",
                deadline=verdict.deadline if verdict else None,
                lock=lock,
                restore=restore_command(lock, sandbox) if lock and sandbox else "",
            )
        )

    def _now(self) -> datetime:
        return self._cluster.known_time()

    # -- forgetting ---------------------------------------------------------------------------------------------

    async def _say_missing_rights(self) -> None:
        """Say once what all the refusals have in common; a clean-up needs these in the whole cluster."""
        with suppress(SandboxError):
            missing = [
                f"{verb} {resource}{f'/{name}' if name else ''}"
                for verb, group, resource, name in _RIGHTS
                if not await self._cluster.can_i(verb, group, resource, name=name)
            ]
            if missing:
                self._say(
                    Action.NOTICE,
                    "you may not clean up this cluster: you lack the rights to "
                    f"{', '.join(missing)} in all namespaces; `sandbox down` ends a sandbox of your own",
                )

    def _say_retained(self, found: Found) -> None:
        """Say which volumes what was deleted leaves behind."""
        stay = [volume for name in sorted(self._deleted) for volume in found.retained.get(name, ())]
        if stay:
            more = f" and {len(stay) - _MOST_VOLUMES} others" if len(stay) > _MOST_VOLUMES else ""
            self._say(
                Action.NOTICE,
                "PersistentVolumes stay with their data, for their reclaim policy is Retain: "
                f"{', '.join(stay[:_MOST_VOLUMES])}{more}",
            )

    def _forget_warnings(self, found: Found) -> None:
        warned = {namespace["metadata"]["uid"] for namespace, _ in found.judged[Fate.WARN]}
        self._memory.warned = {uid: end for uid, end in self._memory.warned.items() if uid in warned}

    async def _forget_locks(self, now: datetime) -> None:
        keeper, before = self._policy.locks, self._memory.forgot
        if keeper is None or self._policy.dry_run or (before is not None and now - before < _FORGET_EVERY):
            return
        try:
            await keeper.forget(self._policy.retention, now)
        except SandboxError as error:
            self._say(Action.FAILED, f"old locks cannot be removed: {error}")
            return
        self._memory.forgot = now


def own_time() -> datetime:
    """This machine's clock. It decides nothing; how far it is off is said."""
    return datetime.now(UTC)


def _not_its_own(found: Manifest, item: Outside, namespace: str) -> str:
    """Why an object outside is not surely the sandbox's; empty where it is."""
    metadata = found["metadata"]
    note = metadata.get("annotations") or {}
    if not item.uid:
        return "the record does not hold its UID"
    if metadata["uid"] != item.uid:
        return "it is another one than the record's"
    ours = labels.SERVICE in (metadata.get("labels") or {}) and note.get(labels.NAMESPACE) == namespace
    if not ours and note.get("meta.helm.sh/release-namespace") != namespace:
        return "it is not marked as this sandbox's"
    return ""


@dataclass
class _Staying:
    """Objects outside that stay for one reason."""

    why: str
    names: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        named = ", ".join(self.names[:_NAMED])
        if len(self.names) == 1:
            return f"{named} stays: {self.why}"
        more = "…" if len(self.names) > _NAMED else ""
        return f"{len(self.names)} objects outside stay ({named}{more}): {self.why}"


def _stay(stays: dict[str, _Staying], key: str, name: str, why: str) -> None:
    stays.setdefault(key, _Staying(why)).names.append(name)


def _stay_for(stays: dict[str, _Staying], item: Outside, error: Exception) -> None:
    """Note that an object stays because of an error; its text stands for others of its kind.

    Raises:
        Unreachable: that is no matter of one object.
    """
    if isinstance(error, Unreachable):
        raise error
    # Where there is no such kind (any more), there is nothing of it either.
    if not isinstance(error, InvalidInput):
        _stay(stays, type(error).__name__, str(item.ref), _in_words(error))


def _in_words(error: Exception) -> str:
    """What went wrong; a defect is told as one."""
    return str(error) if isinstance(error, SandboxError) else f"unexpected {type(error).__name__}: {error}"


def _cut(namespace: Manifest) -> Manifest:
    """What is needed of a namespace, which is little, however much there is."""
    metadata = namespace["metadata"]
    note = metadata.get("annotations") or {}
    kept = {key: metadata[key] for key in _KEPT_METADATA if key in metadata}
    kept["annotations"] = {key: note[key][:_LONGEST_ANNOTATION] for key in _KEPT_ANNOTATIONS if key in note}
    return {"metadata": kept}


def _reference(namespace: Manifest) -> ObjectRef:
    return ObjectRef("", "v1", "Namespace", namespace["metadata"]["name"])

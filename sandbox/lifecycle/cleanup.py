"""One pass of the clean-up over one cluster: look once, then warn, delete and say what is wrong.

Everything is decided on the metadata of one paged LIST and on the server's clock. A deletion holds only for the
version of the namespace that was judged: whoever extends it meanwhile wins, and two clean-ups at once are harmless.
Deletions come last, together: each gives the cluster a namespace to empty, which takes what our next requests need.
Whoever owns a sandbox may write in it and into its annotations; none of that may keep it for ever.
Nothing is remembered that the cluster does not know, so one that is killed is simply run again.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.ending import what_holds
from sandbox.cluster.errors import Conflict, NamespaceTerminating, NotFound, QuotaExceeded
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
from sandbox.lifecycle.summaries import is_worth_a_list, listed, read
from sandbox.lifecycle.verdict import Fate, Rules, Verdict, judge, over_limit
from sandbox.model import labels
from sandbox.model.deadline import is_final
from sandbox.model.deletion import check_ours, restore_command
from sandbox.model.durations import relative, short_duration, to_rfc3339
from sandbox.model.errors import InvalidInput, OperationFailed, Refused, SandboxError, Unreachable
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.owner import Owner
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.model.summary import Outside, Summary, is_lock
from sandbox.project.platform import Limits
from sandbox.project.quotas import QuotaProfile

_AT_ONCE: Final = 16
# What is got ready to be deleted together: so many, so much of their locks (characters), for so long.
_WAVE: Final = 1000
_WAVE_LOCKS: Final = 8 * 1024 * 1024
_WAVE_S: Final = 10.0
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
# What every clean-up does to sandboxes: verb, resource (of the core API group), name.
_TELL: Final = ("create", "events", "")
_RIGHTS: Final = {
    Fate.DUE: (("get", "configmaps", labels.RECORD_NAME), _TELL, ("delete", "namespaces", "")),
    Fate.WARN: (_TELL,),
}


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
class _Ending:
    """A namespace that is due, on its way to be deleted.

    Attributes:
        summary: what its record says; ``is_read`` says whether anybody has looked.
        told: what was said already of what stays.
        lock: where its lock is kept.
        is_ready: whether nothing is left to do but to delete this very version.
        is_stale: whether it changed since it was judged.
    """

    namespace: Manifest
    verdict: Verdict
    summary: Summary | None = None
    is_read: bool = False
    told: set[str] = field(default_factory=set)
    lock: str = ""
    is_ready: bool = False
    is_stale: bool = False

    @property
    def name(self) -> str:
        return str(self.namespace["metadata"]["name"])


@dataclass
class Memory:
    """What a clean-up that runs for long need not ask again; losing it costs requests and nothing else."""

    warned: dict[str, datetime] = field(default_factory=dict)
    forgot: datetime | None = None
    rights: set[tuple[str, str, str]] = field(default_factory=set)


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
        self._gone: Unreachable | None = None
        self._deleted: set[str] = set()
        self._began = time.monotonic()
        self.done = Pass(cluster.context)

    async def look(self) -> Found:
        """List the namespaces and judge each.

        Raises:
            Refused: no permission to list them, or to do what is to be done.
            OperationFailed: the clocks are too far apart to delete anything.
            Unreachable: the cluster does not answer.
        """
        found = await self._judged()
        await self._check_rights(found)
        if due := found.due():
            with suppress(SandboxError):
                found.retained = await retained(self._cluster, frozenset(due))
        return found

    async def _judged(self) -> Found:
        found: Found | None = None
        async for namespace in objects.list_(
            self._cluster, "v1", "Namespace", label_selector=self._selector() or None, limit=_PAGE, metadata_only=True
        ):
            if found is None:
                found = Found(await self._checked_time())
            self._note(found, namespace)
        return found or Found(await self._checked_time())

    async def _check_rights(self, found: Found) -> None:
        """Ask, before anything is done, for the rights that this takes in the whole cluster.

        Raises:
            Refused: naming all that are missing.
        """
        needed = [right for fate, rights in _RIGHTS.items() if found.judged[fate] for right in rights]
        if self._policy.dry_run:
            needed = [right for right in needed if right[0] != "delete"]
        needed = [right for right in dict.fromkeys(needed) if right not in self._memory.rights]
        allowed = await asyncio.gather(
            *(self._cluster.can_i(verb, "", resource, name=name) for verb, resource, name in needed)
        )
        missing = [right for right, may in zip(needed, allowed, strict=True) if not may]
        if missing:
            said = ", ".join(f"{verb} {resource}{f'/{name}' if name else ''}" for verb, resource, name in missing)
            raise Refused(
                f"you may not clean up {self._cluster.context}",
                why=f"you lack the rights to {said} in all namespaces",
                hint="the chart gives them to its own clean-up; `sandbox down` ends a sandbox of your own",
            )
        self._memory.rights.update(needed)

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
        async for wave in self._waves(found.judged[Fate.DUE]):
            await self._end_all(wave)
        await self._each(self._warn(*each) for each in found.judged[Fate.WARN])
        await self._each(self._explain(*each) for each in found.judged[Fate.STUCK])
        self._forget_warnings(found)
        if self._gone is not None:
            raise self._gone
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
        """Do some at once; each is made when it is its turn, for thousands of them take their time to be kept."""
        waiting = iter(tasks)

        async def some() -> None:
            for task in waiting:
                await task

        await asyncio.gather(*(some() for _ in range(_AT_ONCE)))

    async def _waves(self, due: Iterable[tuple[Manifest, Verdict]]) -> AsyncIterator[list[_Ending]]:
        """What is due, in parts that may be held in memory together with their locks."""
        left = {ending.name: ending for ending in (_Ending(*each) for each in due)}
        wave: list[_Ending] = []
        room = _WAVE_LOCKS
        if is_worth_a_list(len(left), self.done.looked_at):
            # Where that is not allowed (the account of an older chart) or breaks off, each is asked for its own.
            with suppress(SandboxError):
                async for ending, summary in listed(self._cluster, left):
                    del left[ending.name]
                    ending.summary, ending.is_read = summary, True
                    wave.append(ending)
                    room -= len(summary.lock)
                    if len(wave) == _WAVE or room <= 0:
                        yield wave
                        wave, room = [], _WAVE_LOCKS
        wave += left.values()
        for start in range(0, len(wave), _WAVE):
            yield wave[start : start + _WAVE]

    async def _end_all(self, wave: Sequence[_Ending]) -> None:
        """Delete what is due. All that goes before a deletion is done for all first, but nobody waits for the slow."""
        waiting = deque(wave)
        while waiting and self._gone is None:
            begun: list[_Ending] = []
            await self._each(self._begin(ending) for ending in _for_a_while(waiting, begun))
            await self._each(self._finish(ending) for ending in begun if ending.is_ready or ending.is_stale)

    async def _begin(self, ending: _Ending) -> None:
        """Do what goes before a deletion, and say what stands in its way."""
        if self._gone is not None:
            return
        try:
            ending.is_ready = await self._prepare(ending)
        except (Conflict, NamespaceTerminating):
            ending.is_stale = True
        except Exception as error:
            await self._failed(error, ending.namespace, ending.verdict)
        finally:
            # Of thousands, locks are more than all the rest.
            ending.summary, ending.is_read = None, False

    async def _finish(self, ending: _Ending) -> None:
        """Delete a namespace, unless it changed since it was looked at."""
        for _ in range(_TRIES):
            if self._gone is not None:
                return
            try:
                if ending.is_stale and not await self._look_again(ending):
                    return
                if not ending.is_ready and not await self._prepare(ending):
                    return
                await self._delete(ending)
                return
            except (Conflict, NamespaceTerminating):
                ending.is_stale, ending.is_ready = True, False
            except Exception as error:
                await self._failed(error, ending.namespace, ending.verdict)
                return
        why = "others change it all the time; the next pass tries again"
        self._say(Action.FAILED, why, ending.namespace, ending.verdict)

    async def _look_again(self, ending: _Ending) -> bool:
        """Judge a namespace that changed under our hands; whether it is still due."""
        before = ending.namespace
        fresh = await objects.get(self._cluster, _reference(before))
        if fresh is None or fresh["metadata"]["uid"] != before["metadata"]["uid"]:
            self._say(Action.SPARED, "it is gone already", before)
            return False
        verdict = judge(fresh, self._now(), self._policy.rules)
        if verdict.fate is Fate.DUE:
            ending.namespace, ending.verdict, ending.is_stale = fresh, verdict, False
            return True
        if verdict.fate in (Fate.ENDING, Fate.STUCK):
            why = "it is being deleted already: by another, or by a request of ours whose answer was lost"
        else:
            until = f"; it lives until {to_rfc3339(verdict.deadline)}" if verdict.deadline else ""
            why = f"it changed before it was deleted{until}"
        self._say(Action.SPARED, why, fresh, verdict)
        return False

    async def _prepare(self, ending: _Ending) -> bool:
        """Do what goes before the deletion of a namespace, in this order: lock kept, custom resources, outside, event.

        Returns:
            Whether it is to be deleted now; if not, it was said why.

        Raises:
            Conflict: it is not as it was judged.
        """
        namespace, verdict = ending.namespace, ending.verdict
        summary = await self._summary(ending)
        if verdict.managed:
            try:
                check_ours(
                    namespace, summary.namespace_uid if summary else None, needs_record=self._policy.needs_record
                )
            except Refused as refused:
                self._flag_overdue(namespace, verdict, f"{refused.what}: {refused.why}")
                return False
        if await self._is_deploying(namespace, verdict):
            self._say(Action.SPARED, f"{verdict.why}, and something is being deployed into it now", namespace, verdict)
            self._late(verdict)
            return False
        if self._policy.dry_run:
            self._say(Action.WOULD_DELETE, verdict.why, namespace, verdict)
            return False
        ending.lock = await self._keep_lock(ending, summary)
        if verdict.managed and self._policy.custom_resources and not await self._end_custom_resources(ending):
            return False
        if summary and summary.outside:
            await self._delete_outside(ending, summary.outside)
        await self._tell_namespace(
            ending.namespace,
            f"sandbox-expired-{namespace['metadata']['uid']}",
            "Expired",
            f"It is deleted now, unless somebody extends it first: {verdict.why}",
        )
        return True

    async def _delete(self, ending: _Ending) -> None:
        """Delete a namespace for which all is ready.

        Raises:
            Conflict: it is not as it was judged.
        """
        namespace, verdict = ending.namespace, ending.verdict
        metadata = namespace["metadata"]
        # While it can be extended, only the version that was judged; later, changing it all the time must not keep it.
        version = None if self._is_final(namespace, verdict) else metadata["resourceVersion"]
        await objects.delete(self._cluster, _reference(namespace), uid=metadata["uid"], resource_version=version)
        self._deleted.add(ending.name)
        self._say(Action.DELETED, verdict.why, namespace, verdict, lock=ending.lock)

    async def _is_deploying(self, namespace: Manifest, verdict: Verdict) -> bool:
        """Whether an `up` is under way in it, at whose end it lives on; but not for ever.

        Its phase says that there may be one, so that others cost no request.
        """
        phase = (namespace["metadata"].get("annotations") or {}).get(labels.PHASE)
        late = self._now() - verdict.deadline if verdict.deadline else timedelta()
        if phase != Phase.PROVISIONING or late > _DEPLOYMENT_PATIENCE or self._is_final(namespace, verdict):
            return False
        return await is_deploying(self._cluster, namespace["metadata"]["name"])

    async def _summary(self, ending: _Ending) -> Summary | None:
        """What its record says; None where it has none, and for those that are not ours."""
        if ending.is_read or not ending.verdict.managed:
            return ending.summary
        return await read(self._cluster, ending.name)

    async def _keep_lock(self, ending: _Ending, summary: Summary | None) -> str:
        """Save the lock; where it is now.

        Raises:
            SandboxError: the store cannot, and the sandbox is not so late that this could not wait.
        """
        keeper, namespace, verdict = self._policy.locks, ending.namespace, ending.verdict
        if keeper is None or summary is None or not summary.lock:
            return ""
        if not is_lock(summary.lock):
            # What nobody could deploy is not kept where all may read it.
            self._say_once(ending, Action.NOTICE, "what its record holds is no lock, so none is kept")
            return ""
        try:
            return await keeper.keep(ending.name, namespace["metadata"]["uid"], summary.lock, Owner.of(namespace))
        except SandboxError as error:
            late = self._now() - verdict.deadline if verdict.deadline else timedelta()
            # A lock is what its owner wrote: one that cannot be kept must not be the way to live on.
            is_hopeless = isinstance(error, TooLarge) or self._is_final(namespace, verdict)
            if late < _LOCK_PATIENCE and not is_hopeless:
                error.what = f"not deleted yet, for its lock cannot be kept: {error.what}"
                raise
            self._say_once(ending, Action.FAILED, f"deleted without keeping its lock: {error}")
            return ""

    def _is_final(self, namespace: Manifest, verdict: Verdict) -> bool:
        """Whether nothing can keep it any more, so that nobody's extension is lost."""
        return verdict.managed and is_final(namespace["metadata"].get("annotations") or {}, self._now())

    async def _claim(self, ending: _Ending) -> None:
        """Say on the namespace that it is being ended, before anything of it is: `extend` comes too late from now on.

        Raises:
            Conflict: it changed since it was judged.
            SandboxError: that is refused; not where no extension could come any more.
        """
        namespace = ending.namespace
        if (namespace["metadata"].get("annotations") or {}).get(labels.PHASE) == Phase.EXPIRING:
            return
        try:
            ending.namespace = await objects.patch_merge(
                self._cluster,
                _reference(namespace),
                {"metadata": {"annotations": {labels.PHASE: Phase.EXPIRING}}},
                resource_version=namespace["metadata"]["resourceVersion"],
            )
        except SandboxError as error:
            if isinstance(error, Unreachable) or not self._is_final(namespace, ending.verdict):
                raise

    async def _end_custom_resources(self, ending: _Ending) -> bool:
        """Delete the listed custom resources and wait for their operators, which may need what is in the namespace.

        Returns:
            Whether it is the namespace's turn, which is claimed where there were some.

        Raises:
            Conflict: it changed since it was judged.
            SandboxError: the cluster does not say what there is.
        """
        custom = await customresources.find(self._cluster, ending.name, self._policy.custom_resources)
        if custom.found:
            await self._claim(ending)
            await custom.delete()
            await custom.wait(_OPERATORS_S)
        for line in custom.refused:
            self._say_once(ending, Action.FAILED, line)
        if not custom.found:
            return True
        verdict = ending.verdict
        since, late = custom.ending_since(), self._now() - verdict.deadline if verdict.deadline else timedelta()
        if late < _OPERATORS_LATEST and (since is None or self._now() - since < _OPERATOR_PATIENCE):
            why = f"its custom resources end first: {custom.names()}"
            self._say(Action.SPARED, why, ending.namespace, verdict)
            self._late(verdict)
            return False
        why = f"deleted before its custom resources have ended, which will hold it: {custom.names()}"
        self._say_once(ending, Action.STUCK, why)
        return True

    async def _delete_outside(self, ending: _Ending, items: Iterable[Outside]) -> None:
        """Delete what the sandbox put outside of its namespace: only what is surely its own, and of a kind allowed.

        What stays is told and stops nothing: the record that names it is the owner's to write. The namespace is
        claimed where there was something to delete.

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
            if why := _not_its_own(found, item, ending.name):
                _stay(stays, why, str(item.ref), why)
            else:
                own.append(item)
        if own:
            await self._claim(ending)
        for item in own:
            try:
                await objects.delete(self._cluster, item.ref, uid=item.uid)
            except Exception as error:
                _stay_for(stays, item, error)
        for line in map(str, stays.values()):
            self._say_once(ending, Action.FAILED, line)

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

    def _say_once(self, ending: _Ending, action: Action, why: str) -> None:
        if why not in ending.told:
            ending.told.add(why)
            self._say(action, why, ending.namespace, ending.verdict)

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
                restore=restore_command(lock, sandbox, Owner.of(namespace)) if lock and sandbox and namespace else "",
            )
        )

    def _now(self) -> datetime:
        return self._cluster.known_time()

    # -- forgetting ---------------------------------------------------------------------------------------------

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


def _for_a_while(waiting: deque[_Ending], begun: list[_Ending]) -> Iterator[_Ending]:
    """Take from what waits, one at the least, until the time of a wave is over."""
    until = time.monotonic() + _WAVE_S
    while waiting:
        begun.append(waiting.popleft())
        yield begun[-1]
        if time.monotonic() >= until:
            return


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

"""What one pod requests and is limited to, after the API server has filled in its defaults.

Written after Kubernetes 1.36's own code, as no documentation says it in full: ``SetDefaults_Pod`` and
``defaultPodRequests`` (pkg/apis/core/v1/defaults.go), the LimitRanger (plugin/pkg/admission/limitranger),
``PodRequests`` and ``PodLimits`` (component-helpers/resource/helpers.go; KEP-753 for sidecars, KEP-2837 for resources
of pods) and the quota's pod evaluator (pkg/quota/v1/evaluator/core/pods.go). A property test holds it against a real
API server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any, Final

from sandbox.model.errors import InvalidInput
from sandbox.model.objects import Manifest
from sandbox.model.quantities import parse_quantity

Amounts = dict[str, Decimal]

_MILLI: Final = Decimal("0.001")
# What does not fit into 64 bits is taken for the largest number that does.
_LARGEST: Final = Decimal(2**63 - 1)
# Of these, a quota wants every container to say how much it takes.
_WANTED: Final = ("cpu", "memory")
_COUNTED: Final = ("cpu", "memory", "ephemeral-storage")
# Beyond this, the LimitRanger compares whole units (resource.MaxMilliValue).
_MOST_MILLI: Final = (2**63 - 1) // 1000


@lru_cache(maxsize=4096)
def amount(text: str | int | float | None) -> Decimal:
    """A quantity as the API server stores it: rounded up to a thousandth.

    Raises:
        InvalidInput: not a quantity.
    """
    number = Decimal(0) if text is None else parse_quantity(text)
    return min(number.quantize(_MILLI, ROUND_CEILING) if number < _LARGEST else _LARGEST, _LARGEST)


def amounts(quantities: Mapping[str, Any] | None) -> Amounts:
    """Resource → amount of a ``requests``, ``limits`` or ``hard``.

    Raises:
        InvalidInput: something is no quantity; says of which resource.
    """
    found = {}
    for resource, text in (quantities or {}).items():
        try:
            found[str(resource)] = amount(text)
        except InvalidInput as error:
            raise InvalidInput(f"{resource}: {error.what}", hint=error.hint) from None
    return found


@dataclass(frozen=True)
class LimitItem:
    """An item of a LimitRange, with the defaults that the API server adds to it."""

    type: str
    default: Amounts
    default_request: Amounts
    max: Amounts
    min: Amounts
    ratio: Amounts

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> LimitItem:
        """Read an item of ``spec.limits``."""
        most, least = amounts(item.get("max")), amounts(item.get("min"))
        default, requested = amounts(item.get("default")), amounts(item.get("defaultRequest"))
        if item.get("type") == "Container":
            default = {**most, **default}
            requested = {**least, **default, **requested}
        return cls(str(item.get("type")), default, requested, most, least, amounts(item.get("maxLimitRequestRatio")))


@dataclass(frozen=True)
class Problem:
    """Why the API server refuses a pod or claim, whatever is left of the quota.

    Attributes:
        where: the container's name; empty for the pod or claim itself.
        resource: such as ``limits.cpu``.
        asked: None where nothing is said and something must be.
        allowed: what may be asked, in words: ``at most 500m``.
        unit: what ``allowed`` and ``asked`` count, for showing them.
    """

    where: str
    resource: str
    asked: Decimal | None
    allowed: str
    bound: Decimal | None = None


@dataclass(frozen=True)
class _Container:
    name: str
    requests: Amounts
    limits: Amounts
    init: bool
    sidecar: bool


@dataclass(frozen=True)
class PodResources:
    """Requests and limits of a pod and its containers, defaults filled in.

    Attributes:
        requests: of the pod itself (``spec.resources``); empty where it gives none.
        overhead: of its RuntimeClass.
    """

    containers: tuple[_Container, ...]
    requests: Amounts
    limits: Amounts
    overhead: Amounts = field(default_factory=dict)

    @classmethod
    def of(
        cls, spec: Manifest, limits: Sequence[LimitItem] = (), overheads: Mapping[str, Amounts] | None = None
    ) -> PodResources:
        """Fill in what the API server fills in when the pod is created.

        Args:
            spec: a pod spec.
            limits: of the namespace's LimitRange.
            overheads: RuntimeClass → what it adds to each pod.

        Raises:
            InvalidInput: something is no quantity.
        """
        # A request that is not given is the limit.
        own = tuple(
            _Container(c.name, {**c.limits, **c.requests}, c.limits, c.init, c.sidecar) for c in _containers(spec)
        )
        said = spec.get("resources") or {}
        requests, most = amounts(said.get("requests")), amounts(said.get("limits"))
        if most:
            # A pod's own requests default before the LimitRange is looked at.
            together = _together(own, "requests")
            given = {name: value for name, value in together.items() if name in _WANTED}
            whole = {name: value for name, value in most.items() if _is_of_pods(name)}
            requests = {**whole, **given, **requests}
        overhead = amounts(spec.get("overhead")) or (overheads or {}).get(str(spec.get("runtimeClassName") or ""), {})
        return cls(tuple(_with_defaults(container, limits) for container in own), requests, most, overhead)

    @classmethod
    def of_template(cls, spec: Manifest) -> PodResources:
        """As a template says them: nothing is filled in before a pod is made of it.

        Raises:
            InvalidInput: something is no quantity.
        """
        said = spec.get("resources") or {}
        return cls(tuple(_containers(spec)), amounts(said.get("requests")), amounts(said.get("limits")))

    def total(self, kind: str, *, overhead: bool = True) -> Amounts:
        """What the pod as a whole takes; ``kind`` is ``requests`` or ``limits``."""
        total = _together(self.containers, kind)
        of_pod = self.requests if kind == "requests" else self.limits
        total |= {name: value for name, value in of_pod.items() if _is_of_pods(name)}
        for name, value in self.overhead.items() if overhead else ():
            # Nothing is added to limits that are not there.
            if kind == "requests" or total.get(name):
                total[name] = total.get(name, Decimal(0)) + value
        return total

    @property
    def is_given_as_a_whole(self) -> bool:
        """Whether the pod itself has requests or limits: its containers need none then."""
        return any(_is_of_pods(name) for name in (*self.requests, *self.limits))

    def usage(self) -> Amounts:
        """What it takes of a quota, under the quota's names, the pod itself counted."""
        usage: Amounts = {"pods": Decimal(1), "count/pods": Decimal(1)}
        for name, value in self.total("requests").items():
            for counted in _quota_names(name):
                usage[counted] = value
        for name, value in self.total("limits").items():
            if name in _COUNTED:
                usage[f"limits.{name}"] = value
        return usage

    def problems(self, limits: Sequence[LimitItem], hard: Iterable[str]) -> Iterator[Problem]:
        """Why it would be refused, whatever is left of the quota: limits broken, or amounts missing.

        Args:
            hard: the resources that the quota bounds.
        """
        if not self.is_given_as_a_whole:
            for container in self.containers:
                yield from _missing(container, hard)
        for container in self.containers:
            yield from _consistent(container.name, container.requests, container.limits)
        yield from self._consistent_as_a_whole()
        for item in limits:
            if item.type == "Container":
                for container in self.containers:
                    yield from _within(container.name, item, container.requests, container.limits)
            elif item.type == "Pod":
                requests, most = self.total("requests", overhead=False), self.total("limits", overhead=False)
                yield from _within("", item, requests, most)

    def _consistent_as_a_whole(self) -> Iterator[Problem]:
        yield from _consistent("", self.requests, self.limits)
        together = _together(self.containers, "requests")
        for name in together.keys() & self.requests.keys():
            if together[name] > self.requests[name]:
                yield Problem("", f"requests.{name}", together[name], "at most the pod's", self.requests[name])
        for container in self.containers:
            for name in container.limits.keys() & self.limits.keys() if not container.init else ():
                if container.limits[name] > self.limits[name]:
                    asked, bound = container.limits[name], self.limits[name]
                    yield Problem(container.name, f"limits.{name}", asked, "at most the pod's", bound)


def claim_problems(storage: Amounts, limits: Sequence[LimitItem]) -> Iterator[Problem]:
    """Why a claim of some storage would be refused by a LimitRange.

    Args:
        storage: its ``resources.requests``.
    """
    for item in limits:
        if item.type != "PersistentVolumeClaim":
            continue
        for name, bound in item.min.items():
            if name not in storage or storage[name] < bound:
                yield Problem("", f"requests.{name}", storage.get(name), "at least", bound)
        for name, bound in item.max.items():
            if name not in storage or storage[name] > bound:
                yield Problem("", f"requests.{name}", storage.get(name), "at most", bound)


def _containers(spec: Manifest) -> Iterator[_Container]:
    for key in ("initContainers", "containers"):
        for container in spec.get(key) or ():
            resources = container.get("resources") or {}
            try:
                requests, limits = amounts(resources.get("requests")), amounts(resources.get("limits"))
            except InvalidInput as error:
                raise InvalidInput(f"container {container.get('name')}: {error.what}", hint=error.hint) from None
            init = key == "initContainers"
            sidecar = init and container.get("restartPolicy") == "Always"
            yield _Container(str(container.get("name", "")), requests, limits, init, sidecar)


def _with_defaults(container: _Container, limits: Sequence[LimitItem]) -> _Container:
    requests, most = dict(container.requests), dict(container.limits)
    for item in limits:
        if item.type == "Container":
            requests = {**item.default_request, **requests}
            most = {**item.default, **most}
    return _Container(container.name, requests, most, container.init, container.sidecar)


def _together(containers: Iterable[_Container], kind: str) -> Amounts:
    """Of all containers: those that run at the same time added up, or the largest init step where it is more."""
    running: Amounts = {}
    sidecars: Amounts = {}
    largest_step: Amounts = {}
    for container in containers:
        own: Amounts = getattr(container, kind)
        if not container.init:
            _add(running, own)
            continue
        step = {name: value + sidecars.get(name, Decimal(0)) for name, value in own.items()}
        if container.sidecar:
            _add(running, own)
            _add(sidecars, own)
        for name, value in {**sidecars, **step}.items():
            largest_step[name] = max(largest_step.get(name, value), value)
    return {
        name: max(running.get(name, Decimal(0)), largest_step.get(name, Decimal(0)))
        for name in (*running, *(name for name in largest_step if name not in running))
    }


def _add(total: Amounts, more: Amounts) -> None:
    for name, value in more.items():
        total[name] = total.get(name, Decimal(0)) + value


def _is_of_pods(resource: str) -> bool:
    return resource in _WANTED or resource.startswith("hugepages-")


def _quota_names(resource: str) -> tuple[str, ...]:
    """The names under which a quota counts a request."""
    if resource in _COUNTED or resource.startswith("hugepages-"):
        return (resource, f"requests.{resource}")
    # Extended resources, such as nvidia.com/gpu.
    return (f"requests.{resource}",)


def _missing(container: _Container, hard: Iterable[str]) -> Iterator[Problem]:
    for name in hard:
        kind, _, resource = name.rpartition(".")
        said = container.limits if kind == "limits" else container.requests
        if resource in _WANTED and kind in ("", "requests", "limits") and resource not in said:
            yield Problem(container.name, name, None, "must be given: the quota counts it")


def _consistent(where: str, requests: Amounts, limits: Amounts) -> Iterator[Problem]:
    for name in requests.keys() & limits.keys():
        if requests[name] > limits[name]:
            yield Problem(where, f"requests.{name}", requests[name], "at most its limit", limits[name])


def _within(where: str, item: LimitItem, requests: Amounts, limits: Amounts) -> Iterator[Problem]:
    for name, bound in item.min.items():
        if name not in requests:
            yield Problem(where, f"requests.{name}", None, "must be given, and at least", bound)
        for kind, said in (("requests", requests), ("limits", limits)):
            if name in said and _less(said[name], bound):
                yield Problem(where, f"{kind}.{name}", said[name], "at least", bound)
    for name, bound in item.max.items():
        if name not in limits:
            yield Problem(where, f"limits.{name}", None, "must be given, and at most", bound)
        for kind, said in (("requests", requests), ("limits", limits)):
            if name in said and _less(bound, said[name]):
                yield Problem(where, f"{kind}.{name}", said[name], "at most", bound)
    for name, ratio in item.ratio.items():
        times = f"at most {ratio.normalize():f} times its request"
        request, limit = requests.get(name, Decimal(0)), limits.get(name, Decimal(0))
        if not request or not limit:
            yield Problem(where, f"limits.{name}", limits.get(name), f"must be given, {times}")
        elif _ratio(limit, request) * 1000 > float(ratio * 1000):
            yield Problem(where, f"limits.{name}", limit, f"{times} of", request)


def _less(one: Decimal, other: Decimal) -> bool:
    """As the LimitRanger compares: to the thousandth, or whole units where a number is too large for that."""
    if max(one, other) <= _MOST_MILLI:
        return one < other
    return one.to_integral_value(ROUND_CEILING) < other.to_integral_value(ROUND_CEILING)


def _ratio(limit: Decimal, request: Decimal) -> float:
    # Floating point, as the LimitRanger has it: what is refused by an error of rounding is refused here too.
    if max(limit, request) <= _MOST_MILLI:
        return float(limit * 1000) / float(request * 1000)
    return float(limit.to_integral_value(ROUND_CEILING)) / float(request.to_integral_value(ROUND_CEILING))

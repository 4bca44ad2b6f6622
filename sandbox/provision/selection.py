"""Which services a deployment brings, which it takes from a base, and which it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.model.errors import InvalidInput
from sandbox.project.config import Project
from sandbox.project.yamlfile import near_any


@dataclass(frozen=True)
class Selection:
    """Names of services, by where they come from.

    Attributes:
        deployed: the project's own, from their sources.
        shared: reached in the base's namespace.
        mocked: replaced by their stand-ins.
        skipped: left out although needed.
        from_base: deployed as the base has them; None for all that the commit does not bring.
    """

    deployed: tuple[str, ...]
    shared: tuple[str, ...] = ()
    mocked: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    from_base: tuple[str, ...] | None = ()


def select(project: Project, wanted: Sequence[str], *, has_base: bool) -> Selection:
    """Follow the needs of the wanted services.

    Args:
        wanted: names (``--only``); empty for all.
        has_base: whether there is a base that supplies what the project does not have.

    Raises:
        InvalidInput: a service that nobody has, or a need that only a base could fill.
    """
    ways = _ways(project)
    roots = list(wanted) or [name for name in project.services if ways.get(name, {"sandbox"}) & {"sandbox"}]
    found: dict[str, set[str]] = {"sandbox": set(), "shared": set(), "mock": set(), "skip": set()}
    pending = [(name, "sandbox") for name in roots]
    while pending:
        name, way = pending.pop()
        if name in found[way]:
            continue
        found[way].add(name)
        if way == "sandbox" and name in project.services:
            pending += [(need.service, need.as_) for need in project.services[name].needs]
    deployed = found["sandbox"]
    _check(project, deployed - set(project.services), found, has_base)
    others = tuple(sorted(deployed - set(project.services)))
    return Selection(
        deployed=tuple(name for name in project.services if name in deployed),
        # What is deployed here is not needed from elsewhere.
        shared=tuple(sorted(found["shared"] - deployed)),
        mocked=tuple(sorted(found["mock"] - deployed - found["shared"])),
        skipped=tuple(sorted(found["skip"] - deployed - found["shared"] - found["mock"])),
        from_base=(others if wanted else None) if has_base else (),
    )


def _ways(project: Project) -> dict[str, set[str]]:
    """In which ways each service is needed."""
    ways: dict[str, set[str]] = {}
    for service in project.services.values():
        for need in service.needs:
            ways.setdefault(need.service, set()).add(need.as_)
    return ways


def _check(project: Project, foreign: set[str], found: dict[str, set[str]], has_base: bool) -> None:
    have = ", ".join(project.services)
    if foreign and not has_base:
        raise InvalidInput(
            f"the project has no service {', '.join(sorted(foreign))}{near_any(foreign, project.services)}",
            why=f"it has {have}",
            hint="take it from a running environment with --base",
        )
    if found["shared"] and not has_base:
        raise InvalidInput(
            f"{', '.join(sorted(found['shared']))} is needed as `shared`, which takes it from a base",
            hint="name one with --base, or as `base:` under `defaults:` in sandbox.yaml",
        )
    without_mock = [n for n in sorted(found["mock"]) if n not in project.services or not project.services[n].mock]
    if without_mock:
        raise InvalidInput(
            f"{', '.join(without_mock)} is needed as `mock` and declares none",
            hint="add `mock:` with an image or manifests to that service in sandbox.yaml",
        )

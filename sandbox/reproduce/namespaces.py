"""The captured namespace's name inside of objects, replaced where it certainly is one. Pure.

What counts as certain: fields whose meaning is known, and names of Services as DNS has them (``db.qa``, ``db.qa.svc``,
``db-0.db.qa.svc.cluster.local``) in variables, arguments and ConfigMaps. All else is left as it is, and listed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sandbox.model.objects import Manifest, ObjectRef, pod_spec

# Variables whose value, when it is a namespace's name, is meant to be the pod's own.
_OWN_NAMESPACE = re.compile(r"(?:^|_)NAMESPACE$", re.IGNORECASE)
_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"


@dataclass(frozen=True)
class Mention:
    """Where a namespace's name stands, and what was done about it.

    Attributes:
        object: as kubectl writes it.
        path: of the text in it.
        before, after: the part that was replaced; the same where nothing was.
    """

    object: str
    path: str
    before: str
    after: str

    def line(self) -> str:
        if self.before == self.after:
            return f"{self.object} {self.path}: {self.before}"
        return f"{self.object} {self.path}: {self.before} → {self.after}"


@dataclass(frozen=True)
class Rewritten:
    """An object, what was replaced in it, and what may be meant and was left."""

    manifest: Manifest
    done: tuple[Mention, ...]
    unresolved: tuple[Mention, ...]


class Renaming:
    """From one namespace to another.

    Args:
        services: names of the Services that there are.
    """

    def __init__(self, before: str, after: str, services: Collection[str]) -> None:
        self.before = before
        self.after = after
        self._same = before == after
        names = "|".join(sorted(map(re.escape, services), key=len, reverse=True)) or r"(?!)"
        space = re.escape(before)
        # As a whole: not the end of a longer name, not the beginning of one.
        self._host = re.compile(
            rf"(?<![A-Za-z0-9_-])(?P<service>(?:{names}))\.{space}(?=\.svc(?![A-Za-z0-9_-])|(?![A-Za-z0-9_.-])|\.(?![A-Za-z0-9]))"
        )
        self._word = re.compile(rf"(?<![A-Za-z0-9_-]){space}(?![A-Za-z0-9_-])")
        # Hosts of other namespaces: an egress that is denied.
        self._foreign = re.compile(rf"(?<![A-Za-z0-9_.-]){_LABEL}\.(?P<space>{_LABEL})\.svc(?![A-Za-z0-9_-])")

    def in_text(self, text: str) -> str:
        """A text with the hosts of the namespace's Services in the new one."""
        return text if self._same else self._host.sub(rf"\g<service>.{self.after}", text)

    def mentions(self, text: str) -> list[str]:
        """What of a text (as :meth:`in_text` gave it) still names the captured namespace, or leads into others."""
        found = [] if self._same else [_around(text, match) for match in self._word.finditer(text)]
        known = {self.before, self.after}
        return found + [match[0] for match in self._foreign.finditer(text) if match["space"] not in known]

    def of(self, manifest: Manifest) -> Rewritten:
        """An object with all that is certain replaced."""
        made = copy.deepcopy(manifest)
        name = str(ObjectRef.of(made))
        done: list[Mention] = []
        unresolved: list[Mention] = []

        def edit(path: str, text: str) -> str:
            new = self.in_text(text)
            if new != text:
                hosts = [match[0] for match in self._host.finditer(text)]
                for host in dict.fromkeys(hosts):
                    done.append(Mention(name, path, host, self._host.sub(rf"\g<service>.{self.after}", f"{host}")))
            unresolved.extend(Mention(name, path, part, part) for part in dict.fromkeys(self.mentions(new)))
            return new

        def own(path: str, text: str) -> str | None:
            """A field that holds a namespace's name and nothing else."""
            if text == self.before and not self._same:
                done.append(Mention(name, path, text, self.after))
                return self.after
            return None

        self._fields(made, edit, own)
        return Rewritten(made, tuple(done), tuple(unresolved))

    def _fields(self, made: Manifest, edit: Callable[[str, str], str], own: Callable[[str, str], str | None]) -> None:
        """The table of fields that are looked at."""
        if made["kind"] == "RoleBinding":
            for number, subject in enumerate(made.get("subjects") or ()):
                if isinstance(subject, dict) and isinstance(subject.get("namespace"), str):
                    subject["namespace"] = (
                        own(f"subjects[{number}].namespace", subject["namespace"]) or subject["namespace"]
                    )
        if made["kind"] == "ConfigMap":
            for key, value in (made.get("data") or {}).items():
                if isinstance(value, str):
                    path = f"data.{key}"
                    is_own = own(path, value) if _OWN_NAMESPACE.search(key) else None
                    made["data"][key] = is_own or edit(path, value)
        path = pod_path(made)
        for kind in ("initContainers", "containers"):
            for number, container in enumerate((pod_spec(made) or {}).get(kind) or ()):
                if isinstance(container, dict):
                    self._container(f"{path}.{kind}[{number}]", container, edit, own)

    def _container(
        self,
        where: str,
        container: dict[str, Any],
        edit: Callable[[str, str], str],
        own: Callable[[str, str], str | None],
    ) -> None:
        for number, variable in enumerate(container.get("env") or ()):
            value = variable.get("value")
            if isinstance(value, str):
                path, name = f"{where}.env[{number}].value", str(variable.get("name"))
                variable["value"] = (own(path, value) if _OWN_NAMESPACE.search(name) else None) or edit(path, value)
        for field in ("command", "args"):
            if isinstance(container.get(field), list):
                container[field] = [
                    edit(f"{where}.{field}[{n}]", word) if isinstance(word, str) else word
                    for n, word in enumerate(container[field])
                ]
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            request = (container.get(probe) or {}).get("httpGet") or {}
            for number, header in enumerate(request.get("httpHeaders") or ()):
                if isinstance(header.get("value"), str):
                    path = f"{where}.{probe}.httpGet.httpHeaders[{number}].value"
                    header["value"] = edit(path, header["value"])


def pod_path(manifest: Manifest) -> str:
    """Where an object has its pod's spec."""
    paths = {"Pod": "spec", "CronJob": "spec.jobTemplate.spec.template.spec"}
    return paths.get(manifest["kind"], "spec.template.spec")


def _around(text: str, match: re.Match[str]) -> str:
    """A match with a little of the text around it."""
    line_start = text.rfind("\n", 0, match.start()) + 1
    line_end = text.find("\n", match.end())
    start = max(line_start, match.start() - 40)
    end = min(len(text) if line_end < 0 else line_end, match.end() + 40)
    return text[start:end].strip()

"""A capture as plain data: what is in the bundle's config, and what a store lists.

What is read back came from somebody's machine, bucket or registry: it is untrusted, validated, and bounded by whoever
reads it. A schema that is newer than this tool is refused (:func:`read_document`); fields that are merely unknown are
ignored, so that a newer tool may add some.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sandbox import __version__
from sandbox.model.errors import InvalidInput
from sandbox.model.failure import Finding

SCHEMA: Literal[1] = 1
ARTIFACT_TYPE = "application/vnd.sandbox.capture.v1"
CONFIG_TYPE = "application/vnd.sandbox.capture.config.v1+json"

Status = Literal["ok", "absent", "denied", "truncated", "timeout", "failed"]
"""``ok``: complete. ``absent``: there was nothing. ``denied``: the rights are missing. ``truncated``: over a bound.
``timeout``: not done when the time was up. ``failed``: anything else, in the words of whoever refused."""

_TITLE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@:-]{0,252}", re.ASCII)


def checked_title(title: str) -> str:
    """The path of a layer inside the bundle, as ``oras pull`` would write it.

    Raises:
        ValueError: it is absolute, leads out, or has characters that no capture uses.
    """
    parts = title.split("/")
    if len(parts) > 8 or not all(_TITLE_PART.fullmatch(part) for part in parts):
        raise ValueError(f"{title[:100]!r} is no plain relative path")
    return title


class Data(BaseModel):
    """Base of everything that is stored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Item(Data):
    """One thing that was looked at, and how that went.

    Attributes:
        name: path in the bundle, where it has one.
        area: what it is about: pods, logs, events, helm, record, objects, secrets, quota, nodes, versions, fixtures.
        why: why it is not ``ok``, in the words of whoever refused; what was cut off.
        started_at, ended_at: by this machine's clock, UTC.
        count: of objects, lines or files, where that says something.
        size: bytes in the bundle; 0 where there is nothing of it.
    """

    name: Annotated[str, AfterValidator(checked_title)]
    area: str
    status: Status
    why: str = ""
    started_at: datetime
    ended_at: datetime
    count: int | None = None
    size: int = 0


class Image(Data):
    """The image of one container.

    Attributes:
        named: as the pod's spec has it.
        digest: of what ran (``imageID``), else of what was asked for; empty where nobody says.
        repository: that the digest is in; empty where only the node has the image.
        available: whether the registry still had it by digest when it was captured; None: not asked, or no answer.
        commit: by the image's label ``org.opencontainers.image.revision``; empty where it has none.
    """

    container: str
    named: str
    repository: str = ""
    digest: str = ""
    available: bool | None = None
    commit: str = ""
    source: str = ""


class Service(Data):
    """One service and the version that ran.

    Attributes:
        kind: chart, kustomize, manifests; empty where nothing says.
        commit_from: who says so: record, pod, image; empty where nobody does.
        changed: what differs from the last good deployment: commit, images, chart, values, manifests.
    """

    name: str
    kind: str = ""
    repo: str = ""
    ref: str = ""
    commit: str = ""
    commit_from: str = ""
    release: str = ""
    revision: int | None = None
    chart: str = ""
    chart_version: str = ""
    app_version: str = ""
    state: str = ""
    ready: int = 0
    desired: int = 0
    restarts: int = 0
    images: tuple[Image, ...] = ()
    workloads: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class Why(Data):
    """A finding (:class:`sandbox.model.failure.Finding`), stored."""

    reason: str
    message: str = ""
    object: str = ""
    service: str = ""
    pod: str = ""
    container: str = ""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()

    @classmethod
    def of(cls, finding: Finding) -> Why:
        return cls(**{name: getattr(finding, name) for name in cls.model_fields})

    @property
    def finding(self) -> Finding:
        return Finding(**self.model_dump())


class Signature(Data):
    """What tells one failure from another, whatever the names of pods, times and addresses.

    Attributes:
        reason: such as CrashLoopBackOff, as the pod or workload has it.
        log: the telling log lines, normalised (:mod:`sandbox.capture.signature`).
    """

    service: str
    reason: str
    container: str = ""
    exit_code: int | None = None
    log: tuple[str, ...] = ()


class Redaction(Data):
    """How secrets were kept out.

    Attributes:
        key_id: which key made the placeholders: captures of one key can be compared.
        values: how many secret values were looked for.
        complete: whether all Secrets of the namespace could be read; else some values were not known.
        short: keys of Secrets whose values are too short to be told from other text (``secret/db: port``).
        left: keys of Secrets whose values are names of objects here, and were left where they stand as such.
    """

    key_id: str = ""
    values: int = 0
    complete: bool = True
    short: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class QuotaLine(Data):
    """One resource of a ResourceQuota."""

    quota: str
    resource: str
    used: str
    hard: str


class Document(Data):
    """The config of a bundle: everything about a capture but the contents of its items.

    Attributes:
        needs: the version of sandbox that can read it.
        reason: why it was taken, as given.
        command: the test that failed, as given after ``--``; shown and repeated, never run by reading it.
        partial: something is missing that was there, or that we might not see.
        findings: what is wrong, most telling first.
        fixtures: as :mod:`sandbox.capture.fixtures.model` describes them.
        before: the same, of what stores held before the deployment that failed, where that was taken.
        record: number of the newest record of ours in the namespace; None: there is none.
    """

    apiVersion: Literal["sandbox.dev/v1"] = "sandbox.dev/v1"
    kind: Literal["Capture"] = "Capture"
    schema_version: Literal[1] = SCHEMA
    needs: str = __version__
    made_with: str = __version__
    started_at: datetime
    ended_at: datetime
    by: str = ""
    reason: str = ""
    command: tuple[str, ...] = ()
    context: str = ""
    server_version: str = ""
    namespace: str
    namespace_uid: str = ""
    environment: str = ""
    project: str = ""
    owner: str = ""
    record: int | None = None
    partial: bool = False
    findings: tuple[Why, ...] = ()
    signature: Signature | None = None
    services: tuple[Service, ...] = ()
    quota: tuple[QuotaLine, ...] = ()
    tools: dict[str, str] = Field(default_factory=dict)
    redaction: Redaction = Redaction()
    items: tuple[Item, ...] = ()
    fixtures: tuple[dict[str, Any], ...] = ()
    before: tuple[dict[str, Any], ...] = ()

    @property
    def headline(self) -> str:
        """What failed and why, in one line."""
        if not self.findings:
            return self.reason or "nothing was found to be failing"
        return self.findings[0].finding.lines()[0]

    @property
    def missing(self) -> list[Item]:
        """The items that are not complete, of what was there."""
        return [item for item in self.items if item.status not in ("ok", "absent")]


def read_document(data: bytes) -> Document:
    """Read a bundle's config.

    Raises:
        InvalidInput: it is none, or of a newer schema than this tool reads (says which version does).
    """
    try:
        plain = json.loads(data)
        if not isinstance(plain, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the capture's description is not JSON", why=str(error)[:200]) from None
    schema = plain.get("schema_version")
    if isinstance(schema, int) and schema > SCHEMA:
        needs = str(plain.get("needs") or "")[:40]
        raise InvalidInput(
            f"the capture has schema {schema}, this sandbox ({__version__}) reads {SCHEMA}",
            why=f"it was made with sandbox {str(plain.get('made_with') or 'of a newer version')[:40]}",
            hint=f"install sandbox {needs} or later" if needs else "install a newer sandbox",
        )
    try:
        return Document.model_validate(plain)
    except (ValidationError, RecursionError) as error:
        why = f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}" if isinstance(error, ValidationError) else ""
        raise InvalidInput("the capture's description does not fit its schema", why=why[:300]) from None

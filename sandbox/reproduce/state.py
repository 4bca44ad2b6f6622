"""What a reproduction remembers in its sandbox: of which capture it is, how far it came, and what became of it.

One Secret ``sandbox-reproduce``, beside the records and for the same reason: it holds the seed of the new values. Its
owner can change it, so it is read as untrusted input; all that it can do is spoil its own sandbox.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.model import labels
from sandbox.model.objects import Manifest, ObjectRef

NAME = "sandbox-reproduce"
_KEY = "reproduction"
_LARGEST = 700_000

Stage = Literal["begun", "data", "services", "done"]
"""``begun``: nothing runs yet. ``data``: databases are being filled. ``services``: they are, the rest is started.
``done``: all of it was judged."""


class Reproduction(BaseModel):
    """The state of one reproduction.

    Attributes:
        capture, digest: id, and digest of the manifest of the capture.
        choices: a digest of what was asked for: another choice is another reproduction.
        seed: of the new values, in base64.
        filled: fixture → what was found when it was compared after it was restored; empty: it is complete.
        outcome: verdict and report, as ``-o json`` shows them, once there is one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    capture: str
    digest: str
    choices: str
    seed: str = Field(repr=False)
    stage: Stage = "begun"
    filled: dict[str, str] = Field(default_factory=dict)
    outcome: dict[str, Any] = Field(default_factory=dict)

    @property
    def seed_bytes(self) -> bytes:
        try:
            return base64.b64decode(self.seed, validate=True)
        except binascii.Error:
            return self.seed.encode()

    def line(self) -> str:
        """What a status says of it."""
        if self.stage != "done":
            return f"reproduces capture {self.capture}: not complete"
        found, counts = self.outcome.get("verdict"), self.outcome.get("counts")
        verdict = str(found.get("verdict")) if isinstance(found, dict) else "not known"
        items = ", ".join(f"{n} {what}" for what, n in counts.items()) if isinstance(counts, dict) else ""
        return f"reproduces capture {self.capture}: " + "; ".join(filter(None, (verdict, items, *self._replaced())))

    def _replaced(self) -> list[str]:
        """Which services are at another commit than the captured one."""
        others = self.outcome.get("replaced")
        return [
            f"{name} is replaced by {str(other.get('commit'))[:12]}: {other.get('subject')}"
            for name, other in (others.items() if isinstance(others, dict) else ())
            if isinstance(other, dict)
        ]

    def is_of(self, digest: str, choices: str) -> bool:
        return (self.digest, self.choices) == (digest, choices)


def begin(capture: str, digest: str, choices: str) -> Reproduction:
    """A reproduction that has not begun."""
    seed = base64.b64encode(secrets.token_bytes(32)).decode()
    return Reproduction(capture=capture, digest=digest, choices=choices, seed=seed)


async def load(cluster: Cluster, namespace: str) -> Reproduction | None:
    """The reproduction that a sandbox is; None: it is none, or nobody can tell."""
    try:
        found = await objects.get(cluster, ObjectRef("", "v1", "Secret", NAME, namespace))
        data = base64.b64decode(((found or {}).get("data") or {}).get(_KEY, ""), validate=True)
        return Reproduction.model_validate_json(data) if data else None
    except (Forbidden, ValidationError, binascii.Error, TypeError):
        return None


async def save(cluster: Cluster, namespace: str, state: Reproduction) -> None:
    """Write it down; what is too long of the report is left out."""
    text = state.model_dump_json()
    if len(text) > _LARGEST:
        short = {key: value for key, value in state.outcome.items() if key != "report"}
        text = state.model_copy(update={"outcome": {**short, "shortened": True}}).model_dump_json()
    secret: Manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": NAME, "labels": {labels.MANAGED_BY: labels.MANAGED_BY_VALUE}},
        "data": {_KEY: base64.b64encode(text.encode()).decode()},
    }
    await objects.apply(cluster, secret, namespace=namespace)

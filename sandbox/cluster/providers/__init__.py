"""Where a cluster comes from: one that exists, kind, or the embedded one."""

from __future__ import annotations

from pathlib import Path

from sandbox.cluster.providers.model import ClusterInfo, Progress, Provider
from sandbox.model.errors import InvalidInput, OperationFailed

PROVIDERS = ("existing", "kind", "embedded")

__all__ = ["PROVIDERS", "ClusterInfo", "Progress", "Provider", "all_providers", "choose", "embedded_bin_dir"]


def choose(provider: str, *, creating: bool = False) -> Provider:
    """The provider of this name; for `auto`, the first that can be used.

    `auto` takes `existing` when the current kubeconfig context answers, then `kind` when its
    binary and a Docker daemon are there, then `embedded` on Linux as root.

    Args:
        provider: `auto`, `existing`, `kind` or `embedded`.
        creating: a cluster is to be made, which `existing` never does.

    Raises:
        InvalidInput: there is no provider of this name.
        OperationFailed: `auto`, and none can be used; says why for each.
    """
    by_name = {candidate.name: candidate for candidate in all_providers()}
    if provider in by_name:
        return by_name[provider]
    if provider != "auto":
        raise InvalidInput(f"there is no provider {provider!r}", hint=f"one of auto, {', '.join(by_name)}")
    reasons = []
    for candidate in by_name.values():
        if creating and candidate.name == "existing":
            continue
        reason = candidate.available()
        if reason is None:
            return candidate
        reasons.append(f"{candidate.name}: {reason}")
    raise OperationFailed(
        "no cluster can be had here",
        why="\n".join(reasons),
        hint="set KUBECONFIG to a cluster of yours, or start Docker and install kind, or run as root on Linux",
    )


def all_providers() -> list[Provider]:
    """All providers, in the order of `auto`."""
    from sandbox.cluster.providers.embedded.provider import EmbeddedProvider
    from sandbox.cluster.providers.existing import ExistingProvider
    from sandbox.cluster.providers.kind import KindProvider

    return [ExistingProvider(), KindProvider(), EmbeddedProvider()]


def embedded_bin_dir() -> Path | None:
    """Where the embedded cluster's kubectl and helm are, or None when it is not built."""
    from sandbox.cluster.providers.embedded.build import embedded_bin_dir as built

    return built()

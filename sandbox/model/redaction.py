"""Manifests as they may be shown: without the contents of Secrets."""

from __future__ import annotations

from sandbox.model.objects import Manifest

HIDDEN = "<hidden>"
# kubectl keeps a whole copy of what was applied in it, data included.
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def without_secret_data(manifest: Manifest) -> Manifest:
    """The manifest, values of a Secret's keys replaced by ``<hidden>``; every other object as it is."""
    if manifest.get("apiVersion") != "v1" or manifest.get("kind") != "Secret":
        return manifest
    shown = dict(manifest)
    for field in ("data", "stringData"):
        if isinstance(shown.get(field), dict):
            shown[field] = dict.fromkeys(shown[field], HIDDEN)
        elif field in shown:
            shown[field] = HIDDEN
    metadata = shown.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    if isinstance(metadata, dict) and isinstance(annotations, dict) and _LAST_APPLIED in annotations:
        shown["metadata"] = {**metadata, "annotations": {**annotations, _LAST_APPLIED: HIDDEN}}
    return shown

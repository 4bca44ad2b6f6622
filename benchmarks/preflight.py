"""What the preflight's quota arithmetic adds to `sandbox up`: under 50 ms.

Of the rendered objects of the example shop and of ten charts, counted and held against the profile as `up` does
(100 times each, the median counts); and of a system of 100 workloads, to show how it grows (at most 100 ms).

    python benchmarks/preflight.py
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import yaml
from measure import Claim, report, run, seconds, tool
from project import write_project

from sandbox.model.pod_resources import LimitItem
from sandbox.model.quota import Circumstances, asked_by, broken_by, excesses
from sandbox.model.quota_later import warnings
from sandbox.project.quotas import QuotaProfile, load_profiles, shipped_folder
from sandbox.provision.guardrails import limits

_ROUNDS = 100
_BOUND_MS = 50.0
_EXAMPLES = Path(__file__).parents[1] / "examples" / "shop"
Manifest = dict[str, Any]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ten = _rendered(Path(folder), write_project(Path(folder), 10, "registry.invalid/none@sha256:0"))
    shop = _shop()
    many = [{**manifest, "metadata": {**manifest["metadata"], "name": f"w{n}"}} for n in range(10) for manifest in ten]
    report(
        Claim(f"preflight of the shop ({len(shop)} objects) / 50 ms", _milliseconds(shop), _BOUND_MS, 1, "ms"),
        Claim(f"preflight of ten charts ({len(ten)} objects) / 50 ms", _milliseconds(ten), _BOUND_MS, 1, "ms"),
        Claim(f"preflight of {len(many)} objects / 100 ms", _milliseconds(many), 2 * _BOUND_MS, 1, "ms"),
    )


def _milliseconds(manifests: list[Manifest]) -> float:
    profile = load_profiles([shipped_folder()])["large"]
    return 1000 * statistics.median(seconds(lambda: _check(manifests, profile)) for _ in range(_ROUNDS))


def _check(manifests: list[Manifest], profile: QuotaProfile) -> None:
    """All that the preflight does for the quota, but what it asks of the cluster (nothing, for these objects)."""
    given = Circumstances(limits=[LimitItem.of(item) for item in limits(profile)], hard=profile.resource_quota)
    asked = [item for manifest in manifests for item in asked_by("service", manifest, given)]
    broken = [item for manifest in manifests for item in broken_by("service", manifest, given)]
    assert not broken, broken
    excesses(asked, given.hard)
    list(warnings([("service", manifest) for manifest in manifests], asked, given))


def _rendered(folder: Path, charts: list[str]) -> list[Manifest]:
    texts = [run([tool("helm"), "template", name, str(folder / name)]) for name in charts]
    return _documents("".join(texts))


def _shop() -> list[Manifest]:
    """The example's charts and manifests as they are rendered with their own values."""
    found = []
    for chart in sorted(_EXAMPLES.rglob("Chart.yaml")):
        found += _documents(run([tool("helm"), "template", chart.parent.name, str(chart.parent)]))
    for path in sorted(_EXAMPLES.rglob("*.yaml")):
        if "templates" not in path.parts and "helm" not in path.name:
            found += [item for item in _documents(path.read_text()) if "metadata" in item]
    return found


def _documents(text: str) -> list[Manifest]:
    return [item for item in yaml.safe_load_all(text) if isinstance(item, dict) and "kind" in item]


if __name__ == "__main__":
    main()

"""The example shop as the README's tour shows it: a feature branch is live, and its page answers through the tool."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.cluster.providers import ClusterInfo
from sandbox.model import labels
from tests.e2e.api import api_of
from tests.e2e.datastores import base_image
from tests.e2e.projects import Ended, Namespace, Tool

_MAKE = Path(__file__).parents[2] / "examples" / "shop" / "make-repositories"
NAME = "test-up-shop"


@dataclass(frozen=True)
class Shop:
    """The shop's repository, and its sandbox."""

    tool: Tool
    folder: Path
    space: Namespace

    def up(self, branch: str, *arguments: str) -> Ended:
        options = ("--name", NAME, "--builder", "buildah", "--timeout", "120s")
        # Images are built too.
        return self.tool.run("up", "--ref", branch, *options, *arguments, cwd=self.folder, timeout=480)

    def fetch(self, path: str) -> str:
        return self.tool.run("open", "-s", NAME, "web", "--check", path).ok().out


@pytest.fixture(scope="module")
def shop(tool: Tool, cluster: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The branch `feature/banner`, live."""
    folder = tmp_path_factory.mktemp("repositories")
    subprocess.run([str(_MAKE), str(folder)], check=True, timeout=120, capture_output=True)
    building = tool.with_environment(SANDBOX_BUILD_ARG_BASE_IMAGE=base_image(cluster))
    made = Shop(building, folder / "shop", Namespace(cluster, NAME))
    try:
        made.up("feature/banner").ok()
        yield made
    finally:
        api_of(cluster).delete_namespaces(f"{labels.NAME}={NAME}")


def test_the_page_of_a_feature_branch_answers_through_the_tool(shop: Shop) -> None:
    assert "free delivery" in shop.fetch("/")
    # Which the other services, PostgreSQL and Redis had to answer for.
    overview = json.loads(shop.fetch("/api/overview"))
    assert overview["products"] > 0
    assert len(overview["latest"]) == 3


def test_a_branch_that_asks_for_more_than_its_quota_is_refused(shop: Shop) -> None:
    before = shop.space.annotations()

    shop.up("broken/quota", "--dry-run").failed(4, "quota profile small", "requests.cpu", "deployment.apps/web")

    assert shop.space.annotations() == before

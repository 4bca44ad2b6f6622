"""A store in a bucket of a real S3 server: what holds for a folder holds there, and captures work in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from sandbox.cluster.providers import ClusterInfo
from sandbox.model.errors import Refused, Unreachable
from sandbox.store.store import Store
from tests.conftest import kubectl
from tests.e2e.projects import Tool
from tests.e2e.s3_server import S3Server, running_s3

# The same tests as of every other kind of store, with this module's `store`.
from tests.unit.test_store import (  # noqa: F401
    test_a_bound_on_what_is_read_holds,
    test_an_empty_entry_is_empty,
    test_an_entry_says_its_size_and_when_it_was_written,
    test_put_if_absent_writes_once,
    test_what_is_not_there_is_named,
    test_what_was_put_is_got_listed_and_removed,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def url(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own in the bucket, and the environment that leads there."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.bucket}/{uuid.uuid4().hex}"


@pytest.fixture
def store(url: str) -> Store:
    return Store.open(url)


async def test_wrong_credentials_are_refused_and_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(Refused, match="cannot write a in the store") as refused:
        await store.put("a", b"1")
    assert "wrong-secret" not in str(refused.value)


async def test_a_bucket_that_is_not_there_is_told(server: S3Server, url: str) -> None:
    with pytest.raises(Refused, match="there is no such bucket"):
        await Store.open("s3://no-such-bucket/captures").put("a", b"1")


async def test_a_server_that_is_not_there_is_told_in_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"cannot list .*127\.0\.0\.1:1") as unreachable:
        await Store.open(url).names()
    assert "AWS_ENDPOINT_URL" in unreachable.value.hint


def test_captures_are_kept_listed_verified_and_removed_there(
    server: S3Server, url: str, cluster: ClusterInfo, namespace: str, tool: Tool
) -> None:
    tool = tool.with_environment(**server.environment)
    kubectl(cluster, "create", "configmap", "settings", "-n", namespace, "--from-literal=a=1")
    made = (
        tool.run("capture", "create", "-n", namespace, "--store", url, "--no-fixtures", "-o", "name").ok().out.strip()
    )
    assert made in tool.run("capture", "list", "--store", url).ok().out
    assert "settings" in tool.run("capture", "show", made, "--store", url, "--item", "objects/configmaps.json").ok().out
    tool.run("capture", "verify", made, "--store", url).ok()
    # Contents of databases would leave the machine.
    tool.run("capture", "create", "-n", namespace, "--store", url).failed(4, "encrypted")
    tool.run("capture", "rm", made, "--store", url, "--yes").ok()
    assert made not in tool.run("capture", "list", "--store", url).ok().out

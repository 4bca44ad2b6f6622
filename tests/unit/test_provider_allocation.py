"""Networks of nodes: never shared, never over what the host uses."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cluster.providers.embedded import allocation
from sandbox.model.errors import InvalidInput, OperationFailed

SMALL = ipaddress.IPv4Network("10.200.0.0/24")
subnets = st.integers(0, 63).flatmap(
    lambda index: st.integers(24, 32).map(
        lambda length: ipaddress.IPv4Network((int(SMALL.network_address) + 4 * index, length), strict=False)
    )
)


@pytest.fixture(autouse=True)
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "networks"
    directory.mkdir()
    monkeypatch.setenv("SANDBOX_NETWORK_REGISTER", str(directory))
    monkeypatch.delenv("SANDBOX_CLUSTER_NETWORK", raising=False)
    return directory


def cluster(tmp_path: Path, name: str) -> Path:
    directory = tmp_path / name
    directory.mkdir()
    return directory


@pytest.mark.parametrize(
    ("index", "host", "node"),
    [(0, "10.200.0.1", "10.200.0.2"), (1, "10.200.0.5", "10.200.0.6"), (64, "10.200.1.1", "10.200.1.2")],
)
def test_addresses_follow_from_the_index(index: int, host: str, node: str) -> None:
    network = allocation.network(index)
    assert (network.host_address, network.node_address) == (host, node)
    assert len(network.host_link) <= 15


@pytest.mark.parametrize("index", [-1, 16384])
def test_an_index_beyond_the_range_is_an_error(index: int) -> None:
    with pytest.raises(IndexError):
        allocation.network(index)


@given(taken=st.sets(st.integers(0, 63)), used=st.lists(subnets, max_size=5))
def test_the_first_free_network_is_free(taken: set[int], used: list[ipaddress.IPv4Network]) -> None:
    free = [
        i
        for i in range(64)
        if i not in taken and not any(allocation.network(i, SMALL).subnet.overlaps(u) for u in used)
    ]
    if free:
        assert allocation.first_free(taken, used, SMALL).index == free[0]
    else:
        with pytest.raises(OperationFailed, match="no network is left"):
            allocation.first_free(taken, used, SMALL)


def test_a_cluster_keeps_its_network(tmp_path: Path) -> None:
    first, second = cluster(tmp_path, "a"), cluster(tmp_path, "b")
    assert allocation.allocate(first, []).index == 0
    assert allocation.allocate(second, []).index == 1
    # Its own interface is in the way of nobody but the others.
    assert allocation.allocate(first, [allocation.network(0).subnet]).index == 0
    assert [n.index for n in allocation.allocated(second)] == [1]


def test_released_and_orphaned_networks_are_given_again(tmp_path: Path) -> None:
    first, second, third = (cluster(tmp_path, name) for name in "abc")
    allocation.release(allocation.allocate(first, []))
    assert allocation.allocate(second, []).index == 0
    second.rmdir()
    assert allocation.allocate(third, []).index == 0


def test_a_damaged_record_holds_nothing(tmp_path: Path, register: Path) -> None:
    (register / "0").write_text('{"clus')
    assert allocation.allocate(cluster(tmp_path, "a"), []).index == 0


@pytest.mark.parametrize("text", ["nonsense", "10.200.0.1/16", "10.0.0.0/31", "fd00::/64"])
def test_a_range_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_CLUSTER_NETWORK", text)
    with pytest.raises(InvalidInput, match="SANDBOX_CLUSTER_NETWORK"):
        allocation.network_range()

"""Which /30 network a node gets. Allocations hold for the whole machine, whoever's state directory a cluster is in."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sandbox.model.errors import InvalidInput, OperationFailed

_REGISTER = Path("/var/lib/sandbox/networks")
_DEFAULT_RANGE = "10.200.0.0/16"


@dataclass(frozen=True)
class Network:
    """The addresses and names that belong to one index.

    Attributes:
        index: which /30 of the range, from 0.
        subnet: the /30 itself.
    """

    index: int
    subnet: ipaddress.IPv4Network

    @property
    def host_address(self) -> str:
        return str(self.subnet[1])

    @property
    def node_address(self) -> str:
        return str(self.subnet[2])

    @property
    def host_link(self) -> str:
        """The host's end of the veth pair; link names hold at most 15 characters."""
        return f"sandbox{self.index}"

    @property
    def cgroup(self) -> str:
        return f"sandbox-{self.index}"


def register_dir() -> Path:
    """Where allocations are kept: one file per index, which names the cluster's directory."""
    return Path(os.environ.get("SANDBOX_NETWORK_REGISTER", _REGISTER))


def network_range() -> ipaddress.IPv4Network:
    """The range that nodes' networks are cut from: `$SANDBOX_CLUSTER_NETWORK`, else 10.200.0.0/16.

    Raises:
        InvalidInput: it is not an IPv4 network of at least a /30.
    """
    text = os.environ.get("SANDBOX_CLUSTER_NETWORK", _DEFAULT_RANGE)
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise InvalidInput("SANDBOX_CLUSTER_NETWORK is not an IPv4 network", why=str(error)) from error
    if network.prefixlen > 30:
        raise InvalidInput("SANDBOX_CLUSTER_NETWORK is too small", why=f"{text} does not hold a /30")
    return network


def network(index: int, within: ipaddress.IPv4Network | None = None) -> Network:
    """The network of an index.

    Raises:
        IndexError: the range has no such /30.
    """
    whole = within or network_range()
    if not 0 <= index < whole.num_addresses // 4:
        raise IndexError(index)
    return Network(index, ipaddress.IPv4Network((int(whole.network_address) + 4 * index, 30)))


def first_free(taken: Iterable[int], in_use: Iterable[ipaddress.IPv4Network], within: ipaddress.IPv4Network) -> Network:
    """The first network that no cluster has and that overlaps with nothing the host uses.

    Raises:
        OperationFailed: there is none.
    """
    indices, used = set(taken), list(in_use)
    for index in range(within.num_addresses // 4):
        candidate = network(index, within)
        if index not in indices and not any(candidate.subnet.overlaps(other) for other in used):
            return candidate
    raise OperationFailed(
        f"no network is left in {within}",
        why=f"{len(indices)} clusters hold one each, or the host's own routes cover the range",
        hint="delete a cluster, or set SANDBOX_CLUSTER_NETWORK to another private range",
    )


def allocate(directory: Path, in_use: Iterable[ipaddress.IPv4Network]) -> Network:
    """The network of the cluster in this directory: the one that it has, else a free one, recorded.

    The caller holds the register's lock.

    Args:
        directory: the cluster's own directory, which identifies it on this machine.
        in_use: networks of the host's addresses and routes.
    """
    holders = _holders()
    own = [index for index, holder in holders.items() if holder == directory]
    if own:
        return network(own[0])
    found = first_free(holders, in_use, network_range())
    path = register_dir() / str(found.index)
    path.write_text(json.dumps({"cluster": str(directory)}))
    return found


def allocated(directory: Path) -> list[Network]:
    """The networks recorded for the cluster in this directory."""
    return [network(index) for index, holder in _holders().items() if holder == directory]


def release(held: Network) -> None:
    """Give an index back."""
    (register_dir() / str(held.index)).unlink(missing_ok=True)


def _holders() -> dict[int, Path]:
    """Who holds which index. An allocation whose cluster's directory is gone counts as free and is removed."""
    holders: dict[int, Path] = {}
    for entry in register_dir().glob("[0-9]*"):
        try:
            holder = Path(json.loads(entry.read_text())["cluster"])
        except (ValueError, KeyError, TypeError):
            entry.unlink(missing_ok=True)  # written half by a machine that stopped
            continue
        if holder.is_dir():
            holders[int(entry.name)] = holder
        else:
            entry.unlink(missing_ok=True)
    return holders

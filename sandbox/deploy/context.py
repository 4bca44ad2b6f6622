"""What the steps of one deployment into an environment share."""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.cluster.client import Cluster
from sandbox.deploy.request import DeployRequest
from sandbox.provision.environment import EnvironmentPlace
from sandbox.provision.planning import Planner
from sandbox.provision.reporter import Reporter
from sandbox.provision.services import Place
from sandbox.store.store import Store


@dataclass(frozen=True)
class Context:
    """One deployment: where, what was asked for, and who listens.

    Attributes:
        store: where captures go.
        can_reproduce: whether this tool has a command that brings a capture back.
        begun: the services that were written to; noted before they are.
    """

    cluster: Cluster
    planner: Planner
    environment: EnvironmentPlace
    request: DeployRequest
    store: Store
    reporter: Reporter
    can_reproduce: bool = False
    begun: set[str] = field(default_factory=set)

    @property
    def namespace(self) -> str:
        return self.environment.namespace

    def place(self) -> Place:
        """Where services are deployed, and with what."""
        timeout = self.request.up.timeout.total_seconds()
        return Place(self.cluster, self.namespace, self.planner.helm, timeout)

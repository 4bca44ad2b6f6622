"""What the user of ``deploy`` asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sandbox.capture.fixtures.model import Limits
from sandbox.model.errors import InvalidInput
from sandbox.provision.request import UpRequest


@dataclass(frozen=True)
class DeployRequest:
    """A deployment into an environment.

    Attributes:
        up: source, values, images and timeouts, as ``up`` takes them.
        command: the test that decides, run on this machine when everything is ready; empty: none.
        command_timeout: how long it may take.
        wait_for_lease: how long to wait for another deployment of the same environment.
        capture_timeout: how long a capture may hold up the rollback.
        fixtures: whether the capture holds the contents of databases and caches.
        recipients: age's, for what the capture encrypts.
        adopt: take over what somebody else deployed before.
    """

    up: UpRequest
    command: Sequence[str] = ()
    command_timeout: timedelta = timedelta(minutes=10)
    wait_for_lease: timedelta = timedelta(0)
    capture_timeout: timedelta = timedelta(seconds=60)
    fixtures: bool = True
    recipients: Sequence[str] = ()
    limits: Limits = field(default_factory=Limits)
    adopt: bool = False

    def validate(self) -> None:
        """Refuse what contradicts itself, before anything is asked of anybody.

        Raises:
            InvalidInput: which options do not go together.
        """
        if self.up.lock and self.up.ref:
            raise InvalidInput("--lock says everything that is deployed", hint="leave out --ref")
        if self.up.dirty:
            raise InvalidInput("an environment is deployed from commits", hint="commit first")
        if self.capture_timeout <= timedelta(0):
            raise InvalidInput("--capture-timeout must be longer than nothing", hint="the default is 60s")

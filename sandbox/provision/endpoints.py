"""How a deployed service is reached."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.model.record import Record


@dataclass(frozen=True)
class Endpoint:
    """A port of a service and the command that opens a way to it."""

    service: str
    port_name: str
    port: int
    command: str


def endpoints_of(name: str, record: Record) -> tuple[Endpoint, ...]:
    """The endpoints of all services of a record that declare ports; those first that no other service needs."""
    needed = {need for service in record.services.values() for need in service.needs}
    ordered = sorted(record.services.items(), key=lambda item: (item[0] in needed, item[0]))
    return tuple(
        Endpoint(service, port_name, port, f"sandbox open -s {name} {service}")
        for service, entry in ordered
        for port_name, port in entry.ports.items()
    )

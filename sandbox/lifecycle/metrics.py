"""What the clean-up tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from sandbox.lifecycle.report import Action, Pass
from sandbox.model.errors import OperationFailed
from sandbox.model.sandbox import Phase

_CONTEXT = ("context",)


class Metrics:
    """The metrics, and the endpoint that serves them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, labels: tuple[str, ...] = _CONTEXT) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, _CONTEXT, registry=self.registry)

        self._sandboxes = gauge("sandbox_sandboxes", "Sandboxes by phase.", (*_CONTEXT, "phase"))
        self._flagged = gauge("sandbox_cleanup_flagged", "Sandboxes that only people can mend.")
        self._stuck = gauge("sandbox_cleanup_stuck", "Sandboxes that are being deleted and do not end.")
        self._overdue = gauge(
            "sandbox_cleanup_overdue_seconds", "By how much the latest sandbox is late that could not be deleted."
        )
        self._last = gauge("sandbox_cleanup_last_pass_timestamp_seconds", "When a pass last came to its end.")
        self._took = gauge("sandbox_cleanup_pass_seconds", "How long the last pass took.")
        self._deleted = counter("sandbox_cleanup_deleted", "Sandboxes deleted.")
        self._warned = counter("sandbox_cleanup_warned", "Owners warned.")
        self._failed = counter("sandbox_cleanup_failures", "What could not be done, passes that failed included.")

    def serve(self, port: int) -> int:
        """Serve them on all interfaces from a thread; the port, which the system chooses for 0.

        Raises:
            OperationFailed: the port is taken.
        """
        try:
            server, _ = start_http_server(port, registry=self.registry)
        except OSError as error:
            raise OperationFailed(f"cannot serve metrics on port {port}", why=str(error)) from None
        return int(server.server_port)

    def note(self, done: Pass) -> None:
        """Take in a pass that came to its end."""
        context = done.context
        for phase in Phase:
            self._sandboxes.labels(context, phase.value).set(done.phases[phase])
        self._flagged.labels(context).set(done.actions[Action.FLAGGED])
        self._stuck.labels(context).set(done.actions[Action.STUCK])
        self._overdue.labels(context).set(done.overdue)
        self._took.labels(context).set(done.seconds)
        self._last.labels(context).set_to_current_time()
        self._deleted.labels(context).inc(done.actions[Action.DELETED])
        self._warned.labels(context).inc(done.actions[Action.WARNED])
        self._failed.labels(context).inc(done.actions[Action.FAILED])

    def note_failure(self, context: str) -> None:
        """Take in a pass that did not."""
        self._failed.labels(context).inc()

"""Any commit, live in a bounded Kubernetes namespace; failures captured and reproduced."""

__version__ = "0.1.0"
